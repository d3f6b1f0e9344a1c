"""`orch up` on somebody else's repo, seen from outside: what it hands over, and what it survives."""

from __future__ import annotations

import base64
import json
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from orchestrator.adapters.redis import server as redis_server
from tests.acceptance.project import CELERY, CLEAN, Project, Running, kill, parent, up
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

LOGIN = "night:watch"
ROLES = ("implementer", "spec_reviewer", "quality_reviewer")


@dataclass(frozen=True)
class Evening:
    """A stack that has done all there was to do, and the checkout as it was before."""

    project: Project
    stack: Running
    issues: list[str]
    before: object


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evening]:
    """Three issues that nobody finds fault with."""
    with Project(tmp_path_factory.mktemp("evening")) as project:
        issues = [project.file(f"Issue {number}") for number in range(3)]
        before = project.main_checkout()
        with up(project) as stack:
            stack.says("is up")
            stack.until(lambda: project.over(*issues), "the three should have been done")
            yield Evening(project, stack, issues, before)


def test_issues_become_branches(evening: Evening) -> None:
    """Each issue needs review, and its branch is one commit on main that says which issue and session it is from."""
    project = evening.project
    for issue in evening.issues:
        (session,) = project.leases.runs(issue)
        trailers = project.git("log", "--format=%(trailers:only,unfold)", f"main..orch/{issue}").splitlines()

        assert "needs_review" == project.status(issue)
        assert [f"Sudocode-Issue: {issue}", f"Orch-Session: {session}", "Orch-Step: RUNNING/1"] == trailers[:3]
        assert {"README.md": "# Somebody's project", "work.txt": "done"} == project.files(issue)


def test_the_tracker_is_told_what_was_recorded(evening: Evening) -> None:
    """Redis has the five snapshots of each session in order, and the tracker the very same, byte for byte."""
    for issue in evening.issues:
        snapshots = evening.project.snapshots(issue)

        assert CLEAN == [json.loads(snapshot)["event_type"] for snapshot in snapshots]
        assert snapshots == evening.project.feedback(issue)


def test_the_main_checkout_is_left_alone(evening: Evening) -> None:
    """HEAD, files and git's status are as they were; what sessions work in is outside of the repo."""
    project = evening.project
    worked_in = {project.worktree(holding.issue_id) for holding in project.leases.holdings()}

    assert evening.before == project.main_checkout()
    assert "?? .sudocode/\n?? orch.toml" == project.git("status", "--porcelain")
    assert 1 == len(project.git("worktree", "list").splitlines())
    assert all((folder / ".git").is_dir() for folder in worked_in)


def working(project: Project, role: str, *issues: str, run: int = 1) -> Callable[[], bool]:
    """Whether the agents of this role are at work on all of these issues, for the run-th time."""
    return lambda: all(project.asked(issue, role) >= run for issue in issues)


def test_sigterm_hands_sessions_over(project: Project) -> None:
    """SIGTERM with four sessions running ends everything in time with exit code 0; the next stack finishes all four.

    Two of them reach a step boundary in time and two do not. No step that was recorded is done again.
    """
    quick = [project.file(f"Quick {n}", spec_reviewer=[{"seconds": 1.5}]) for n in range(2)]
    slow = [project.file(f"Slow {n}", spec_reviewer=[{"seconds": 60}, {}]) for n in range(2)]
    with up(project) as stack:
        stack.says("is up")
        stack.until(working(project, "spec_reviewer", *quick, *slow), "all four should be reviewed")

        assert 0 == stack.ends(signal.SIGTERM)
        assert 4 == len(stack.lines("session_left"))
    assert project.is_down()

    with up(project) as stack:
        stack.says("is up")
        stack.until(lambda: project.over(*quick, *slow), "all four should have been done")
        for issue in quick + slow:
            assert CLEAN == project.events(issue)
            assert project.snapshots(issue) == project.feedback(issue)
    assert [(1, 1, 1)] * 2 == [tuple(project.asked(issue, role) for role in ROLES) for issue in quick]
    assert [(1, 2, 1)] * 2 == [tuple(project.asked(issue, role) for role in ROLES) for issue in slow]


def test_sudden_deaths(make_project: Callable[..., Project]) -> None:
    """kill -9 of the worker, kill -9 of `orch up` and a second Ctrl-C each end everything below; nothing is lost.

    The session goes on in the step it was in: its implementation is not repeated, and all is told once.
    """
    project = make_project(lease_s=2)
    issue = project.file("Long", spec_reviewer=[{"seconds": 60}, {"seconds": 60}, {"seconds": 60}, {}])
    with up(project) as stack:
        stack.until(working(project, "spec_reviewer", issue), "it should be reviewed")
        (worker,) = (pid for pid in project.processes("worker -Q sessions") if parent(pid) == stack.process.pid)
        kill(worker)
        stack.until(working(project, "spec_reviewer", issue, run=2), "a new worker should take the session up")

        assert stack.lines("worker ended with code -9; starting it again")
        stack.process.kill()
        wait_until(project.is_down, "a killed stack should leave nothing running", 30)
    with up(project) as stack:
        stack.until(working(project, "spec_reviewer", issue, run=3), "the next stack should take the session up")
        stack.process.send_signal(signal.SIGINT)
        stack.says("stopping; sessions hand over")

        assert 130 == stack.ends(signal.SIGINT)
        assert project.is_down()
    with up(project) as stack:
        stack.says("is up")
        stack.until(lambda: project.over(issue), "the session should have ended")

        assert CLEAN == project.events(issue)
        assert project.snapshots(issue) == project.feedback(issue)
    assert (1, 4, 1) == tuple(project.asked(issue, role) for role in ROLES)


def ends_a_line(stack: Running, said: str) -> bool:
    """Whether a line about beat ends with this."""
    return any(line.endswith(said) for line in stack.lines("beat", said))


def child(evening: Evening, words: str) -> int:
    """The stack's own process with these words in its arguments, once it is there."""
    found: list[int] = []

    def look() -> bool:
        pids = evening.project.processes(words)  # for a moment of its start a process has no arguments
        found.extend(pid for pid in pids if parent(pid) == evening.stack.process.pid)
        return bool(found)

    evening.stack.until(look, f"{words} should run")
    return found[0]


def test_what_keeps_dying_is_started_again(evening: Evening) -> None:
    """A process that dies again and again is started again, ever later; the stack stays up and does its work."""
    project, stack = evening.project, evening.stack
    for said in ("starting it again", "starting it again in 1 s", "starting it again in 2 s"):
        kill(child(evening, "orchestrator beat"))
        stack.until(partial(ends_a_line, stack, said), said)
    issue = project.file("Work")
    stack.until(lambda: project.over(*evening.issues, issue), "the session should have ended")

    assert CLEAN == project.events(issue)


def test_ctrl_c_while_it_starts(project: Project) -> None:
    """Ctrl-C before the workers are up is no error, and is not kept waiting for them."""
    with up(project) as stack:
        stack.until(lambda: redis_server.find(project.state), "Redis should be up")

        assert 0 == stack.ends(signal.SIGINT)
        assert [] == stack.lines("is up")
    assert project.is_down()


def test_plain_celery(project: Project) -> None:
    """`celery -A orchestrator worker`, `beat` and `flower` run issues without further flags, and Flower shows them.

    Two beats and two workers for the control queues do no harm: each issue has one session, told once.
    """
    issues = [project.file(f"Issue {number}") for number in range(3)]
    port = free_port()
    env = {"FLOWER_PORT": port, "FLOWER_BASIC_AUTH": LOGIN}
    with Running(project, [*CELERY, "worker"]) as worker, ExitStack() as others:
        worker.until(lambda: redis_server.find(project.state) and project.leases.workers(), "it should be announced")
        control = ["worker", "-Q", "poll,publish,merge_close", "-c", "1", "-n", "control@%h"]
        programs = [["beat"], ["beat"], control, ["flower"]]
        beats = [others.enter_context(Running(project, [*CELERY, *argv], env)) for argv in programs]
        url = f"http://127.0.0.1:{port}"
        beats[-1].until(lambda: 'worker="celery@' in page(f"{url}/metrics"), "Flower should know the worker")
        late = project.file("Late")
        worker.until(lambda: project.over(*issues, late), "all should have been done")

        for issue in (*issues, late):
            assert CLEAN == project.events(issue)
            assert project.snapshots(issue) == project.feedback(issue)
        claimed = [line for program in (worker, *beats) for line in program.lines("issue_claimed", late)]
        # A poll that is slower than a lease has its claim begun by the next one too: one claim, so one token.
        (token,) = {line.rpartition("token=")[2] for line in claimed}
        task = f"{late}.{token}"
        beats[-1].until(lambda: "run_issue_session" in page(f"{url}/task/{task}"), "Flower should show the task")
        assert 'task="tasks.session.run_issue_session"' in page(f"{url}/metrics")
        for program in (worker, *beats):
            program.process.terminate()
        assert [0] * 5 == [program.ends() for program in (worker, *beats)]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def page(url: str) -> str:
    """What is there; nothing while nothing answers."""
    try:
        login = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
        request = urllib.request.Request(url, headers={"Authorization": login})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_red_base_is_a_trouble_of_its_own(tmp_path: Path) -> None:
    """Nothing is claimed, and one line says which command fails on which commit, until the base is green."""
    with Project(tmp_path, verify='default = ["grep", "-q", "mended", "README.md"]') as project:
        issue = project.file("Issue")
        with up(project) as stack:
            stack.says("orch the base is RED, nothing is claimed: `grep -q mended README.md` exited with 1 on main at")
            stack.says("is up")
            stack.says("nothing_claimed", "the base is red: `grep -q mended README.md` exited with 1 on main at")
            red = stack.lines("nothing_claimed")
            assert not project.known(issue)

            (project.repo / "README.md").write_text("mended\n")
            project.git("-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "--all", "--message=Mend it")
            stack.says("orch `grep -q mended README.md` exited with 0 on main at")
            stack.until(lambda: project.over(issue), "it should have been claimed, and done")

            assert 1 == len(red)
            assert "needs_review" == project.status(issue)
