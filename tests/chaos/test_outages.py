"""Redis and the tracker go away and come back."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.acceptance.project import GOOD
from tests.chaos.parts import HANG, NO, SLOTS, Measured, Parts, once, reviewing

pytestmark = pytest.mark.timeout(300)

OVERFLOWN = [
    *("SESSION_START", "IMPLEMENT_DONE", "SPEC_REVIEW_FAIL", "SPEC_FIX_APPLIED", "SPEC_REVIEW_FAIL"),
    *("SPEC_FIX_APPLIED", "SPEC_REVIEW_FAIL", "OVERFLOW_FIX_CREATED"),
]
"""What is told of a session whose spec review always says no."""


def four_under_way(stack: Parts, title: str, **turns: Any) -> list[str]:
    """Four issues."""
    return [stack.project.file(f"{title} {n}", **turns) for n in range(2 * SLOTS)]


def test_redis_is_shut_down_and_started(stack: Parts, measured: Measured) -> None:
    """SHUTDOWN in the middle of four sessions: all end well, without help.

    Back at once, it costs nothing. Away for longer than a lease, it costs the steps in flight.
    """
    project = stack.project
    short, long = project.folder / "short", project.folder / "long"
    issues = four_under_way(stack, "Redis", spec_reviewer=[reviewing(short)], quality_reviewer=[HANG, reviewing(long)])
    stack.until(stack.waiting(short, *issues), "all should be reviewed")
    stack.shut_redis_down()
    stack.start_redis()
    short.touch()
    short_took = stack.until(stack.working("quality_reviewer", *issues), "all should go on")
    stack.shut_redis_down()
    stack.until(lambda: all(stack.left(issue) for issue in issues), "their workers should have let go of all")
    stack.start_redis()
    long_took = stack.until(stack.working("quality_reviewer", *issues, run=2), "all should be taken up again")
    long.touch()
    stack.until(lambda: stack.done(*issues), "all should have ended")

    stack.assert_told_once(*issues)
    assert [(1, 1, 2)] * len(issues) == [stack.asked(issue) for issue in issues]
    measured("Redis shut down, and back at once", f"{short_took:.1f} s; nothing again")
    measured("Redis away for over a lease", f"{long_took:.1f} s after it is back; one step again")


def test_the_tracker_is_away_for_half_a_minute(stack: Parts, measured: Measured) -> None:
    """Sessions neither fail nor wait: they end meanwhile, and all is told in order, once, when the tracker is back."""
    project = stack.project
    gate = project.folder / "away"
    issues = four_under_way(stack, "Untold", implementer=[GOOD | {"run": [once(gate)]}])
    stack.until(stack.waiting(gate, *issues), "all should be implemented")
    stack.until(lambda: project.outbox.waiting() == 0, "the starts should have been told")
    with stack.unreadable_tracker():
        away = time.monotonic()
        gate.touch()
        stack.until(lambda: stack.ended(*issues), "all should have ended without the tracker")
        untold = project.outbox.waiting()
        stack.until(lambda: time.monotonic() > away + 30, "half a minute should be over")

        assert untold == project.outbox.waiting() == 5 * len(issues)
    took = stack.until(lambda: stack.done(*issues), "the tracker should have been told")

    stack.assert_told_once(*issues)
    assert [(1, 1, 1)] * len(issues) == [stack.asked(issue) for issue in issues]
    measured("the tracker away for 30 s", f"{took:.1f} s after it is back; nothing again, {untold} entries told once")


def test_telling_is_cut_off_again_and_again(stack: Parts, measured: Measured) -> None:
    """kill -9 of the publisher and of the tracker's server while entries wait: each is told once, in order.

    A [FIX] issue is one, too, however often its making was cut off.
    """
    project = stack.project
    gate = project.folder / "cut-off"
    wait: dict[str, Any] = {"implementer": [GOOD | {"run": [once(gate)]}, GOOD]}
    clean = [project.file(f"Clean {n}", **wait) for n in range(2)]
    overflowing = [project.file(f"Overflow {n}", **wait, spec_reviewer=[NO]) for n in range(2)]
    stack.until(stack.waiting(gate, *clean, *overflowing), "all should be implemented")
    with stack.unreadable_tracker():
        gate.touch()
        stack.until(lambda: stack.ended(*clean, *overflowing), "all should have ended without the tracker")
        untold = project.outbox.waiting()
    kills = 0
    while project.outbox.waiting() and kills < 4:
        stack.cut_telling_off(stack.kill_publisher if kills % 2 else stack.kill_tracker)
        kills += 1
    took = stack.until(lambda: stack.done(*clean, *overflowing), "all should have been told")
    made = [str(project.holding(issue).fix_issue_id) for issue in overflowing]
    stack.until(lambda: stack.done(*made), "the [FIX] issues should have ended")

    stack.assert_told_once(*clean)
    for issue in overflowing:
        assert OVERFLOWN == project.events(issue)
        assert project.snapshots(issue) == project.feedback(issue)
    assert sorted(made) == sorted(row["id"] for row in project.tracker.list_issues(search="[FIX]"))
    assert 2 <= kills
    measured(f"{kills} kills of publisher and tracker's server", f"{took:.1f} s; {untold} entries told once")
