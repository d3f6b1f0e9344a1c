"""Whatever issues, agents and verifications come up with is told in one clear line, and stops nothing else."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from orchestrator.adapters.redis import RedisControls
from tests.acceptance.project import CLEAN, GOOD, TRACKER, Project, Running, kill, up

pytestmark = pytest.mark.timeout(300)

COMMIT = "git -c user.name=A -c user.email=a@b commit --quiet --message Own"
VERIFY_FAILED = [*CLEAN[:-1], "VERIFY_FAILED"]


def does(line: str = "true", **turn: object) -> dict[str, object]:
    """One run of an implementer that does its work, then types a line into a shell."""
    return GOOD | {"run": [["sh", "-ec", line]]} | turn


@dataclass(frozen=True)
class Night:
    """A stack that was left alone with good and bad issues, in the morning. They are asked for by title."""

    project: Project
    stack: Running
    issues: dict[str, str]
    before: object

    def __getitem__(self, title: str) -> str:
        return self.issues[title]

    def why(self, title: str) -> str:
        """The reason that the tracker was told last."""
        snapshot: dict[str, Any] = self.project.told(self[title])[-1]
        (reason,) = snapshot["failed_items"]
        return str(reason)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """All kinds of bad input at once, and a good issue that is claimed after all of it."""
    with Project(
        tmp_path_factory.mktemp("night"),
        top="concurrency = 8",
        limits="agent_seconds = 40\nsilence_seconds = 6\nverify_seconds = 2",
        verify='L0 = ["sh", "-c", "echo 1 test failed; exit 3"]\nL1 = ["sleep", "60"]',
        lease_s=20,  # eight agents at once, some of which fork without end: no session is to be lost to that
    ) as project:
        kinds: dict[str, dict[str, Any]] = {
            "Malformed": {"priority": 0},
            "Waiting": {"priority": 0},
            "Flooding": {"priority": 0, "implementer": [does(misbehave="flood")]},
            "Garbage at first": {"implementer": [does(misbehave="garbage"), GOOD]},
            "No checklist": {"content": "Verify: L2\n\nJust do it.\n"},
            "No verification": {"verify": "-"},
            "Failing verification": {"verify": "L0"},
            "Endless verification": {"verify": "L1"},
            "Meddling review": {"spec_reviewer": [check("echo worse > work.txt; echo > new.txt")]},
            "Own commits": {"implementer": [does(f"git add .; {COMMIT}")]},
            "No .git": {"implementer": [does("rm -rf .git")]},
            "Meddling with issues": {"implementer": [does("mkdir .sudocode; echo > .sudocode/issues.jsonl")]},
        }
        failing: dict[str, dict[str, Any]] = {
            "Endless": {"implementer": [does(seconds=60)]},
            "Hanging": {"implementer": [does(misbehave="hang")]},
            "Forking": {"implementer": [does(misbehave="fork")]},
            "Garbage": {"implementer": [does(misbehave="garbage")]},
            "Garbage review": {"spec_reviewer": [{"misbehave": "garbage"}]},
            "Failing": {"implementer": [does(misbehave="exit3")]},
            "Good": {"priority": 4},
        }
        issues = {title: project.file(title, **what) for title, what in kinds.items()}
        database = sqlite3.connect(project.repo / ".sudocode" / "orch-tracker.db")
        with database:
            database.execute("UPDATE issues SET created_at = 'yesterday' WHERE id = ?", (issues["Malformed"],))
        database.close()
        project.tracker.link(from_id=issues["Waiting"], to_id=issues["Flooding"], type="depends-on")
        project.tracker.upsert_issue(issue_id=issues["Waiting"], status="open")  # the tracker had it blocked
        before = project.main_checkout()
        runnable = set(issues.values()) - {issues["Malformed"], issues["Waiting"]}
        with up(project) as stack:
            stack.says("is up")
            stack.until(lambda: project.over(*runnable), "the first sessions should have ended", 90)
            stack.says(issues["Waiting"])
            # All at once, and then no more: what failed is tried again after 30 s, and a busy machine may take longer.
            issues |= {title: project.file(title, **what) for title, what in failing.items()}
            runnable |= {issues[title] for title in failing}
            stack.until(lambda: all(map(project.known, runnable)), "all sessions should have begun", 30)
            RedisControls(project.redis, project.keys).pause(by="the night", reason="all have had their session")
            stack.until(lambda: project.over(*runnable), "all sessions should have ended", 90)
            yield Night(project, stack, issues, before)


def check(line: str) -> dict[str, object]:
    """One run of a reviewer that types a line into a shell, and passes."""
    return {"checks": [{"item": "-", "run": ["sh", "-ec", line], "fix": "-"}]}


DONE = [
    "Flooding",
    "Garbage at first",
    "No checklist",
    "Meddling review",
    "Own commits",
    "No .git",
    "Meddling with issues",
    "Good",
]


@pytest.mark.parametrize("title", DONE)
def test_what_can_be_done_is_done(night: Night, title: str) -> None:
    """An issue that can be done reaches its reviewers with five snapshots and one commit, whatever runs beside it."""
    assert "needs_review" == night.project.status(night[title])
    assert CLEAN == night.project.events(night[title])
    assert {"README.md", "work.txt"} == night.project.files(night[title]).keys()
    assert "1" == night.project.git("rev-list", "--count", f"main..orch/{night[title]}")


FAILED = {
    "Endless": "ran longer than 40 s and was ended: make the issue smaller, or raise agent_seconds in orch.toml",
    "Hanging": "printed nothing for 6 s and was ended: see what it waited for, or raise silence_seconds in orch.toml",
    "Forking": "printed nothing for 6 s and was ended",
    "Garbage": "implementer: its answer does not end with a JSON object; it ends with",
    "Garbage review": "spec_reviewer: its answer does not end with a JSON object; it ends with",
    "Failing": "exited with code 3: scripted: the playbook says to fail here",
}


@pytest.mark.parametrize("title", FAILED)
def test_an_error_is_told_once_and_the_issue_waits(night: Night, title: str) -> None:
    """A session that ends in an error says why in one line, and its issue is open again but not tried at once."""
    project, issue_id = night.project, night[title]
    (line,) = night.stack.lines(issue_id, "session_failed")
    holding = project.holding(issue_id)

    assert FAILED[title] in line
    assert "SESSION_ERROR" == project.events(issue_id)[-1]
    assert night.why(title)[:100] in holding.reason
    assert "open" == project.status(issue_id)
    assert 1 == len(project.leases.runs(issue_id))
    assert 30_000 == (holding.held_until_ms or 0) - holding.ended_at_ms


def test_the_log_is_for_people(night: Night) -> None:
    """Nothing that can be expected to go wrong is a traceback, or is said by a second line."""
    assert [] == night.stack.lines("Traceback")
    assert [] == night.stack.lines("task_failed")


def test_a_malformed_record(night: Night) -> None:
    """A ready record that makes no sense is named once, however often it is read, and left alone."""
    (line,) = night.stack.lines("malformed_ready_record")

    assert f"ready record {night['Malformed']} is malformed and skipped: created_at:" in line
    assert "Correct the issue in the tracker." in line
    assert "open" == night.project.status(night["Malformed"])


def test_a_blocker_in_review(night: Night) -> None:
    """What waits for an issue that is not merged yet is not run, and that is said once, however often it is seen."""
    (line,) = night.stack.lines(night["Waiting"])

    assert f"not_claimed        issue={night['Waiting']} reason='it waits for {night['Flooding']} to be closed'" in line
    assert "open" == night.project.status(night["Waiting"])


@pytest.mark.parametrize(("title", "role"), [("Garbage", "implementer"), ("Garbage review", "spec_reviewer")])
def test_garbage_is_asked_for_once_more(night: Night, title: str, role: str) -> None:
    """An agent without an answer is asked a second time, not a third."""
    assert 2 == night.project.asked(night[title], role)


@pytest.mark.parametrize(
    ("title", "why"),
    [
        (
            "No verification",
            "no verification command: orch.toml has none for level -; "
            'write e.g. [verify] default = ["make", "test"] in orch.toml',
        ),
        (
            "Failing verification",
            "`sh -c 'echo 1 test failed; exit 3'` exited with 3: 1 test failed "
            "(red again: exited with 3 before, on the same commit)",
        ),
        (
            "Endless verification",
            "`sleep 60` exited with 124: orch: ended after 2 s, the time limit of a verification "
            "(red again: exited with 124 before, on the same commit)",
        ),
    ],
)
def test_a_failed_verification(night: Night, title: str, why: str) -> None:
    """Work that is not verified ends in VERIFY_FAILED with a sentence that says what to do or to look at."""
    assert VERIFY_FAILED == night.project.events(night[title])
    assert why == night.why(title)
    assert "in_progress" == night.project.status(night[title])


def test_a_reviewer_changes_nothing(night: Night) -> None:
    """What a reviewer did to the files is thrown away, and named."""
    (line,) = night.stack.lines(night["Meddling review"], "reviewer_changed_files")

    assert "count=2 files=['new.txt', 'work.txt']" in line
    assert "done" == night.project.files(night["Meddling review"])["work.txt"]


def test_an_agents_own_commits(night: Night) -> None:
    """Commits that an agent made itself are squashed into the step's, which names them."""
    message = night.project.git("log", "-1", "--format=%B", f"orch/{night['Own commits']}")

    assert "Squashed, as the agent had named them:\n- Own\n" in message


def test_agents_leave_nothing_running(night: Night) -> None:
    """No process of an agent outlives its session, whatever the agent started."""
    assert {} == night.project.processes("sleep")
    assert {} == night.project.processes("scripted")


def test_the_main_checkout_stays_as_it_was(night: Night) -> None:
    """Nothing that agents did has reached the user's own checkout or tracker."""
    assert night.before == night.project.main_checkout()
    assert len(night.issues) == len(night.project.tracker.list_issues())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Running]]:
    """A stack with a prompt template of the user's own."""
    with Project(tmp_path_factory.mktemp("desk"), top='prompt_template = "prompt.md"') as project:
        (project.repo / "prompt.md").write_text("{{title}}\n")
        with up(project) as stack:
            stack.says("is up")
            yield project, stack


def test_the_tracker_dies(desk: tuple[Project, Running]) -> None:
    """While the tracker's server is killed again and again, sessions go on, and all is told in order, once."""
    project, stack = desk
    project.play("default", implementer=[GOOD], spec_reviewer=[{"seconds": 0.5}], quality_reviewer=[{"seconds": 0.5}])
    known = {holding.issue_id for holding in project.leases.holdings()}
    issues = [project.file(f"Tracker {number}") for number in range(2)]
    for role in ("spec_reviewer", "quality_reviewer"):
        stack.until(partial(all_at_work, project, issues, role), f"the {role} should work")
        stack.until(lambda: servers(project), "a tracker's server should run")
        for server in servers(project):
            kill(server)
    stack.until(lambda: project.over(*known, *issues), "all should have been told")

    for issue in issues:
        assert CLEAN == project.events(issue)
        assert project.snapshots(issue) == project.feedback(issue)


def all_at_work(project: Project, issues: Sequence[str], role: str) -> bool:
    """Whether this role was asked for on each of them."""
    return all(project.asked(issue, role) for issue in issues)


def servers(project: Project) -> list[int]:
    """The stack's tracker servers."""
    return list(project.processes(" ".join(TRACKER)))


def test_a_template_with_an_unknown_placeholder(desk: tuple[Project, Running]) -> None:
    """A placeholder that means nothing is named, each time that somebody asks for the issue, until it is corrected."""
    project, stack = desk
    known = {holding.issue_id for holding in project.leases.holdings()}
    (project.repo / "prompt.md").write_text("{{titel}}\n")
    issue = project.file("Template")
    stack.until(lambda: project.over(*known, issue), "the session should have ended")
    (reason,) = project.told(issue)[-1]["failed_items"]
    status = project.status(issue)
    (project.repo / "prompt.md").write_text("{{title}}\n")
    waits = project.holding(issue).held_until_ms
    project.leases.want(issue)
    stack.until(lambda: project.holding(issue).verdict == "DONE", "the corrected template should do")
    stack.until(lambda: project.over(*known, issue), "all should have been told")

    assert reason.startswith(f"{issue}: prompt template: no value for {{{{titel}}}}; known are ")
    assert "open" == status
    assert waits
    assert 1 == len(stack.lines(issue, "session_failed"))
    assert [] == stack.lines("Traceback")
    assert ["SESSION_START", "SESSION_ERROR", *CLEAN] == project.events(issue)


def test_a_second_stack(desk: tuple[Project, Running]) -> None:
    """A second `orch up` says in one line that the first is up, and leaves it alone."""
    project, stack = desk
    with up(project) as second:
        assert 1 == second.ends()
        (line,) = second.printed.splitlines()

    assert f"the stack of {project.repo} is up already (process {stack.process.pid})" in line
    assert stack.process.poll() is None


def test_a_repo_without_a_tracker(project: Project) -> None:
    """What is wrong with the tracker, and what to do, is said at the start; the stack stays up and waits for it."""
    shutil.rmtree(project.repo / ".sudocode")
    with up(project) as stack:
        stack.until(
            lambda: f"there is no tracker in {project.repo}: run `orch init` there" in stack.printed, "the line"
        )

        assert stack.process.poll() is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("poll_interval = 0.5", "poll_intervall = 3", "unknown key `poll_intervall`; did you mean `poll_interval`?"),
        ("lease_seconds = 3", "lease_seconds = 1", "lease_seconds: must be at least 2 (is 1); write e.g."),
        ("[agents.default]", "[agents.implementer]", "agents: no command for spec_reviewer, quality_reviewer;"),
    ],
)
def test_a_wrong_orch_toml(make_project: Callable[..., Project], old: str, new: str, said: str) -> None:
    """A mistake in orch.toml is one line that names it and what to write, and nothing is started."""
    project = make_project()
    project.toml.write_text(project.toml.read_text().replace(old, new))
    with up(project) as stack:
        assert 1 == stack.ends()
        (line,) = stack.printed.splitlines()

    assert "orch.toml: " in line
    assert said in line
    assert project.is_down()
