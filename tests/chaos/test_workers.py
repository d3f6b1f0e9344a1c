"""Parts of a session worker, or all of it, die, stop or freeze; another worker goes on."""

from __future__ import annotations

import signal
import time

import pytest

from tests.acceptance.project import GOOD, kill
from tests.chaos.parts import HANG, LEASE_S, SLOTS, Measured, Parts, family, pool, reviewing, send

pytestmark = pytest.mark.timeout(300)


def test_the_workers_parent_dies(stack: Parts, measured: Measured) -> None:
    """kill -9 of a worker's parent alone: its children and their agents end too, another worker goes on."""
    project = stack.project
    issue = project.file("Orphaned", spec_reviewer=[HANG, {}])
    stack.until(stack.working("spec_reviewer", issue), "it should be reviewed")
    worker = stack.workers[stack.holder(issue)]
    left = {*pool(worker), *stack.at_work(issue)}
    kill(worker.process.pid)
    took = stack.until(stack.working("spec_reviewer", issue, run=2), "another worker should go on")
    worker.process.wait()

    assert not left & project.processes().keys()
    stack.until(lambda: stack.done(issue), "it should have ended")
    stack.assert_told_once(issue)
    assert (1, 2, 1) == stack.asked(issue)
    measured("kill -9 of a worker's parent alone", f"{took:.1f} s, {took / LEASE_S:.2f} leases; one step again")


def test_one_child_dies(stack: Parts, measured: Measured) -> None:
    """kill -9 of the one process that runs a session: the session is taken up, the worker keeps all its slots."""
    project = stack.project
    issue = project.file("Childless", spec_reviewer=[HANG, {}])
    stack.until(stack.working("spec_reviewer", issue), "it should be reviewed")
    worker = stack.workers[stack.holder(issue)]
    child = int(project.holding(issue).owner.rpartition("/")[2])
    left = stack.at_work(issue)
    kill(child)
    took = stack.until(stack.working("spec_reviewer", issue, run=2), "some worker should go on")

    assert not left & project.processes().keys()
    stack.until(lambda: child not in pool(worker) and len(pool(worker)) == SLOTS, "it should have a new child")
    stack.until(lambda: stack.done(issue), "it should have ended")
    stack.assert_told_once(issue)
    assert (1, 2, 1) == stack.asked(issue)
    measured("kill -9 of one child of a worker", f"{took:.1f} s, {took / LEASE_S:.2f} leases; one step again")


def test_an_agent_dies(stack: Parts, measured: Measured) -> None:
    """kill -9 of an agent is an agent that failed: SESSION_ERROR says so, the issue is open, and tried again later."""
    project = stack.project
    issue = project.file("Mortal", implementer=[HANG, GOOD])
    stack.until(stack.working("implementer", issue), "it should be implemented")
    (agent,) = stack.agents(issue)
    kill(agent)
    took = stack.until(lambda: stack.done(issue), "the session should have ended")
    holding = project.holding(issue)
    told = project.told(issue)

    assert ["SESSION_START", "SESSION_ERROR"] == [snapshot["event_type"] for snapshot in told]
    assert "exited with code 137" in told[-1]["failed_items"][0]
    assert "open" == project.status(issue)
    held_ms = (holding.held_until_ms or 0) - holding.ended_at_ms
    assert 30_000 == held_ms
    measured("kill -9 of an agent", f"{took:.1f} s until it is told; tried anew after {held_ms / 1000:.0f} s")


def test_a_worker_hands_over(stack: Parts, measured: Measured) -> None:
    """SIGTERM of one worker: its session goes on at the other after this step, without waiting for the lease."""
    project = stack.project
    gate = project.folder / "handed-over"
    issue = project.file("Handed over", spec_reviewer=[reviewing(gate)])
    stack.until(stack.working("spec_reviewer", issue), "it should be reviewed")
    holder = stack.holder(issue)
    stack.workers[holder].process.terminate()
    stack.workers[holder].says("worker: Warm shutdown")
    gate.touch()
    took = stack.until(stack.working("quality_reviewer", issue), "the other worker should go on")

    assert 0 == stack.workers[holder].ends()
    assert holder != stack.holder(issue)
    assert "rescues=0" in stack.control.lines("session_rescued", issue)[0]
    stack.until(lambda: stack.done(issue), "it should have ended")
    stack.assert_told_once(issue)
    assert (1, 1, 1) == stack.asked(issue)
    measured("SIGTERM of a worker", f"{took:.1f} s after its step ended; nothing again")


def test_a_worker_that_freezes_and_wakes(stack: Parts, measured: Measured) -> None:
    """A worker that stands still for three leases has lost its session: it wakes, writes nothing, and serves on.

    Its agent is dead, and the other worker's, which is in the middle of the same step of the same session, is not.
    """
    project = stack.project
    gate = project.folder / "thawed"
    issue = project.file("Frozen", spec_reviewer=[HANG, reviewing(gate)])
    stack.until(stack.working("spec_reviewer", issue), "it should be reviewed")
    holder, frozen_agents = stack.holder(issue), stack.at_work(issue)
    worker = stack.workers[holder]
    frozen = family(worker)
    stopped = time.monotonic()
    send(signal.SIGSTOP, frozen)
    took = stack.until(stack.working("spec_reviewer", issue, run=2), "the other worker should go on")
    stack.until(lambda: time.monotonic() > stopped + 3 * LEASE_S, "three leases should be over")
    (agent,) = stack.agents(issue)
    before = stack.written(issue)
    send(signal.SIGCONT, frozen)
    worker.says("session_left", issue)

    assert before == stack.written(issue)
    assert not frozen_agents & project.processes().keys()
    assert {agent} == stack.agents(issue)
    gate.touch()
    stack.until(lambda: stack.done(issue), "the other worker should have ended it")
    assert holder != stack.holder(issue)
    stack.assert_told_once(issue)
    assert (1, 2, 1) == stack.asked(issue)

    rest = project.folder / "rest"
    busy = [project.file(f"Busy {n}", spec_reviewer=[reviewing(rest)]) for n in range(2 * SLOTS)]
    stack.until(stack.working("spec_reviewer", *busy), "both workers should use all their slots")
    assert worker.process.poll() is None
    assert {*stack.workers} == {stack.holder(other) for other in busy}
    rest.touch()
    stack.until(lambda: stack.done(*busy), "all should have ended")
    measured("SIGSTOP of a worker for three leases", f"{took:.1f} s, {took / LEASE_S:.2f} leases; one step again")
