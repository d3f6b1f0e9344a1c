"""What is left when everything else is gone: sessions that Redis forgot, agents without a worker, deadly steps."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from orchestrator.issue import listed
from tests.acceptance.project import CELERY, CLEAN, GOOD, ORCH_UP, Project, Running, kill, up
from tests.integration.conftest import OwnRedis
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

THEIRS = "Somebody works on this"

# From a command of the agent's: up to the agent, its shim, and the worker's process that runs the session.
KILL_THE_WORKER = """
import os, signal
def above(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
os.kill(above(above(os.getppid())), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Running]]:
    """A stack with little patience with deadly steps, beside whose issues somebody works on one of their own.

    The first test empties its Redis, and so has to be the first.
    """
    folder = tmp_path_factory.mktemp("rescue")
    with Project(folder, limits="rescues = 2\nerrors_in_a_row = 1") as project:
        project.tracker.upsert_issue(issue_id=project.file(THEIRS), status="in_progress")
        with up(project) as stack:
            stack.says("is up")
            yield project, stack


def test_a_redis_that_lost_everything(running: tuple[Project, Running]) -> None:
    """FLUSHALL in the middle of a review: it is said, and the issue runs again from its branch, to DONE."""
    project, stack = running
    review = [{"seconds": 60}, {}]
    issue = project.file("Long", implementer=[GOOD, {"append": {"work.txt": "again\n"}}], spec_reviewer=review)
    (theirs,) = (issue.id for issue in listed(project.tracker.list_issues()) if issue.title == THEIRS)
    stack.until(lambda: project.asked(issue, "spec_reviewer"), "it should be reviewed")
    stack.until(lambda: "IMPLEMENT_DONE" in project.events(issue), "the tracker should know that")
    stack.until(lambda: project.outbox.waiting() == 0, "nothing else should wait to be told")
    project.redis.flushall()
    stack.says("session_left", issue)
    stack.says("redis_does_not_know_us", "emptied or replaced")
    stack.says("session_lost", issue)
    stack.until(lambda: project.over(issue), "it should have been done")

    assert ["SESSION_START", "IMPLEMENT_DONE", *CLEAN] == project.events(issue)
    assert "needs_review" == project.status(issue)
    assert "done\nagain" == project.files(issue)["work.txt"]
    assert 1 == len(stack.lines("redis_does_not_know_us"))
    assert 1 == len(stack.lines("session_lost"))
    assert ("in_progress", []) == (project.status(theirs), project.events(theirs))


def test_a_tracker_that_hangs_holds_up_no_rescue(running: tuple[Project, Running]) -> None:
    """While the polls wait for a frozen tracker, a session whose worker is killed goes on in another process."""
    project, stack = running
    issue = project.file("Long", implementer=[GOOD | {"seconds": 60}, GOOD])
    stack.until(lambda: project.asked(issue), "it should be worked on")
    servers = project.processes("-m orchestrator.tracker")
    for server in servers:
        os.kill(server, signal.SIGSTOP)
    try:
        kill(int(project.holding(issue).owner.rpartition("/")[2]))
        stack.until(lambda: project.holding(issue).state == "ended", "it should be done without the tracker")
    finally:
        for server in servers:
            os.kill(server, signal.SIGCONT)
    stack.until(lambda: project.outbox.waiting() == 0, "the tracker should be told")

    assert servers
    assert CLEAN == project.events(issue)
    assert 2 == project.asked(issue)


def test_a_step_that_kills_its_worker_again_and_again(running: tuple[Project, Running]) -> None:
    """Killed in the same step once more than `limits.rescues`, the session ends, says why, and the issue is open."""
    project, stack = running
    issue = project.file("Deadly", implementer=[{"run": [[sys.executable, "-c", KILL_THE_WORKER]]}])
    stack.until(lambda: project.known(issue), "it should be claimed")
    stack.until(lambda: project.holding(issue).state == "ended", "the session should have been given up")
    stack.until(lambda: project.outbox.waiting() == 0, "the tracker should be told")

    assert 3 == project.asked(issue)
    assert ["SESSION_START", "SESSION_ERROR"] == project.events(issue)
    assert "its worker died again and again in the same step" in project.told(issue)[-1]["failed_items"][0]
    assert "open" == project.status(issue)
    assert "ERROR" == project.holding(issue).verdict


@pytest.fixture
def server(project: Project) -> Iterator[OwnRedis]:
    """A Redis that outlives the stack."""
    server = OwnRedis(project.state)
    yield server
    server.stop()


def test_a_starting_worker_ends_orphans(project: Project, server: OwnRedis) -> None:
    """Worker and shim killed at once leave the agent's children behind; the next worker ends them as it starts."""
    orphan = ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"]
    project.file("Long", implementer=[{"run": [orphan]}])
    redis = {"ORCH_REDIS_URL": server.url}
    with Running(project, ORCH_UP, redis) as stack:
        stack.until(lambda: len(project.processes("sleep 1000")) >= 2, "the agent should have its children")
        for shim in project.processes("shim.py"):
            os.kill(shim, signal.SIGSTOP)  # or it would end its family when the worker dies
        for words in ("cli up", "celery", "orchestrator.tracker", "shim.py"):
            for pid in project.processes(words):
                kill(pid)
    wait_until(lambda: not project.processes("celery"), "the stack should be gone")

    assert 2 == len(project.processes("sleep 1000"))

    with Running(project, [*CELERY, "worker", "-Q", "sessions"], redis) as worker:
        worker.says("orphans_ended", "processes=2")

        assert {} == project.processes("sleep 1000")
