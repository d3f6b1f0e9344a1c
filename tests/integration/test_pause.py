"""Pausing over a real Redis: nothing new is claimed, and nothing that runs is touched."""

from __future__ import annotations

import threading

from orchestrator.models import Claim, Refusal
from tests.engine import Engine
from tests.support import wait_until

ISSUE = "i-a1b2"


def test_nothing_is_claimed_while_orch_is_paused(engine: Engine) -> None:
    """Neither a ready issue nor one that a person asks for is claimed, and no slot counts as free."""
    engine.controls.pause(by="anna@here", reason="the disk is full")

    assert Refusal.PAUSED == engine.leases.claim(ISSUE)
    assert Refusal.PAUSED == engine.leases.claim(ISSUE, forced=True)
    assert 0 == engine.leases.free()

    engine.controls.resume()

    assert 4 == engine.leases.free()
    assert isinstance(engine.leases.claim(ISSUE), Claim)


def test_a_base_in_doubt_pauses_until_a_person_resumes(engine: Engine) -> None:
    """The first reason holds, also where a person had paused before; one word of theirs ends both."""
    engine.controls.pause(by="anna@here", reason="lunch")
    engine.controls.hold_base("main moved")
    engine.controls.hold_base("main moved again")

    assert "main moved" == engine.controls.base_held()
    assert Refusal.PAUSED == engine.leases.claim(ISSUE)

    engine.controls.resume()

    assert "" == engine.controls.base_held()
    assert engine.controls.paused() is None


def test_the_first_pause_holds(engine: Engine) -> None:
    """Who pauses again is told who did so before, and since when; resuming ends it, once."""
    first = engine.controls.pause(by="anna@here", reason="lunch")
    second = engine.controls.pause(by="ben@there", reason="")

    assert first == second == engine.controls.paused()
    assert ("anna@here", "lunch") == (first.by, first.reason)
    assert first.at_ms > 0
    assert first == engine.controls.resume()
    assert engine.controls.resume() is None
    assert engine.controls.paused() is None


def test_what_runs_goes_on_to_its_end(engine: Engine) -> None:
    """A pause changes nothing for a session that was claimed before."""
    engine.tracker.file("One", issue_id=ISSUE)
    engine.poll()
    engine.controls.pause(by="anna@here", reason="")
    engine.sessions().run(ISSUE)
    engine.publish()

    assert "needs_review" == engine.status(ISSUE)


def test_a_session_whose_worker_died_is_rescued_while_paused(engine: Engine) -> None:
    """It was claimed before the pause, so it runs."""
    engine.tracker.file("One", issue_id=ISSUE)
    engine.tracker.file("Two")
    engine.poll()
    engine.acquired(ISSUE)
    engine.controls.pause(by="anna@here", reason="")
    engine.started.clear()
    engine.fall_silent(ISSUE)

    assert [ISSUE] == engine.poll()


def test_a_wish_waits_for_the_end_of_the_pause(engine: Engine) -> None:
    """An issue that is asked for while orch is paused stays asked for, and is claimed first thereafter."""
    issue = engine.tracker.file("One")
    engine.tracker.file("Urgent", priority=0)
    engine.controls.pause(by="anna@here", reason="")
    engine.leases.want(issue)

    assert [] == engine.poll()
    assert "orch is paused; it waits for `orch resume`" == engine.leases.answered(issue)
    assert [issue] == engine.leases.wanted()

    engine.controls.resume()

    assert issue == engine.poll()[0]


def test_the_tracker_is_not_asked_while_orch_is_paused(engine: Engine) -> None:
    """A pause is also peace for a tracker that makes trouble."""
    engine.tracker.file("One")
    engine.controls.pause(by="anna@here", reason="")
    nobody_to_ask = None

    assert [] == engine.poll(tracker=nobody_to_ask)


def test_no_claim_is_won_after_a_pause(engine: Engine) -> None:
    """Of claims that race with a pause, each was won before it or is refused: afterwards their number is final."""
    engine.slots(1000)
    won: list[str] = []
    over = threading.Event()

    def claim(mine: Engine, name: str) -> None:
        for number in range(10_000):
            if over.is_set() or mine.leases.claim(f"i-{name}{number}") is Refusal.PAUSED:
                return
            won.append(f"i-{name}{number}")

    racers = [threading.Thread(target=claim, args=(engine.elsewhere(), name)) for name in "ab"]
    for racer in racers:
        racer.start()
    try:
        wait_until(lambda: len(won) > 5, "some should have been claimed", timeout=30)
        engine.controls.pause(by="anna@here", reason="")
        claimed = engine.inflight()
    finally:
        over.set()
        for racer in racers:
            racer.join()

    assert claimed == engine.inflight() == set(won)
