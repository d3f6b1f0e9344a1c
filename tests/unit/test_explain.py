"""What is said of an issue when something is away, and where it leads; tests/acceptance provokes every state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.leases import Holding, Paused, SessionRecord
from orchestrator.merge_close.record import Marker, MergeMarker
from orchestrator.models import Stage, Step
from orchestrator.status.explain import explain
from orchestrator.status.explanation import Kind, State
from orchestrator.status.facts import Blocker, Facts, RedisSays, TrackerSays
from tests.support import NOON, an_issue

NOW_MS = int(NOON.timestamp() * 1000)
PULL = "https://github.com/acme/shop/pull/12"
RECORD = SessionRecord("session-1", "orch-main", an_issue(), 3, 2)
IDLE = RedisSays(slots=4)
OPEN = TrackerSays(status="open")


def a_holding(**changes: object) -> Holding:
    """A session that ended a minute before noon."""
    ended = Holding(
        issue_id="i-a1b2",
        state="ended",
        record=RECORD,
        owner="sessions@box/7",
        stage="",
        attempt=0,
        verdict="",
        reason="",
        claimed_at_ms=NOW_MS - 120_000,
        started_at_ms=NOW_MS - 119_000,
        ended_at_ms=NOW_MS - 60_000,
        deadline_ms=None,
        held_until_ms=None,
        fix_issue_id=None,
        opened=True,
    )
    return replace(ended, **changes)  # type: ignore[arg-type] # the fields of Holding


def facts(tracker: TrackerSays | None = OPEN, redis: RedisSays | None = IDLE, **changes: str) -> Facts:
    """i-a1b2 at noon."""
    return Facts("i-a1b2", NOON, tracker, redis, **changes)  # type: ignore[arg-type] # its texts only


def a_marker(marker: Marker) -> MergeMarker:
    """What the issue's feedback says of a merge."""
    return MergeMarker(
        marker=marker,
        reason="because",
        issue_id="i-a1b2",
        pr_url=PULL,
        merge_sha="c0ffee",
        merged_at=None,
        merged=True,
        source="daemon",
    )


@pytest.mark.parametrize(
    ("tracker", "state"),
    [
        (TrackerSays(status="open"), State.REDIS_AWAY),
        (TrackerSays(status="in_progress", ours=True), State.REDIS_AWAY),
        (TrackerSays(status="in_progress"), State.SOMEBODY_ELSE),
        (TrackerSays(status="in_progress", verdict="VERIFY_FAILED", reason="no command"), State.NO_VERIFICATION),
        (TrackerSays(status="needs_review", verdict="DONE"), State.TO_REVIEW),
        (TrackerSays(status="needs_review", verdict="OVERFLOW"), State.OVERFLOW),
        (TrackerSays(status="needs_review"), State.REVIEW_BY_HAND),
        (TrackerSays(status="closed"), State.CLOSED),
        (TrackerSays(status="open", too_many_fixes="said no to 4 sessions in a row"), State.HELD),
        (TrackerSays(status="open", malformed="priority: missing"), State.MALFORMED),
        (TrackerSays(refusal="Issue not found: i-a1b2"), State.UNKNOWN_ISSUE),
    ],
)
def test_without_redis_the_tracker_says_what_it_knows(tracker: TrackerSays, state: State) -> None:
    """And that Redis is away is said besides, once."""
    found = explain(facts(tracker, None, redis_away="connection refused"))

    assert state == found.state
    assert 1 == sum("Redis does not answer" in said for said in (found.cause, *found.also))


def test_with_both_away_the_tracker_comes_first_and_both_are_named() -> None:
    """Nothing is claimed to be known."""
    found = explain(facts(None, None, tracker_away="timed out", redis_away="refused"))

    assert (Kind.UNKNOWN, State.TRACKER_AWAY) == (found.kind, found.state)
    assert ("Redis does not answer, so its sessions are not known: refused",) == found.also


def test_what_runs_is_running_whatever_else_is_wrong() -> None:
    """Its status lags behind, and a pause or a full Redis does not end it; both are said besides."""
    holding = a_holding(state="running", deadline_ms=NOW_MS + 14_000.0)
    redis = RedisSays(holding, Step(Stage.SPEC_REVIEW, 2), slots=4, no_writes="full", paused=Paused("anna", "", NOW_MS))
    found = explain(facts(TrackerSays(status="closed"), redis))

    assert (State.RUNNING, "spec review 2 on sessions@box/7") == (found.state, found.cause)
    assert ("Redis takes no writes: full", "orch is paused by anna") == found.also


def test_nobody_is_there_to_take_it_over() -> None:
    """A lease that is over leads to a new worker."""
    holding = a_holding(state="running", deadline_ms=NOW_MS - 1.0)

    assert ("orch up",) == explain(facts(redis=RedisSays(holding))).do
    assert ("orch up",) == explain(facts(redis=RedisSays(a_holding(state="claimed")))).do


def test_a_pull_request_is_merged_where_it_is() -> None:
    """Its own, and that of the blocker at the root."""
    done = RedisSays(a_holding(verdict="DONE", delivered_to=PULL), slots=4)
    root = Blocker("i-c3d4", "needs_review", PULL)
    waits = TrackerSays(status="blocked", blockers=("i-b0b0",), chain=(Blocker("i-b0b0", "blocked"), root))

    assert (f"gh pr merge --merge {PULL}",) == explain(facts(TrackerSays(status="needs_review"), done)).do
    assert (f"gh pr merge --merge {PULL}",) == explain(facts(waits)).do


def test_a_pull_request_that_was_turned_down_is_remembered() -> None:
    """The issue is ready once more, and says why."""
    turned_down = TrackerSays(status="open", merges=(a_marker(Marker.PULL_REQUEST_CLOSED_UNMERGED),))

    assert ("its last pull request was closed without being merged",) == explain(facts(turned_down)).also


def test_what_was_asked_for_is_next_when_all_slots_are_taken() -> None:
    """It need not be asked for again; what was not can be."""
    full = RedisSays(slots=1, live=("i-b0b0",))

    assert ("orch enqueue i-a1b2",) == explain(facts(redis=full)).do
    assert ("orch status",) == explain(facts(redis=replace(full, wanted=True))).do


def test_a_wait_that_is_over_holds_nothing_back() -> None:
    """Nor does one that somebody asked to skip."""
    error = a_holding(verdict="ERROR", reason="it broke", held_until_ms=NOW_MS - 1.0)
    waits = replace(error, held_until_ms=NOW_MS + 30_000.0)

    assert State.READY == explain(facts(redis=RedisSays(error, slots=4))).state
    assert State.BACKOFF == explain(facts(redis=RedisSays(waits, slots=4))).state
    assert State.WANTED == explain(facts(redis=RedisSays(waits, slots=4, wanted=True))).state


def test_what_the_tracker_refused_is_said() -> None:
    """A person has to see to that, whatever state the issue is in."""
    refused = RedisSays(slots=4, refused=("i-a1b2: title too long",))

    assert ("the tracker refused to be told: i-a1b2: title too long",) == explain(facts(redis=refused)).also
