"""A session's history over a real Redis: written once, read back whole, and what its end does to the issue."""

from __future__ import annotations

import pytest

from orchestrator.adapters.redis.history import RedisHistory
from orchestrator.errors import LeaseLost, SessionStopped
from orchestrator.models import Claim, Lease, Refusal, SnapshotEntry, Stage, Verdict
from tests.engine import ERRORS_IN_A_ROW, Engine, a_record, a_report, told_of
from tests.support import NOON, evidence

ISSUE = "i-a1b2"
SECOND_MS = 1000


def test_reports_come_back_as_they_were_recorded(engine: Engine) -> None:
    """Whoever takes a session up reads the very reports that were recorded, in order."""
    reports = [
        a_report(notes="done", commit="c0ffee", code_changed_at=NOON, evidence=evidence()),
        a_report(Stage.SPEC_REVIEW, passed=False, failed_items=("größer", "b"), fix_list=("\u2028",), notes="no"),
        a_report(Stage.SPEC_FIX, already_done=True),
    ]
    lease = engine.running()
    history = engine.history(lease)
    for report in reports:
        history.record(report, [])

    assert reports == engine.elsewhere().history(lease).recorded()


def test_of_two_records_of_a_step_the_first_one_holds(engine: Engine) -> None:
    """A record that is repeated, because its answer was lost, adds neither a report nor an entry."""
    lease = engine.running()
    engine.history(lease).record(a_report(notes="first"), told_of(lease, a_report()))
    engine.history(lease).record(a_report(notes="second"), told_of(lease, a_report()))

    assert ["first"] == [report.notes for report in engine.history(lease).recorded()]
    assert 1 == engine.outbox.waiting()


def test_a_history_that_lost_reports_is_noticed(engine: Engine) -> None:
    """When Redis forgot steps that we recorded, neither a step nor a verdict is recorded after the gap."""
    lease = engine.running()
    history = engine.history(lease)
    history.record(a_report(), [])
    engine.client.delete(engine.keys("history", lease.record.session_id))

    with pytest.raises(SessionStopped, match="lost the last reports"):
        history.record(a_report(Stage.SPEC_REVIEW), [])
    with pytest.raises(SessionStopped, match="lost the last reports"):
        history.close(Verdict.DONE, [])
    assert [] == history.recorded()
    assert "running" == engine.held(ISSUE).state


def test_nothing_is_recorded_after_the_end(engine: Engine) -> None:
    """A session that is over takes no more reports; closing it again, with whatever verdict, changes nothing."""
    lease = engine.running()
    history = engine.history(lease)
    history.close(Verdict.DONE, [SnapshotEntry(ISSUE, "the end")])
    history.close(Verdict.ERROR, [SnapshotEntry(ISSUE, "another end")], reason="no")

    with pytest.raises(LeaseLost):
        history.record(a_report(), told_of(lease, a_report()))

    assert "DONE" == engine.held(ISSUE).verdict
    assert ["the end"] == engine.leases.snapshots(lease.record.session_id)
    assert 1 == engine.outbox.waiting()


def test_the_end_frees_the_slot(engine: Engine) -> None:
    """A session that is over holds no slot and has no lease to renew."""
    lease = engine.running()
    engine.history(lease).close(Verdict.DONE, [])

    assert 4 == engine.leases.free()
    assert not engine.leases.renew(lease)


def test_the_first_entry_wakes_a_publisher_and_the_next_ones_do_not(engine: Engine) -> None:
    """One publisher is woken for many entries; once it has begun, the next entry wakes another."""
    history = engine.history(engine.running())
    for attempt in (1, 2, 3):
        history.record(a_report(attempt=attempt), [])

    assert 1 == len(engine.wakes)

    engine.outbox.clear_wake()
    history.record(a_report(attempt=4), [])

    assert 2 == len(engine.wakes)


def test_the_end_always_wakes_a_publisher(engine: Engine) -> None:
    """People wait for the verdict; it is told at once."""
    history = engine.history(engine.running())
    history.record(a_report(), [])
    history.close(Verdict.DONE, [])

    assert 2 == len(engine.wakes)


def test_errors_hold_the_issue_back_ever_longer_and_then_for_good(engine: Engine) -> None:
    """After an error an issue waits 30 s, after the next 60 s, and after errors_in_a_row until it is asked for."""
    waits = [_held_for(engine, _error(engine)) for _ in range(ERRORS_IN_A_ROW)]

    assert [30, 60, float("inf")] == waits
    assert Refusal.WAITING == engine.leases.claim(ISSUE)

    engine.leases.want(ISSUE)

    assert 30 == _held_for(engine, _error(engine))


def test_no_wait_is_longer_than_an_hour(engine: Engine) -> None:
    """However many errors are allowed in a row, the issue is tried again within the hour."""
    engine.client.hset(engine.keys("errors"), ISSUE, 60)
    lease = engine.running()
    RedisHistory(engine.client, engine.keys, lease, error_limit=100, wake=lambda: None).close(Verdict.ERROR, [])

    assert 3600 == _held_for(engine, lease)


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.OVERFLOW, Verdict.VERIFY_FAILED])
def test_a_verdict_ends_the_row_of_errors(engine: Engine, verdict: Verdict) -> None:
    """A session that got to a verdict makes earlier errors count no more."""
    _error(engine)
    engine.leases.want(ISSUE)
    _error(engine)
    claim = engine.leases.claim(ISSUE, forced=True)
    assert isinstance(claim, Claim)
    engine.leases.open(claim, a_record(ISSUE, "2"), [])
    engine.history(engine.acquired()).close(verdict, [])

    assert isinstance(engine.leases.claim(ISSUE), Claim)


def _error(engine: Engine) -> Lease:
    """One more session of the issue that ends in an error, whatever holds the issue back."""
    claim = engine.leases.claim(ISSUE, forced=True)
    assert isinstance(claim, Claim)
    engine.leases.open(claim, a_record(ISSUE, "2"), [])
    lease = engine.acquired()
    engine.history(lease).close(Verdict.ERROR, [], reason="no")
    return lease


def _held_for(engine: Engine, lease: Lease) -> float:
    """Seconds from the end of the session to when the issue is tried again."""
    row = engine.client.hgetall(engine.keys("session", lease.issue_id))
    return (engine.client.zscore(engine.keys("held"), lease.issue_id) - int(row["ended_at"])) / SECOND_MS
