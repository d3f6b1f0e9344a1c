"""`orch enqueue`: a person says what runs next, and is told what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.redis import Keys, connect
from orchestrator.adapters.redis import server as redis_server
from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.memory import MemoryTracker
from orchestrator.models import Limits
from orchestrator.poll.claim import Poll
from orchestrator.poll.rescue import Rescue
from tests.orch import Orch
from tests.support import gateway_to, wait_until


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    return Orch(tmp_path)


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[RedisLeases]:
    """What the stack of the repo would know, on its private Redis."""
    server = redis_server.ensure(tmp_path / "state")
    yield RedisLeases(connect(server.url), Keys("repo"), lease_s=15)
    server.stop()


def a_poll(leases: RedisLeases, tracker: MemoryTracker) -> Poll:
    return Poll(
        tracker=gateway_to(tracker),
        claims=leases,
        start=lambda _issue, _token: None,
        rescue=Rescue(leases, lambda _issue, _token: None, lambda _issue: None, max_rescues=3),
        orchestrator_id="orch-test",
        limits=Limits(),
    )


def test_without_a_stack_the_wish_is_kept(orch: Orch) -> None:
    """Queued, in order, for the next stack; it says what starts the workers, and leaves nothing running."""
    said = orch.says("enqueue", "i-b2c3", "i-a1b2")

    assert [
        "i-b2c3: queued; no worker runs, `orch up` starts them",
        "i-a1b2: queued; no worker runs, `orch up` starts them",
    ] == said.splitlines()
    assert redis_server.find(orch.state) is None
    server = redis_server.ensure(orch.state)
    try:
        wanted = RedisLeases(connect(server.url), Keys("repo"), lease_s=15).wanted()
    finally:
        server.stop()
    assert ["i-b2c3", "i-a1b2"] == wanted


def test_an_issue_that_was_claimed_is_said_to_run(orch: Orch, leases: RedisLeases) -> None:
    """The command waits for the poll's answer, which comes long before its time is over."""
    leases.announce("sessions@here", 1, for_s=60)
    tracker = MemoryTracker()
    tracker.file("Greet", issue_id="i-a1b2")

    with orch.start("enqueue", "i-a1b2", "--wait", "60") as process:
        wait_until(leases.wanted, "the issue is wanted")
        a_poll(leases, tracker)()
        out, err = process.communicate(timeout=30)

    assert (0, "i-a1b2: it is running\n", "") == (process.returncode, out, err)


def test_a_refusal_is_an_error(orch: Orch, leases: RedisLeases) -> None:
    """Exit 1 and the reason on stderr; the other issue runs all the same."""
    leases.announce("sessions@here", 2, for_s=60)
    tracker = MemoryTracker()
    tracker.file("Done", issue_id="i-a1b2")
    tracker.upsert_issue(issue_id="i-a1b2", status="closed")
    tracker.file("Greet", issue_id="i-b2c3")

    with orch.start("enqueue", "i-a1b2", "i-b2c3", "--wait", "60") as process:
        wait_until(lambda: len(leases.wanted()) == 2, "both issues are wanted")
        a_poll(leases, tracker)()
        out, err = process.communicate(timeout=30)

    assert (1, "i-b2c3: it is running\n") == (process.returncode, out)
    assert "i-a1b2: its status is closed; only an open issue is claimed\n" == err


def test_an_issue_that_must_wait_is_no_error(orch: Orch, leases: RedisLeases) -> None:
    """All slots are taken: what was asked for is next, and stays asked for."""
    leases.announce("sessions@here", 1, for_s=60)
    leases.claim("i-zzzz")
    tracker = MemoryTracker()
    tracker.file("Greet", issue_id="i-a1b2")

    with orch.start("enqueue", "i-a1b2", "--wait", "1.5", "--json") as process:
        wait_until(leases.wanted, "the issue is wanted")
        a_poll(leases, tracker)()
        out, err = process.communicate(timeout=30)

    assert (0, "") == (process.returncode, err)
    assert [
        {"issue": "i-a1b2", "outcome": "queued", "says": "it waits for a free slot and is next"},
    ] == json.loads(out)
    assert ["i-a1b2"] == leases.wanted()


def test_without_an_answer_in_time_the_wish_stays(orch: Orch, leases: RedisLeases) -> None:
    """A control worker that is busy or away: queued is what is known."""
    leases.announce("sessions@here", 1, for_s=60)

    said = orch.says("enqueue", "i-a1b2", "--wait", "0")

    assert "i-a1b2: queued; no answer yet, `orch status` shows what goes on\n" == said
    assert ["i-a1b2"] == leases.wanted()


def test_a_redis_out_of_reach_is_one_line(orch: Orch) -> None:
    """What does not answer, and the command that looks closer; no traceback, no password."""
    done = orch("enqueue", "i-a1b2", ORCH_REDIS_URL="redis://:s3cret@127.0.0.1:1/0")

    assert (1, "") == (done.returncode, done.stdout)
    assert (
        "Error: Error 111 connecting to 127.0.0.1:1. Connection refused: Redis did not serve us for 2 s;"
        " `orch doctor` says what is wrong\n"
    ) == done.stderr
