"""Redis at its worst, under a whole stack: it goes on by itself, and what needs a person is said in one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from redis import Redis

from tests.acceptance.project import CLEAN, ORCH_UP, Project, Running
from tests.integration.conftest import OwnRedis
from tests.orch import orch_here
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

Fault = Callable[[Redis], None]
ROLES = ("implementer", "spec_reviewer", "quality_reviewer")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose lease outlasts a pause of 12 s, and what a person does about Redis on a busy machine."""
    with Project(tmp_path_factory.mktemp("refusals"), lease_s=60) as project:
        yield project


@pytest.fixture(scope="module")
def server(project: Project) -> Iterator[OwnRedis]:
    """A Redis that somebody else looks after."""
    server = OwnRedis(project.state)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def running(project: Project, server: OwnRedis) -> Iterator[Running]:
    """`orch up` on that Redis."""
    with Running(project, ORCH_UP, {"ORCH_REDIS_URL": server.url}) as stack:
        stack.says("is up")
        yield stack


@pytest.fixture
def stack(project: Project, server: OwnRedis, running: Running) -> Iterator[Running]:
    """The same, of which only what it prints in this test counts. Its Redis is well again for the next test."""
    running.forget()
    yield running
    server.thaw()
    for _, mends, *_ in REFUSALS.values():
        mends(project.redis)


def slow(project: Project, stack: Running, seconds: float) -> list[str]:
    """Four issues whose agents take their time over each step, all of them under way."""
    turn = {"seconds": seconds}
    roles: dict[str, Any] = {"implementer": [turn | {"write": {"work.txt": "done\n"}}], "spec_reviewer": [turn]}
    issues = [project.file(f"Slow {n}", **roles, quality_reviewer=[turn]) for n in range(4)]
    stack.until(lambda: all(project.asked(issue) for issue in issues), "all four should be worked on")
    return issues


def end_undisturbed(project: Project, stack: Running, issues: list[str], *, but: Sequence[str] = ()) -> None:
    """All end DONE with every agent started once; what is filed now is done too; and no part died, `but` those."""
    late = project.file("Late")
    stack.until(lambda: all_told(project, *issues, late), "all should have been done", 120)

    assert [(1, 1, 1)] * 4 == [tuple(project.asked(issue, role) for role in ROLES) for issue in issues]
    for issue in (*issues, late):
        assert CLEAN == project.events(issue)
        assert project.snapshots(issue) == project.feedback(issue)
    assert [] == [line for line in stack.lines("ended with code") if not any(part in line for part in but)]


def all_told(project: Project, *issues: str) -> bool:
    """Whether the sessions of these have ended, and the tracker knows all of it."""
    ended = {holding.issue_id for holding in project.leases.holdings() if holding.state == "ended"}
    return ended >= set(issues) and project.outbox.waiting() == 0


def no_pages(stack: Running, *, but: Sequence[str] = ()) -> None:
    """No part said anything in more than a line, `but` those."""
    pages = [line for line in stack.lines("Traceback") if not any(part in line for part in but)]
    assert [] == pages, stack.printed


def test_redis_dies_ten_times_in_a_row(project: Project, server: OwnRedis, stack: Running) -> None:
    """Shut down, killed, or cut off from all its clients, ten times while four sessions run: nothing is done twice."""
    issues = slow(project, stack, 6)

    def killed() -> None:
        server.kill()
        server.start()

    def shut_down() -> None:
        server.shut_down()
        server.start()

    def cut_off() -> None:
        project.redis.client_kill_filter(_type="normal", skipme=True)

    for fault in [killed, shut_down, cut_off] * 3 + [killed]:
        fault()
        stack.until(lambda: info(project)["blocked_clients"], "a worker should wait for messages again")
    end_undisturbed(project, stack, issues)


def info(project: Project) -> dict[str, Any]:
    """What Redis says of itself."""
    said: dict[str, Any] = project.redis.info()  # redis-py's union of sync and async
    return said


def test_redis_stands_still_for_twelve_seconds(project: Project, server: OwnRedis, stack: Running) -> None:
    """A pause shorter than a lease less a renewal costs nobody anything; each part says once that Redis is away."""
    issues = slow(project, stack, 5)
    end = time.monotonic() + 12
    server.freeze()
    wait_until(lambda: time.monotonic() > end, "twelve seconds should be over", 13)
    server.thaw()
    end_undisturbed(project, stack, issues)
    no_pages(stack)


def full(redis: Redis) -> None:
    redis.config_set("maxmemory", 1)


def room(redis: Redis) -> None:
    redis.config_set("maxmemory", 0)


def replica(redis: Redis) -> None:
    redis.replicaof("127.0.0.1", "1")  # nobody is there, so it keeps its data


def master(redis: Redis) -> None:
    redis.replicaof("NO", "ONE")


def locked(redis: Redis) -> None:
    redis.config_set("requirepass", "another one")
    redis.client_kill_filter(_type="normal", skipme=True)


def unlocked(redis: Redis) -> None:
    redis.config_set("requirepass", "")


REFUSALS = {
    "full": (full, room, "maxmemory", "takes no writes: its memory is full"),
    "replica": (replica, master, "read only replica", "takes no writes: it is a read-only replica"),
    "locked": (locked, unlocked, "wants a password", "wants a password, or another one than ORCH_REDIS_URL has"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_a_person_must_mend(project: Project, server: OwnRedis, stack: Running, refusal: str) -> None:
    """A Redis that refuses us is said, once by each part, and by doctor and status; mended, all goes on by itself."""
    breaks, mends, logged, said = REFUSALS[refusal]
    issues = slow(project, stack, 2)
    breaks(project.redis)
    stack.says("tick_not_sent")
    for issue in issues:
        stack.says("lease_not_renewed", issue, logged)

    assert said in orch(project, server, "doctor", exit_code=1)
    assert said.removeprefix("takes no writes: ") in orch(project, server, "status")

    mends(project.redis)
    end_undisturbed(project, stack, issues)
    no_pages(stack)
    assert len(stack.lines("redis_away")) <= 1  # none where a heartbeat of Celery's keeps trying first
    assert 1 == len(stack.lines("tick_not_sent"))
    assert 4 == len(stack.lines("lease_not_renewed"))


def orch(project: Project, server: OwnRedis, command: str, exit_code: int = 0) -> str:
    """What a command says on that Redis."""
    done = orch_here(command, cwd=project.repo, env=project.env | {"ORCH_REDIS_URL": server.url, "COLUMNS": "400"})
    assert (exit_code, "") == (done.returncode, done.stderr)
    return done.stdout
