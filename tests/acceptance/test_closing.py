"""From finished work to closed issues, on a running stack: by plain git, and by pull requests."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.acceptance.project import Project, Running, kill, parent, up
from tests.github_server import TOKEN, GitHubServer
from tests.orch import orch_here

pytestmark = pytest.mark.timeout(300)

ORCH = (sys.executable, "-P", "-m", "orchestrator.cli")
ADA = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
SECRET = "between GitHub and us"


def orch(project: Project, *args: str) -> subprocess.CompletedProcess[str]:
    """What a person types, and what it says."""
    return orch_here(*args, cwd=project.repo, env=project.env)


def orch_beside(project: Project, *args: str) -> None:
    """The same at the same time as others: in a process of its own."""
    subprocess.run([*ORCH, *args], cwd=project.repo, env=project.env, capture_output=True, check=False)


def waiting_for(project: Project, issue: str, title: str, **roles: Any) -> str:
    """An issue that is blocked by another one; its id."""
    blocked = project.file(title, **roles)
    project.tracker.link(from_id=issue, to_id=blocked, type="blocks")
    return blocked


def markers(project: Project, issue: str) -> list[str]:
    """What the issue's feedback says of merges, oldest first."""
    return [entry["marker"] for entry in project.told(issue) if "marker" in entry]


def closed(project: Project) -> dict[str, list[str]]:
    """The closed issues, each with what its feedback says of merges."""
    rows = project.tracker.list_issues(status="closed")
    return {row["id"]: markers(project, row["id"]) for row in rows}


# --- by plain git ---


def merged(project: Project, issue: str) -> None:
    project.git("merge", "--quiet", "--ff-only", f"orch/{issue}")


def merge_commit(project: Project, issue: str) -> None:
    project.git(*ADA, "merge", "--quiet", "--no-ff", f"orch/{issue}")


def squashed(project: Project, issue: str) -> None:
    project.git(*ADA, "merge", "--quiet", "--squash", f"orch/{issue}")
    project.git(*ADA, "commit", "--quiet", "-m", f"The work\n\nSudocode-Issue: {issue}")


def test_a_merge_in_the_repo_closes_its_issue(project: Project) -> None:
    """However a person merges the branches: each issue is closed once, its worktree goes, what waited for it starts."""
    ways = {merged: "fast-forward", merge_commit: "merge commit", squashed: "squash"}
    issues = {way: project.file(name, implementer=[writes(name)]) for way, name in ways.items()}
    blocked = {way: waiting_for(project, issues[way], "Next", implementer=[writes("next")]) for way in ways}
    with up(project) as stack:
        stack.says("is up")
        stack.until(lambda: project.over(*issues.values()), "the first should be done")

        assert ["blocked"] * 3 == [project.status(issue) for issue in blocked.values()]
        assert all(project.worktree(issue).is_dir() for issue in issues.values())
        for way, issue in issues.items():
            way(project, issue)
        stack.until(
            lambda: {"closed"} == set(map(project.status, issues.values())), "the merges should close the first"
        )
        stack.until(lambda: project.over(*issues.values(), *blocked.values()), "the next should start and be done")

        for way, issue in issues.items():
            assert ["MERGE_EVIDENCE_RECORDED", "MERGE_CLOSE_APPLIED"] == markers(project, issue)
            assert not project.worktree(issue).exists()
            assert {"next.txt", f"{ways[way]}.txt"} <= set(project.files(blocked[way]))
            history = orch(project, "history", issue)

            assert "MERGE_CLOSE_APPLIED: merged" in history.stdout
        health = orch(project, "merges", "health")

        assert (0, "healthy") == (health.returncode, health.stdout.partition(":")[0])


def writes(name: str) -> dict[str, object]:
    """One run of an implementer whose work is in a file of its own, beside what is verified."""
    return {"write": {f"{name}.txt": "x\n", "work.txt": "done\n"}}


# --- by a person's word ---

CLAIMS = {"already_done": True, "notes": "README.md has it"}


def test_where_there_is_nothing_to_merge_a_persons_word_closes(make_project: Callable[..., Project]) -> None:
    """A claim is verified and waits in review; silence is an error. What waits for either starts when a person says."""
    project = make_project(limits="errors_in_a_row = 1")
    (project.repo / "work.txt").write_text("done\n")
    project.git("add", "work.txt")
    project.git(*ADA, "commit", "--quiet", "-m", "Do the work by hand")
    claimed = project.file("Claimed", implementer=[{}, CLAIMS])
    silent = project.file("Silent", implementer=[{}])
    waiting = [waiting_for(project, issue, "Next", implementer=[writes("next")]) for issue in (claimed, silent)]
    with up(project) as stack:
        stack.says("is up")
        stack.until(lambda: project.over(claimed, silent), "both should have ended")
        stack.until(lambda: "needs_review" == project.status(claimed), "the tracker should be told")

        assert (2, 2) == (project.asked(claimed), project.asked(silent))
        assert ("DONE", "ERROR") == (project.holding(claimed).verdict, project.holding(silent).verdict)
        assert "changed nothing" in project.holding(silent).reason
        assert "" == project.git("diff", "--stat", "main", f"orch/{claimed}")
        assert f"orch issue close {claimed}" in orch(project, "explain", claimed).stdout
        assert "nothing to merge: the implementer says" in orch(project, "history", claimed).stdout
        assert f"orch issue close {claimed}" in orch(project, "explain", waiting[0]).stdout
        assert ["blocked"] * 2 == [project.status(issue) for issue in waiting]
        for issue in (claimed, silent):
            assert 0 == orch(project, "issue", "close", issue).returncode
        stack.until(lambda: project.over(claimed, silent, *waiting), "what waited should start and be done")

        assert {"closed"} == {project.status(issue) for issue in (claimed, silent)}
        assert [] == markers(project, claimed)
        assert [] == stack.lines("delivered", f"issue={claimed}")


# --- by pull requests ---


@pytest.fixture(scope="module")
def github() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        yield server


@pytest.fixture(scope="module")
def hosted(github: GitHubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose finished work becomes pull requests."""
    folder = tmp_path_factory.mktemp("hosted")
    with Project(folder, top='deliver = "pr"') as project:
        bare = folder / "bare.git"
        project.git("init", "--quiet", "--bare", str(bare))
        project.git("remote", "add", "origin", str(bare))
        project.git("push", "--quiet", "origin", "main")
        with project.toml.open("a") as toml:
            toml.write(f'\n[github]\nrepo = "acme/shop"\napi = "{github.url}"\n')
        project.env |= {"ORCH_GITHUB_TOKEN": TOKEN, "ORCH_GITHUB_WEBHOOK_SECRET": SECRET}
        yield project


@pytest.fixture(scope="module")
def stack(hosted: Project) -> Iterator[Running]:
    """Its stack, for all tests: each asks for issues of its own."""
    with up(hosted) as stack:
        stack.says("is up")
        yield stack


def file(project: Project, github: GitHubServer, title: str, **options: Any) -> str:
    """An issue, whose branch the API knows from now on: it does not look into the bare repo; the issue's id."""
    issue = project.file(title, **options)
    github.push(f"orch/{issue}", issue)
    return issue


def pull_of(project: Project, stack: Running, issue: str) -> int:
    """The number of the issue's pull request, once it is there."""
    stack.until(lambda: project.known(issue) and project.holding(issue).delivered_to, "there should be a pull request")
    return int(project.holding(issue).delivered_to.rpartition("/")[2])


def test_a_pull_request_is_opened_and_its_merge_closes(hosted: Project, github: GitHubServer, stack: Running) -> None:
    """It says what was asked and what was verified, with one line that names its issue; merged, the issue is closed."""
    issue = file(hosted, github, "Opened", content="Approval: manual\nVerify: L2\n\n- [ ] there is work\n")
    number = pull_of(hosted, stack, issue)
    pull = github.pulls[number]

    assert ["needs-review"] == [label["name"] for label in pull["labels"]]
    assert [f"Sudocode-Issue: {issue}"] == [line for line in pull["body"].splitlines() if "Sudocode-Issue" in line]
    assert "exit code 0" in pull["body"]
    assert hosted.git("rev-parse", f"orch/{issue}") in hosted.git("ls-remote", "origin", f"refs/heads/orch/{issue}")
    github.merge(number, at=datetime.now(UTC))
    stack.until(lambda: "closed" == hosted.status(issue), "the merge should close it")

    assert ["MERGE_EVIDENCE_RECORDED", "MERGE_CLOSE_APPLIED"] == markers(hosted, issue)


def test_a_pull_request_that_is_turned_down_reopens_its_issue(
    hosted: Project, github: GitHubServer, stack: Running
) -> None:
    """Closed without being merged: the issue is open again, with the reason, and is worked on once more."""
    issue = file(hosted, github, "Turned down")
    number = pull_of(hosted, stack, issue)
    github.close(number, at=datetime.now(UTC))
    stack.until(lambda: 2 == len(hosted.leases.runs(issue)), "it should be worked on again")

    assert ["PULL_REQUEST_CLOSED_UNMERGED"] == markers(hosted, issue)


def test_a_hundred_times_the_same_merge(hosted: Project, github: GitHubServer, stack: Running) -> None:
    """By webhook, by polls and by git, all at once, in any order and across a killed worker: closed once."""
    issue = file(hosted, github, "Merged often")
    port_of, before = Port(), closed(hosted).keys()
    with Running(hosted, [*ORCH, "web", "--port", "0"]) as web:
        number = pull_of(hosted, stack, issue)
        web.until(lambda: port_of(web), "the webhook should be served")
        to = f"http://127.0.0.1:{port_of(web)}/webhooks/github"
        sha = github.merge(number, at=datetime.now(UTC))
        event = github.closed_event(number)
        at = datetime.now(UTC).isoformat()
        by_hand = ("merges", "close", issue, "--pr-url", github.pulls[number]["html_url"], "--merge-sha", sha)

        def by_webhook() -> None:
            assert 300 > github.send_webhook(to, "pull_request", event, secret=SECRET).status_code

        def by_git() -> None:
            merged(hosted, issue)

        def by_poll() -> None:
            orch_beside(hosted, "merges", "poll", "--once")

        def by_operator() -> None:
            orch_beside(hosted, *by_hand, "--merged-at", at)

        def by_death() -> None:
            for pid in hosted.processes("-Q merge_close"):
                if parent(pid) == stack.process.pid:
                    kill(pid)

        ways = [by_git, *[by_webhook] * 89, *[by_poll] * 5, *[by_operator] * 4, by_death]
        random.Random(4).shuffle(ways)
        with ThreadPoolExecutor(8) as pool:
            for sent in [pool.submit(way) for way in ways]:
                sent.result()
        stack.until(lambda: "closed" == hosted.status(issue), "the merge should close it")
        said = markers(hosted, issue)

        assert 1 == said.count("MERGE_EVIDENCE_RECORDED")
        assert 1 == said.count("MERGE_CLOSE_APPLIED")
        assert before | {issue} == closed(hosted).keys()


def health(project: Project) -> dict[str, Any]:
    """How looking for merges goes."""
    said: dict[str, Any] = json.loads(orch(project, "merges", "health", "--json").stdout)
    return said


class Port:
    """The port that a program says it listens on."""

    def __call__(self, web: Running) -> int:
        lines = web.lines("listening on http://127.0.0.1:")
        return int(lines[0].rpartition(":")[2].partition("/")[0]) if lines else 0


def test_a_record_that_cannot_be_read(hosted: Project, github: GitHubServer, stack: Running) -> None:
    """Nothing is closed by pull requests then; health says what to do, and repairing closes nothing twice."""
    first, second = (
        file(hosted, github, "First", implementer=[writes("first")]),
        file(hosted, github, "Second", implementer=[writes("second")]),
    )
    key, before = hosted.keys("merge-checkpoint"), closed(hosted).keys()
    numbers = {issue: pull_of(hosted, stack, issue) for issue in (first, second)}
    github.merge(numbers[first], at=datetime.now(UTC))
    stack.until(lambda: "closed" == hosted.status(first), "the merge should close the first")

    def spoilt() -> bool:
        hosted.redis.set(key, "{not JSON")  # once more, as a look under way writes the record anew
        return orch(hosted, "merges", "health").returncode == 1

    stack.until(spoilt, "its health should be degraded")
    looked_at = health(hosted)["looked_at"]
    github.merge(numbers[second], at=datetime.now(UTC))
    stack.until(lambda: health(hosted)["looked_at"] > looked_at, "there should be another look")

    assert "degraded" == health(hosted)["health"]
    assert "orch merges repair" in health(hosted)["reason"]
    assert "needs_review" == hosted.status(second)
    assert 0 == orch(hosted, "merges", "repair").returncode
    stack.until(lambda: "closed" == hosted.status(second), "the merge should close the second")
    stack.until(lambda: orch(hosted, "merges", "health").returncode == 0, "it should be well again")

    assert ["MERGE_EVIDENCE_RECORDED", "MERGE_CLOSE_APPLIED"] == markers(hosted, first)[:2]
    assert 1 == markers(hosted, first).count("MERGE_CLOSE_APPLIED")
    assert before | {first, second} == closed(hosted).keys()
    assert {1} == {told.count("MERGE_CLOSE_APPLIED") for told in closed(hosted).values()}
