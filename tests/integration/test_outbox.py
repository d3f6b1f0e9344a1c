"""Telling the tracker what the outbox in Redis holds: in order, once, and whatever happens in between."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.adapters.redis.history import KEPT_REFUSALS
from orchestrator.errors import TrackerUnavailable, TransientMCPError
from orchestrator.memory import MemoryTracker
from orchestrator.models import FixIssueEntry, IssueStatus, Progress, Stage, StatusEntry, Verdict
from orchestrator.publish.entries import opening_entries, tell, verdict_entries
from orchestrator.publish.outbox import publish
from tests.engine import Engine, a_report, about, doing, saying_yes, told_of
from tests.support import NOON, Roles, gateway_to, wait_until

ISSUE = "i-a1b2"
CLEAN = ["SESSION_START", "IMPLEMENT_DONE", "SPEC_REVIEW_PASS", "QUALITY_REVIEW_PASS", "SESSION_DONE"]


class Outage(MemoryTracker):
    """A tracker that can be away."""

    away = False

    def add_feedback(self, **arguments: Any) -> Any:
        if self.away:
            raise TransientMCPError("no answer")
        return super().add_feedback(**arguments)

    def upsert_issue(self, **arguments: Any) -> Any:
        if self.away:
            raise TransientMCPError("no answer")
        return super().upsert_issue(**arguments)


def test_entries_of_several_issues_are_told_in_the_order_in_which_they_came(engine: Engine) -> None:
    """Sessions side by side: the tracker is told of each in order, and of all in the order of what happened."""
    told = []
    for issue_id in ("i-1", "i-2"):
        engine.tracker.file(issue_id, issue_id=issue_id)
    one, two = engine.running("i-1"), engine.running("i-2")
    for lease, stage in (
        (one, Stage.RUNNING),
        (two, Stage.RUNNING),
        (two, Stage.SPEC_REVIEW),
        (one, Stage.SPEC_REVIEW),
    ):
        history = engine.history(lease)
        history.recorded()
        history.record(a_report(stage), told_of(lease, a_report(stage)))
    while (untold := engine.outbox.next()) is not None:
        told.append((untold.issue_id, untold.session_id))
        engine.outbox.told(untold)

    assert [(lease.issue_id, lease.record.session_id) for lease in (one, two, two, one)] == told


def test_a_whole_session_is_told_as_the_contract_says(engine: Engine) -> None:
    """Five snapshots, in_progress twice, then needs_review; the second publisher finds nothing."""
    issue_id = engine.tracker.file("One")
    engine.poll()
    engine.sessions().run(issue_id)

    assert 7 == engine.publish()
    assert 0 == engine.publish()
    assert CLEAN == engine.events(issue_id)
    assert ["in_progress", "in_progress", "needs_review"] == [status for _, status in engine.tracker.status_updates]


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.OVERFLOW])
def test_a_publisher_killed_before_it_took_an_entry_off_tells_nothing_twice(engine: Engine, verdict: Verdict) -> None:
    """Each entry in turn is told by a publisher that dies before taking it off: the tracker hears it once."""
    engine.tracker.file("Parse empty input", issue_id=ISSUE)
    lease = engine.running()
    history = engine.history(lease)
    refusal = a_report(Stage.SPEC_REVIEW, 3, passed=verdict is Verdict.DONE, failed_items=("no",))
    history.record(refusal, opening_entries(about(lease), at=NOON))
    history.close(verdict, verdict_entries(about(lease), Progress().after(refusal), verdict, at=NOON))
    waiting = engine.outbox.waiting()
    for _ in range(waiting):
        untold = engine.untold()
        tell(untold.entry, engine.gateway)
        # Here it is killed. The next one tells one entry more and is killed in its turn.
        again = engine.elsewhere().untold()
        assert again.begun
        assert again.entry_id == untold.entry_id
        fix_issue_id = tell(again.entry, engine.gateway, look_first=again.begun)
        engine.outbox.told(again, fix_issue_id=fix_issue_id)

    end = {Verdict.DONE: "SESSION_DONE", Verdict.OVERFLOW: "OVERFLOW_FIX_CREATED"}[verdict]
    fixes = [issue for issue in engine.tracker.issues.values() if issue["title"].startswith("[FIX]")]

    assert ["SESSION_START", end] == engine.events(ISSUE)
    assert "needs_review" == engine.status(ISSUE)
    assert (verdict is Verdict.OVERFLOW) == (len(fixes) == 1)
    assert [{"from_id": ISSUE, "to_id": fix["id"], "type": "related"} for fix in fixes] == engine.tracker.links
    assert (fixes[0]["id"] if fixes else None) == engine.held(ISSUE).fix_issue_id


def test_what_an_earlier_publisher_may_have_told_is_looked_for(engine: Engine) -> None:
    """Redis lost its last second and with it who had begun what: an entry from before this publisher is not doubled."""
    engine.tracker.file("One", issue_id=ISSUE)
    lease = engine.running()
    engine.history(lease).record(a_report(), told_of(lease, a_report()))
    tell(engine.untold().entry, engine.gateway)
    engine.client.delete(engine.keys("begun"))

    assert 1 == engine.publish()
    assert ["IMPLEMENT_DONE"] == engine.events(ISSUE)


def test_what_comes_back_after_it_was_told_is_looked_for(engine: Engine) -> None:
    """Redis lost that an entry was taken off: the publisher that told it does not tell it again."""
    engine.tracker.file("One", issue_id=ISSUE)
    lease, outbox = engine.running(), engine.outbox
    assert outbox.next() is None
    engine.history(lease).record(a_report(), told_of(lease, a_report()))
    ((entry_id, fields),) = engine.client.xrange(engine.keys("outbox"))

    assert 1 == publish(outbox, engine.gateway)

    engine.client.delete(engine.keys("outbox"))
    engine.client.xadd(engine.keys("outbox"), fields, id=entry_id)

    assert 1 == publish(outbox, engine.gateway)
    assert ["IMPLEMENT_DONE"] == engine.events(ISSUE)


def test_what_a_dead_publisher_began_is_looked_for_by_the_next(engine: Engine) -> None:
    """Both had looked before the entry came, so only the mark in Redis says that it may have been told."""
    dead, heir = engine.outbox, engine.outbox
    assert (None, None) == (dead.next(), heir.next())
    looked = engine.client.time()
    wait_until(
        lambda: engine.client.time() > (looked[0], looked[1] + 2000), "the entry should be younger than the looks"
    )
    lease = engine.running()
    engine.history(lease).record(a_report(), told_of(lease, a_report()))

    (first, again) = (dead.next(), heir.next())
    assert first is not None
    assert again is not None
    assert (False, True) == (first.begun, again.begun)


def test_the_entries_of_a_step_keep_their_order(engine: Engine) -> None:
    """A verdict's status is told after what comes before it in the entries, never before."""
    entries = [StatusEntry(ISSUE, status) for status in (IssueStatus.OPEN, IssueStatus.CLOSED, IssueStatus.BLOCKED)]
    outbox = engine.outbox
    told: list[object] = []
    engine.history(engine.running()).close(Verdict.ERROR, entries)
    while untold := outbox.next():
        told.append(untold.entry)
        outbox.told(untold)

    assert entries == told


def test_the_list_of_refusals_does_not_grow_for_ever(engine: Engine) -> None:
    """The newest are kept; a tracker that refuses everything does not fill Redis."""
    lease, outbox = engine.running(), engine.outbox
    engine.client.rpush(engine.keys("refused"), *(str(number) for number in range(KEPT_REFUSALS)))
    engine.history(lease).record(a_report(), told_of(lease, a_report()))
    untold = outbox.next()
    assert untold is not None
    outbox.told(untold, refusal="the newest")

    assert ["the newest", *(str(number) for number in range(KEPT_REFUSALS - 1))] == outbox.refused()


def test_what_is_new_is_told_without_looking(engine: Engine) -> None:
    """Looking costs a call to a slow tracker; an entry that only this publisher can have seen needs none.

    Begun by it before, and not known to have been told, the entry is looked for.
    """
    outbox = engine.outbox
    assert outbox.next() is None
    before = engine.client.time()
    wait_until(lambda: engine.client.time()[1] // 1000 != before[1] // 1000, "Redis should count another millisecond")
    lease = engine.running()
    engine.history(lease).record(a_report(), told_of(lease, a_report()))

    first, again = outbox.next(), outbox.next()

    assert first is not None
    assert again is not None
    assert (False, True) == (first.begun, again.begun)


def test_a_tracker_that_does_not_answer_is_named_with_the_issue(engine: Engine) -> None:
    """One entry that the tracker hangs on stops the rest until it answers; the log says which issue it is."""
    engine.tracker = Outage()
    engine.gateway = gateway_to(engine.tracker)
    fix = FixIssueEntry(ISSUE, "[FIX] A title without the id", "body")
    engine.history(engine.running()).close(Verdict.OVERFLOW, [fix])
    engine.tracker.away = True

    with pytest.raises(TrackerUnavailable, match=f"{ISSUE} and what waits behind it"):
        engine.publish()


def test_a_tracker_that_is_away_is_told_later_and_no_session_notices(engine: Engine) -> None:
    """While the tracker is away sessions run to their verdict; when it is back, it is told all, in order, once."""
    engine.tracker = Outage()
    engine.gateway = gateway_to(engine.tracker)
    issue_id = engine.tracker.file("One")
    engine.poll()
    engine.tracker.away = True
    engine.sessions().run(issue_id)
    waiting = engine.outbox.waiting()
    for _ in range(3):
        with pytest.raises(TrackerUnavailable):
            engine.publish()

    assert waiting == engine.outbox.waiting()
    assert [] == engine.events(issue_id)

    engine.tracker.away = False

    assert waiting == engine.publish()
    assert CLEAN == engine.events(issue_id)
    assert "needs_review" == engine.status(issue_id)


def test_a_refused_entry_is_put_aside_and_the_next_one_is_told(engine: Engine) -> None:
    """What the tracker refuses is kept for a person; it holds up neither its own issue nor others."""
    issue_id = engine.tracker.file("One")
    lease = engine.running("i-deleted")
    engine.history(lease).record(a_report(), told_of(lease, a_report()))
    engine.history(engine.running(issue_id)).close(Verdict.DONE, [StatusEntry(issue_id, IssueStatus.NEEDS_REVIEW)])

    assert 1 == engine.publish()
    assert "needs_review" == engine.status(issue_id)
    assert ["i-deleted: Issue not found: i-deleted"] == engine.outbox.refused()


def test_an_entry_that_cannot_be_read_is_put_aside(engine: Engine) -> None:
    """An entry that another version wrote stops nothing else, and its issue can be claimed again."""
    issue_id = engine.tracker.file("One")
    lease = engine.running("i-odd")
    engine.history(lease).close(Verdict.DONE, [StatusEntry("i-odd", IssueStatus.NEEDS_REVIEW)])
    ((entry_id, fields),) = engine.client.xrange(engine.keys("outbox"))
    engine.client.xdel(engine.keys("outbox"), entry_id)
    engine.client.xadd(engine.keys("outbox"), {**fields, "entry": '{"of": "tomorrow"}'})
    engine.history(engine.running(issue_id)).close(Verdict.DONE, [StatusEntry(issue_id, IssueStatus.NEEDS_REVIEW)])

    assert 1 == engine.publish()
    assert "needs_review" == engine.status(issue_id)
    assert ['unreadable: {"of": "tomorrow"}'] == engine.outbox.refused()
    engine.claimed("i-odd")


def test_a_fix_issue_is_shown_with_the_session_that_made_it(engine: Engine) -> None:
    """The id of the [FIX] issue is known once it is told, and not taken for the next session's."""
    issue_id = engine.tracker.file("One")
    engine.poll()
    engine.sessions(doing(saying_yes(Roles(spec_noes=3)))).run(issue_id)
    engine.publish()
    (fix,) = [issue["id"] for issue in engine.tracker.issues.values() if issue["title"].startswith("[FIX]")]

    assert fix == engine.held(issue_id).fix_issue_id

    engine.leases.want(issue_id)
    engine.tracker.upsert_issue(issue_id=issue_id, status="open")
    engine.poll()

    assert engine.held(issue_id).fix_issue_id is None
