"""What is said of an issue when something is away, and where it leads; tests/acceptance provokes every state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.issue import read
from orchestrator.merge_close.record import NAMED_BADLY, Marker, MergeMarker
from orchestrator.models import Holding, Paused, Report, SessionRecord, SessionState, Stage, Verdict
from orchestrator.status.explanation import Kind, State
from orchestrator.status.facts import Asked, Blocker, Facts, IssueFacts, RedisSays, Tracked, TrackerSays
from orchestrator.status.told import SessionTold
from orchestrator.status.why import explain
from tests.support import NOON, an_issue, evidence

NOW_MS = int(NOON.timestamp() * 1000)
PULL = "https://github.com/acme/shop/pull/12"
RECORD = SessionRecord("session-1", "orch-main", an_issue(), 3, 2)
IDLE = RedisSays(NOON, slots=4)


def a_holding(**changes: object) -> Holding:
    """A session that ended a minute before noon."""
    ended = Holding(
        issue_id="i-a1b2",
        state=SessionState.ENDED,
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


def tracked(status: str = "open", title: str = "Parse empty input", **changes: object) -> Tracked:
    """i-a1b2 as the tracker shows it."""
    issue = read({"id": "i-a1b2", "title": title, "status": status})
    return replace(Tracked(issue), **changes)  # type: ignore[arg-type] # the fields of Tracked


OPEN = tracked()


def ended(verdict: Verdict, reason: str = "") -> tuple[SessionTold, ...]:
    """What the tracker was told of a session."""
    return (SessionTold("session-1", NOON, NOON, verdict=verdict, reason=reason, by="orch-main"),)


def holds(holding: Holding | None = None, **changes: object) -> RedisSays:
    """A Redis with this issue and a worker of four slots."""
    redis = replace(IDLE, holdings={"i-a1b2": holding} if holding else {})
    return replace(redis, **changes)  # type: ignore[arg-type] # the fields of RedisSays


def facts(
    tracker: Tracked | None = OPEN, redis: RedisSays | None = IDLE, *, tracker_away: str = "", redis_away: str = ""
) -> IssueFacts:
    """i-a1b2 at noon."""
    says = TrackerSays({"i-a1b2": tracker}) if tracker else None
    return Facts(NOON, Asked(redis, redis_away), Asked(says, tracker_away)).of("i-a1b2")


def a_marker(marker: Marker, reason: str = "because", *, pr_url: str = PULL) -> MergeMarker:
    """What the issue's feedback says of a merge."""
    return MergeMarker(
        marker=marker,
        reason=reason,
        issue_id="i-a1b2",
        pr_url=pr_url,
        merge_sha="c0ffee",
        merged_at="2026-01-05T12:00:00+00:00",
        merged=True,
        source="daemon",
    )


@pytest.mark.parametrize(
    ("tracker", "state"),
    [
        (tracked("open"), State.REDIS_AWAY),
        (tracked("in_progress", ours=True), State.REDIS_AWAY),
        (tracked("in_progress", shown=False), State.REDIS_AWAY),
        (tracked("in_progress"), State.SOMEBODY_ELSE),
        (tracked("in_progress", sessions=ended(Verdict.VERIFY_FAILED, "no command")), State.NO_VERIFICATION),
        (tracked("needs_review", sessions=ended(Verdict.DONE)), State.TO_REVIEW),
        (tracked("needs_review", sessions=ended(Verdict.DONE, "nothing to merge: x")), State.NOTHING_TO_MERGE),
        (tracked("needs_review", sessions=ended(Verdict.OVERFLOW)), State.OVERFLOW),
        (tracked("needs_review"), State.REVIEW_BY_HAND),
        (tracked("closed"), State.CLOSED),
        (tracked("open", "[FIX] a: " * 4), State.HELD),
        (tracked("open", malformed="priority: missing"), State.MALFORMED),
        (Tracked(None, "Issue not found: i-a1b2"), State.UNKNOWN_ISSUE),
    ],
)
def test_without_redis_the_tracker_says_what_it_knows(tracker: Tracked, state: State) -> None:
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
    redis = holds(holding, no_writes="full", paused=Paused("anna", "", NOW_MS))
    found = explain(facts(tracked("closed"), redis))

    assert (State.RUNNING, "implement on sessions@box/7") == (found.state, found.cause)
    assert ("Redis takes no writes: full", "orch is paused by anna") == found.also


def test_nobody_is_there_to_take_it_over() -> None:
    """A lease that is over leads to a new worker."""
    holding = a_holding(state="running", deadline_ms=NOW_MS - 1.0)

    assert ("orch up",) == explain(facts(redis=holds(holding, slots=0))).do
    assert ("orch up",) == explain(facts(redis=holds(a_holding(state="claimed"), slots=0))).do


def test_a_pull_request_is_merged_where_it_is() -> None:
    """Its own, and that of the blocker at the root."""
    done = a_holding(verdict="DONE", delivered_to=PULL)
    chain = (Blocker("i-b0b0", "blocked"), Blocker("i-c3d4", "needs_review"))
    waits = tracked("blocked", blockers=("i-b0b0",), chain=chain)

    assert (f"gh pr merge --merge {PULL}",) == explain(facts(tracked("needs_review"), holds(done))).do
    assert (f"gh pr merge --merge {PULL}",) == explain(facts(waits, holds(holdings={"i-c3d4": done}))).do


NOTHING = "nothing to merge: the implementer says that the work is there already: see greet.py"


def test_where_there_is_nothing_to_merge_a_person_closes_it() -> None:
    """No merge is asked for, of it or by what waits for it, and a person is told: nothing else will happen."""
    done = a_holding(verdict="DONE", reason=NOTHING)
    found = explain(facts(tracked("needs_review"), holds(done)))
    chain = (Blocker("i-c3d4", "needs_review"),)
    waits = explain(facts(tracked("blocked", blockers=("i-c3d4",), chain=chain), holds(holdings={"i-c3d4": done})))

    assert (State.NOTHING_TO_MERGE, NOTHING, True) == (found.state, found.why, found.trouble)
    assert ("orch issue close i-a1b2", "orch issue reopen i-a1b2") == found.do
    assert "nothing closes it but `orch issue close i-a1b2`" in found.next
    assert ("orch issue close i-c3d4",) == waits.do


def test_an_error_for_which_there_was_nothing_to_merge_has_two_ways_out() -> None:
    """It is run again, or closed by a person; another error has one."""
    nothing = f"i-a1b2: {NOTHING}"
    held = [a_holding(verdict="ERROR", reason=why, held_until_ms=float("inf")) for why in (nothing, "it broke")]

    assert [
        "held back until `orch enqueue i-a1b2`; if there is nothing to do, `orch issue close i-a1b2` closes it",
        "held back until `orch enqueue i-a1b2`",
    ] == [explain(facts(redis=holds(holding))).next for holding in held]


def test_a_pull_request_that_was_turned_down_is_remembered() -> None:
    """The issue is ready once more, and says why."""
    turned_down = tracked("open", merges_since=(a_marker(Marker.PULL_REQUEST_CLOSED_UNMERGED),))

    assert ("its last pull request was closed without being merged",) == explain(facts(turned_down)).also


def test_a_merge_whose_text_was_wrong_is_closed_by_a_persons_word() -> None:
    """The command has all that it needs, and nothing in it that a shell would run."""
    badly = a_marker(Marker.MERGE_CLOSE_REJECTED, f"{NAMED_BADLY}: no line", pr_url="https://x/pull/1;reboot")
    found = explain(facts(tracked("needs_review", sessions=ended(Verdict.DONE), merges_since=(badly,))))

    assert State.MERGE_REJECTED == found.state
    assert "does not name the issue: no line" in found.cause
    assert (
        "orch merges close i-a1b2 --pr-url 'https://x/pull/1;reboot' --merge-sha c0ffee "
        "--merged-at 2026-01-05T12:00:00+00:00",
    ) == found.do


def test_a_merge_that_is_not_its_own_is_not_to_be_closed_by_hand() -> None:
    """What may be forged is not put into a person's mouth."""
    forged = a_marker(Marker.MERGE_CLOSE_REJECTED, "it comes from eve/shop:orch/i-a1b2, not from orch/i-a1b2")
    found = explain(facts(tracked("needs_review", sessions=ended(Verdict.DONE), merges_since=(forged,))))

    assert (State.MERGE_REJECTED, ("git merge --no-ff orch/i-a1b2",)) == (found.state, found.do)


@pytest.mark.parametrize(("status", "said"), [("open", True), ("in_progress", True), ("closed", False)])
def test_a_merge_that_came_at_another_time_is_told_besides(status: str, said: bool) -> None:
    """An issue that is open again, or run again, says why the merge of its old pull request did not close it."""
    told = (a_marker(Marker.PULL_REQUEST_CLOSED_UNMERGED), a_marker(Marker.MERGE_CLOSE_REJECTED))
    found = explain(facts(tracked(status, merges_since=told)))

    assert said is ("a merge was seen that may not close it: because" in found.also)
    assert "its last pull request was closed without being merged" not in found.also


def test_what_was_asked_for_is_next_when_all_slots_are_taken() -> None:
    """It need not be asked for again; what was not can be."""
    full = holds(slots=1, live=("i-b0b0",))

    assert ("orch enqueue i-a1b2",) == explain(facts(redis=full)).do
    assert ("orch status",) == explain(facts(redis=replace(full, wanted=("i-a1b2",)))).do


def test_a_wait_that_is_over_holds_nothing_back() -> None:
    """Nor does one that somebody asked to skip."""
    error = a_holding(verdict="ERROR", reason="it broke", held_until_ms=NOW_MS - 1.0)
    waits = replace(error, held_until_ms=NOW_MS + 30_000.0)

    assert State.READY == explain(facts(redis=holds(error))).state
    assert State.BACKOFF == explain(facts(redis=holds(waits))).state
    assert State.WANTED == explain(facts(redis=holds(waits, wanted=("i-a1b2",)))).state


def test_what_was_remarked_is_said() -> None:
    """What changed outside the worktree while an agent was at work is found where one asks after the issue."""
    report = Report(Stage.QUALITY_REVIEW, 1, NOON, remarks=("main checkout: leaked.py",))
    told = holds(reports={"i-a1b2": (report,)})

    assert ("in its last session, quality review: main checkout: leaked.py",) == explain(facts(redis=told)).also


def test_what_the_tracker_refused_is_said() -> None:
    """A person has to see to that, whatever state the issue is in."""
    refused = holds(refused=("i-a1b2: title too long",))

    assert ("the tracker refused to be told: i-a1b2: title too long",) == explain(facts(redis=refused)).also


@pytest.mark.parametrize(
    ("holding", "row"),
    [
        (
            a_holding(verdict="ERROR", reason="i-a1b2: it broke", held_until_ms=NOW_MS + 30_000.0),
            "it is tried again in",
        ),
        (a_holding(verdict="ERROR", reason="it broke", held_until_ms=float("inf")), "held back until `orch enqueue i-"),
    ],
)
def test_a_row_has_the_cause_and_until_when_it_holds_the_issue_back(holding: Holding, row: str) -> None:
    """In the words of the explanation, of which it is the short form."""
    found = explain(facts(redis=holds(holding)))

    assert f"{found.cause}; {found.next}" == found.row
    assert "ended in an error" in found.row
    assert row in found.row
    assert "i-a1b2: it broke" not in found.row


def test_an_issue_that_was_only_listed_is_not_judged_by_its_feedback() -> None:
    """The list has none, so nothing is claimed about whose session it was."""
    found = [explain(facts(tracked(status, shown=False))) for status in ("in_progress", "needs_review")]

    assert [True, True] == ["no session of it is known here" in each.cause for each in found]


@pytest.mark.parametrize(("verdict", "exit_code"), [("DONE", 0), ("VERIFY_FAILED", 1)])
def test_why_one_may_doubt_a_verification_is_said(verdict: str, exit_code: int) -> None:
    """Green or red: that the agent chose it, that it was flaky, that the work touched it."""
    doubtful = replace(evidence(exit_code), chosen_by_agent=True, red_before=(1,), touched=("Makefile",))
    reports = {"i-a1b2": [Report(Stage.VERIFICATION, 1, NOON, evidence=doubtful)]}
    status = "needs_review" if verdict == "DONE" else "in_progress"
    found = explain(facts(tracked(status), holds(a_holding(verdict=verdict), reports=reports)))

    assert doubtful.remarks == found.evidence[1:-1]
    assert 3 == len(doubtful.remarks)
