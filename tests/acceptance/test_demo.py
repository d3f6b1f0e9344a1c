"""`orch demo`, as a newcomer types it: everything that the demo promises, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.adapters.redis import server as redis_server
from orchestrator.errors import OrchestratorError
from orchestrator.issue import feedback_of
from orchestrator.local import demo
from orchestrator.settings import load
from orchestrator.snapshot import Event, Snapshot, read_snapshot
from orchestrator.wiring.project import Wiring
from tests.support import ROOT

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Ran:
    """A demo that ended: what it printed, and its project as any other process finds it."""

    done: subprocess.CompletedProcess[str]
    left: tuple[str, ...]
    wiring: Wiring

    @property
    def project(self) -> Path:
        return self.wiring.settings.root

    @property
    def said(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.done.stdout.splitlines()[-1])
        return said

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.project, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def issue(self, title: str) -> tuple[str, dict[str, Any]]:
        """The id of the issue with this title, and what became of it."""
        (issue_id,) = (row["id"] for row in self.wiring.tracker.list_issues() if row["title"] == title)
        return issue_id, self.said["issues"][issue_id]

    def told(self, issue_id: str) -> list[Snapshot]:
        """The snapshots in an issue's feedback, oldest first."""
        published = reversed(list(feedback_of(self.wiring.gateway.show_issue(issue_id))))
        return [snapshot for content in published if (snapshot := read_snapshot(content))]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """One demo for all tests here, run in an environment that is set up for something else."""
    folder = tmp_path_factory.mktemp("demo") / "look"
    misleading = {
        "ORCH_REDIS_URL": "redis://localhost:1",
        "ORCH_STATE_DIR": "/nowhere",
        "ORCH_PROJECT_ROOT": "/nowhere",
    }
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "demo", "--json", "--dir", str(folder)],
        env=os.environ | misleading | {"PYTHONPATH": str(ROOT), "HOME": str(folder.parent)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    state = folder / ".state"
    left = (*_working_for(state), *filter(None, [redis_server.find(state)]))
    wiring = Wiring(load(folder / "project", {"ORCH_STATE_DIR": str(state)}))
    with wiring.tracker:
        yield Ran(done, left, wiring)


def _working_for(state: Path) -> Iterator[str]:
    for process in psutil.process_iter(["environ", "cmdline"]):
        if (process.info["environ"] or {}).get("ORCH_STATE_DIR") == str(state):
            yield " ".join(process.info["cmdline"])


@pytest.fixture(scope="module")
def history(ran: Ran) -> Iterator[Wiring]:
    """The demo's Redis, started once more to read what it recorded."""
    server = redis_server.ensure(ran.wiring.settings.state_dir)
    yield ran.wiring
    ran.wiring.client.close()
    server.stop()


def test_every_verdict_comes_out_as_scripted(ran: Ran) -> None:
    """Eight issues and the [FIX] issue that one of them got, each with its verdict and its number of reviews."""
    scripted = {
        "Make slugs from titles": ("closed", "DONE", 1, 1),
        "Wrap text to a width": ("needs_review", "DONE", 3, 1),
        "Tell how long a text takes to read": ("needs_review", "OVERFLOW", 3, 0),
        "[FIX] DEMO-3: Tell how long a text takes to read": ("needs_review", "DONE", 1, 1),
        "Keep apostrophes in words": ("in_progress", "VERIFY_FAILED", 1, 1),
        "Sum a text up in one sentence": ("open", "ERROR", 0, 0),
        "Link headings by their slugs": ("needs_review", "DONE", 1, 1),
        "Split text into sentences": ("needs_review", "DONE", 1, 1),
        "Write headlines in title case": ("needs_review", "DONE", 1, 1),
    }
    became = {title: ran.issue(title)[1] for title in scripted}

    assert scripted == {
        title: (it["status"], it["verdict"], it["attempts"]["spec"], it["attempts"]["quality"])
        for title, it in became.items()
    }
    assert len(scripted) == len(ran.said["issues"])


def test_a_merge_closes_its_issue_and_starts_what_waited(ran: Ran) -> None:
    """The merged issue says why it is closed, once; the one that waited for it was claimed after that."""
    (merged, _), (waited, _) = ran.issue("Make slugs from titles"), ran.issue("Link headings by their slugs")
    said = [json.loads(text) for text in reversed(list(feedback_of(ran.wiring.gateway.show_issue(merged))))]
    markers = [entry["marker"] for entry in said if "marker" in entry]
    closed_at = ran.wiring.tracker.show_issue(merged)["closed_at"]

    assert ["MERGE_EVIDENCE_RECORDED", "MERGE_CLOSE_APPLIED"] == markers
    assert closed_at <= ran.told(waited)[0].timestamp.replace("T", " ")
    assert ran.git("rev-parse", "main") == ran.git("rev-parse", f"orch/{merged}")


def test_four_sessions_ran_at_once_and_it_came_to_an_end(ran: Ran) -> None:
    """As many as there are slots. It takes half a minute; a busy machine may take longer."""
    assert 4 == ran.said["max_parallel"]
    assert 0 < ran.said["elapsed_s"] < 120


def test_progress_goes_to_standard_error(ran: Ran) -> None:
    """Standard output is the one JSON object; the rest tells each issue's fate and what to type next."""
    assert 1 == len(ran.done.stdout.splitlines())
    assert "its blocker " in ran.done.stderr
    assert "git merge orch/" in ran.done.stderr
    assert "git -C" in ran.done.stderr


def test_the_printed_git_command_works(ran: Ran) -> None:
    """It shows the commits of a branch."""
    (command,) = (line.strip() for line in ran.done.stderr.splitlines() if line.startswith("  git -C"))
    shown = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout

    assert 3 == len(shown.splitlines())


def test_a_branch_has_one_commit_per_step_and_says_whose_it_is(ran: Ran) -> None:
    """Implementation and two fixes, each with issue, session and step as trailers."""
    issue_id, it = ran.issue("Wrap text to a width")
    session_id = ran.told(issue_id)[0].session_id
    trailers = "%(trailers:key=Sudocode-Issue,key=Orch-Session,key=Orch-Step,valueonly,separator=%x20)"
    log = ran.git("log", "--reverse", f"--format={trailers}", f"main..{it['branch']}")

    assert [f"{issue_id} {session_id} {step}" for step in ("RUNNING/1", "SPEC_FIX/1", "SPEC_FIX/2")] == log.splitlines()


def test_the_fix_issue_goes_on_from_its_originals_branch(ran: Ran) -> None:
    """So merging it brings in both."""
    original, fix = (ran.issue(f"{mark}Tell how long a text takes to read")[1] for mark in ("", "[FIX] DEMO-3: "))

    assert "1" == ran.git("rev-list", "--count", f"{original['branch']}..{fix['branch']}")
    assert "" == ran.git("log", "--format=%h", f"{fix['branch']}..{original['branch']}")


def test_the_tests_pass_on_every_done_branch_and_fail_on_the_one_that_failed(ran: Ran, tmp_path: Path) -> None:
    """The verdicts hold in a fresh clone."""
    passes = {}
    for issue_id, it in ran.said["issues"].items():
        if it["verdict"] in ("DONE", "VERIFY_FAILED"):
            clone = tmp_path / issue_id
            ran.git("clone", "--quiet", "--branch", it["branch"], str(ran.project), str(clone))
            tests = subprocess.run([sys.executable, "-m", "unittest"], cwd=clone, capture_output=True, check=False)
            passes[issue_id] = tests.returncode == 0

    assert {issue_id: ran.said["issues"][issue_id]["verdict"] == "DONE" for issue_id in passes} == passes
    assert 7 == len(passes)


def test_a_clean_issue_tells_five_snapshots_in_order(ran: Ran) -> None:
    """And the last one has the evidence of the verification that orch ran itself."""
    issue_id, _ = ran.issue("Make slugs from titles")
    told = ran.told(issue_id)

    assert [
        Event.SESSION_START,
        Event.IMPLEMENT_DONE,
        Event.SPEC_REVIEW_PASS,
        Event.QUALITY_REVIEW_PASS,
        Event.SESSION_DONE,
    ] == [snapshot.event_type for snapshot in told]
    assert told[-1].verify is not None
    assert told[-1].verify.exit_code == 0
    assert Path(told[-1].verify.output_ref or "").is_file()


def test_the_tracker_was_told_what_was_recorded(ran: Ran, history: Wiring) -> None:
    """For every issue that had a session, the feedback is the history: nothing lost, doubled or out of order."""
    recorded = {
        holding.issue_id: [
            text for run in history.leases.runs(holding.issue_id) for text in history.leases.snapshots(run)
        ]
        for holding in history.leases.holdings()
    }
    published = {
        issue_id: [
            text for text in reversed(list(feedback_of(ran.wiring.gateway.show_issue(issue_id)))) if read_snapshot(text)
        ]
        for issue_id in recorded
    }

    assert recorded == published
    assert 9 == len(recorded)
    assert (0, []) == (history.outbox.waiting(), history.outbox.refused())


def test_nothing_of_it_runs_on(ran: Ran) -> None:
    """When the command ended, its Redis was gone, and every process that worked for its state folder."""
    assert not ran.left


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """Nothing of somebody's is ever mixed with the demo's."""
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(OrchestratorError, match="is not empty; name a new folder"):
        demo.build(tmp_path, os.environ)
    assert ["mine.txt"] == [path.name for path in tmp_path.iterdir()]
