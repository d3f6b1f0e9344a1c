"""`orch merges audit`, in a checkout as CI has it, and the workflow that calls it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import tracker
from orchestrator.issue import feedback_of
from orchestrator.models import Verdict
from orchestrator.tracker import jsonl
from orchestrator.tracker.database import DATABASE, ISSUE
from orchestrator.tracker.store import Store
from tests.github_server import GitHubServer
from tests.merges import Tracked
from tests.orch import OrchHere
from tests.support import ROOT, noon

WORKFLOW = (ROOT / ".github/workflows/sudocode-close-on-merge.yml").read_text("utf-8")


class Checkout(OrchHere):
    """A repo with its issues committed, and one merged pull request in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        tracker.init(self.repo)
        self.git("config", "user.name", "Somebody")
        self.git("config", "user.email", "somebody@example.org")
        self.commit_issue(Verdict.DONE)
        self.github = GitHubServer()
        self.github.open("orch/i-a1b2", body="Sudocode-Issue: i-a1b2")

    def commit_issue(self, verdict: Verdict | None) -> None:
        """The issue as a tracker keeps it for git, once a session of it came to this."""
        tracked = Tracked()
        tracked.session(verdict)
        shown = tracked.show_issue("i-a1b2")
        folder = self.repo / ".sudocode"
        (folder / "issues.jsonl").write_text("")
        store = Store(folder, noon)
        with store.write():
            row = store.create(ISSUE, {"id": "i-a1b2", "title": shown["title"], "status": shown["status"]}, ())
            both = {f"{end}_{key}": row[key] for end in ("from", "to") for key in ("id", "uuid")}
            for content in reversed(list(feedback_of(shown))):
                said = {"feedback_type": "comment", "content": content, "agent": "orch", "anchor": None}
                store.add_feedback(both | said)
        store.close()
        for file in folder.glob(f"{DATABASE}*"):
            file.unlink()
        self.git("add", "--all")
        self.git("commit", "--allow-empty", "--quiet", "-m", "Keep the issues")

    def event(self, **pull: Any) -> Path:
        """The file that a workflow finds when the pull request is merged; its merge commit is what main is at."""
        self.github.merge(1)
        event = self.github.closed_event(1)
        event["pull_request"] |= {"merge_commit_sha": self.git("rev-parse", "main").strip()} | pull
        return self.told(event)

    def told(self, event: object) -> Path:
        """Whatever GitHub may tell, as a file."""
        path = self.repo.parent / "event.json"
        path.write_text(json.dumps(event))
        return path

    def everything(self) -> dict[str, bytes]:
        """All files, git's too."""
        return {str(path): path.read_bytes() for path in self.repo.rglob("*") if path.is_file()}


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path)
    with checkout.github:
        yield checkout


def audit(ci: Checkout, event: Path, *words: str) -> tuple[int, str]:
    done = ci("merges", "audit", "--event-file", str(event), "--dry-run", *words)
    assert "" == done.stderr
    return done.returncode, done.stdout


def test_a_merge_that_will_close_its_issue(ci: Checkout) -> None:
    """Said in words, with what cannot be known here; nothing in the checkout is changed, nor in the home."""
    event = ci.event()
    before = ci.everything()

    said = audit(ci, event)

    assert (
        0,
        "https://github.com/acme/shop/pull/1 closes (i-a1b2): merged\n"
        "not checked here: i-a1b2's last session changed something, which the merge took and nobody took back\n",
    ) == said
    assert before == ci.everything()
    assert not ci.state.exists()


def test_the_same_for_programs(ci: Checkout) -> None:
    """With stable names."""
    event = ci.event()
    code, said = audit(ci, event, "--json")

    assert 0 == code
    assert {
        "issue": "i-a1b2",
        "merge_sha": ci.git("rev-parse", "main").strip(),
        "pull_request": "https://github.com/acme/shop/pull/1",
        "reason": "merged",
        "ruling": "CLOSE",
        "unchecked": ["i-a1b2's last session changed something, which the merge took and nobody took back"],
    } == json.loads(said)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"body": "Sudocode-Issue: 17"}, "malformed line 'Sudocode-Issue: 17'"),
        ({"body": None}, "no line `Sudocode-Issue: i-xxxx`"),
        ({"body": "Sudocode-Issue: i-zzzz", "head": {"ref": "orch/i-zzzz", "repo": {"full_name": "acme/shop"}}},
         "there is no i-zzzz in .sudocode/issues.jsonl"),
        ({"head": {"ref": "fix-typo", "repo": None}}, "from a deleted fork:fix-typo"),
        ({"base": {"ref": "release", "repo": {"full_name": "acme/shop"}}}, "its base is release, not main"),
    ],
)  # fmt: skip
def test_a_merge_that_would_be_rejected(ci: Checkout, changes: dict[str, Any], reason: str) -> None:
    """Exit 1, and why."""
    code, said = audit(ci, ci.event(**changes))

    assert 1 == code
    assert " would be rejected" in said
    assert reason in said


def test_an_issue_that_waits_for_no_merge(ci: Checkout) -> None:
    """As the committed file has it."""
    ci.commit_issue(None)

    code, said = audit(ci, ci.event())

    assert 1 == code
    assert "would be rejected (i-a1b2): close allowed only from needs_review\n" in said


def test_a_commit_that_is_not_on_the_base(ci: Checkout) -> None:
    """It is on a branch beside it, as after a force-push."""
    ci.git("checkout", "--quiet", "-b", "beside")
    ci.git("commit", "--allow-empty", "--quiet", "-m", "Beside")
    beside = ci.git("rev-parse", "HEAD").strip()

    code, said = audit(ci, ci.event(merge_commit_sha=beside))

    assert 1 == code
    assert "main does not hold its merge commit" in said


def test_a_commit_that_is_not_in_the_checkout(ci: Checkout) -> None:
    """A shallow one cannot tell, and says so."""
    code, said = audit(ci, ci.event(merge_commit_sha="a" * 40))

    assert 0 == code
    assert "not checked here: main holds the merge commit\n" in said


@pytest.mark.parametrize("content", [None, "<<<<<<< HEAD\n"], ids=["missing", "an unfinished merge"])
def test_issues_that_cannot_be_read(ci: Checkout, content: str | None) -> None:
    """The other rules are checked, and it says which was not, and why."""
    path = ci.repo / ".sudocode/issues.jsonl"
    path.unlink()
    if content:
        path.write_text(content)

    good = audit(ci, ci.event())
    bad = audit(ci, ci.event(body="Sudocode-Issue: 17"))

    assert (0, 1) == (good[0], bad[0])
    assert "closes (i-a1b2): nothing speaks against it\n" in good[1]
    assert "not checked here: i-a1b2 waits for a merge (" in good[1]
    assert str(path) in good[1]


def test_of_two_lines_for_one_issue_the_later_counts(ci: Checkout) -> None:
    """That is what a union merge of the file leaves."""
    path = ci.repo / ".sudocode/issues.jsonl"
    [record] = jsonl.read(path)
    older = record | {"status": "open", "updated_at": "2026-01-01 00:00:00"}
    jsonl.write(path, map(jsonl.render, [record | {"updated_at": "2026-01-02 00:00:00"}, older]))

    assert 0 == audit(ci, ci.event())[0]


@pytest.mark.parametrize(
    "event", [{}, {"ref": "refs/heads/main"}, {"action": "opened", "pull_request": {}}, {"action": "closed"}]
)
def test_events_that_close_nothing(ci: Checkout, event: object) -> None:
    """A push, a new pull request, a closed issue: all is well."""
    assert (0, "concerns no issue: no pull request was closed\n") == audit(ci, ci.told(event))


def test_a_pull_request_that_names_no_issue(ci: Checkout) -> None:
    """Somebody's own work, merged: all is well."""
    code, said = audit(ci, ci.event(body="A typo.", head={"ref": "fix-typo", "repo": {"full_name": "acme/shop"}}))

    assert (0, True) == (code, " concerns no issue: no line" in said)


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("{}", [], "an audit only looks: give --dry-run"),
        ("{", ["--dry-run"], "is no event of GitHub's"),
        ("[]", ["--dry-run"], "it is no JSON object"),
        ('{"action": "closed", "pull_request": {}}', ["--dry-run"], "pull_request.number: Field required"),
        (None, ["--dry-run"], "does not exist"),
    ],
)
def test_misuse(ci: Checkout, content: str | None, words: list[str], said: str) -> None:
    """Exit 2, with what to give instead."""
    path = ci.repo.parent / "event.json"
    if content is not None:
        path.write_text(content)

    done = ci("merges", "audit", "--event-file", str(path), *words)

    assert (2, "") == (done.returncode, done.stdout)
    assert said in " ".join(done.stderr.split())


# The workflow


def test_the_workflow_may_only_read() -> None:
    """On a closed pull request, with none of its code, no secret and no right to write."""
    code = "\n".join(line.partition("#")[0].rstrip() for line in WORKFLOW.splitlines())

    assert "on:\n  pull_request:\n    types: [closed]\n" in code
    assert "permissions:\n  contents: read\n\njobs:" in code
    assert not re.search("write|secrets|pull_request_target|head_ref|head\\.", code)
    assert "persist-credentials: false" in code


def test_the_workflow_runs_the_audit(ci: Checkout) -> None:
    """Its last line, by a shell, with the file that GitHub names."""
    *_, command = re.findall(r"^      - run: (.*)$", WORKFLOW, re.MULTILINE)
    ci.install("orch", f'#!/bin/sh\nexec "{sys.executable}" -P -m orchestrator.cli "$@"\n')
    bash = shutil.which("bash")
    assert bash, "bash is what GitHub runs"

    done = subprocess.run(
        [bash, "-e", "-c", command],
        cwd=ci.repo,
        env=ci.env | {"GITHUB_EVENT_PATH": str(ci.event())},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "closes (i-a1b2): merged" in done.stdout
