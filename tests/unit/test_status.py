"""What `orch status` makes of what Redis and the tracker say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.issue import read
from orchestrator.models import (
    Holding,
    Limits,
    Progress,
    Report,
    SessionRecord,
    SessionState,
    SnapshotEntry,
    Stage,
    Step,
    Verdict,
)
from orchestrator.publish.entries import About, opening_entries, step_entries, verdict_entries
from orchestrator.session_loop import Path, advance, paths, session
from orchestrator.status.board import EngineStatus, IssueRow, board_of, not_there
from orchestrator.status.facts import Asked, Blocker, Facts, Policy, RedisSays, Tracked, TrackerSays
from orchestrator.status.told import SessionTold, sessions_told
from tests.support import NOON, an_issue

NOW_MS = int(NOON.timestamp() * 1000)
ABOUT = About(an_issue(), "session-1", "orch-main")
RECORD = SessionRecord("session-1", "orch-main", an_issue(), spec_limit=3, quality_limit=2)


def a_holding(**changes: object) -> Holding:
    """The running session of i-a1b2, claimed a minute before noon."""
    holding = Holding(
        issue_id="i-a1b2",
        state=SessionState.RUNNING,
        record=RECORD,
        owner="worker",
        stage="",
        attempt=0,
        verdict="",
        reason="",
        claimed_at_ms=NOW_MS - 60_000,
        started_at_ms=NOW_MS - 59_000,
        ended_at_ms=0,
        deadline_ms=NOW_MS + 15_000.0,
        held_until_ms=None,
        fix_issue_id=None,
    )
    return replace(holding, **changes)  # type: ignore[arg-type] # the fields of Holding


def ended(verdict: str, **changes: object) -> Holding:
    """It ended ten seconds before noon."""
    return a_holding(state="ended", verdict=verdict, ended_at_ms=NOW_MS - 10_000, deadline_ms=None, **changes)


def tracked(status: str, title: str = "Parse empty input", *blockers: str) -> Tracked:
    """i-a1b2 as the tracker shows it."""
    issue = read({"id": "i-a1b2", "title": title, "status": status, "priority": 2, "created_at": NOON.isoformat()})
    return Tracked(issue, blockers=blockers, chain=tuple(Blocker(blocker, "open") for blocker in blockers))


def told(*answers: bool) -> SessionTold:
    """A session whose steps, first to last, came out like this."""
    entries = opening_entries(ABOUT, at=NOON)
    life, progress = session(), Progress()
    step = advance(life)
    for passed in answers:
        assert isinstance(step, Step)
        report = Report(step.stage, step.attempt, NOON, passed, failed_items=() if passed else ("a box",))
        progress = progress.after(report)
        entries += step_entries(ABOUT, progress, report)
        step = advance(life, report)
    if not isinstance(step, Step):
        entries += verdict_entries(ABOUT, progress, step, at=NOON)
    (session_told,) = sessions_told(entry.content for entry in entries if isinstance(entry, SnapshotEntry))
    return session_told


def facts(holding: Holding | None, known: Tracked | None, *sessions: SessionTold, lease_s: float = 15.0) -> Facts:
    """What Redis, with a worker of four slots, and the tracker say at noon."""
    redis = RedisSays(NOON, {"i-a1b2": holding} if holding else {}, {"i-a1b2": sessions}, slots=4)
    tracker = Asked(TrackerSays({"i-a1b2": known})) if known else Asked[TrackerSays](None, "timed out")
    return Facts(NOON, Asked(redis), tracker, Policy(lease_s))


def the_issue(holding: Holding | None, known: Tracked | None, *sessions: SessionTold) -> IssueRow:
    """The row of i-a1b2, at noon."""
    (issue,) = board_of("demo", facts(holding, known, *sessions)).issues
    return issue


@pytest.mark.parametrize("path", list(paths()), ids=str)
def test_the_step_under_way_follows_from_the_snapshots(path: Path) -> None:
    """On every path through the lifecycle, after each step, the next one is under way; at its end, the last one."""
    following = [*path.steps[1:], path.steps[-1]]
    answers = [_passed(path.steps, n, path.verdict) for n in range(len(path.steps))]
    found = [told(*answers[: n + 1]).under_way(Limits()) for n in range(len(path.steps))]

    assert [(step.stage, step.attempt) for step in following] == [(step.stage, step.attempt) for step in found]


def _passed(steps: Sequence[Step], n: int, verdict: Verdict) -> bool:
    """A review failed if a fix or an overflow followed it, the verification if the verdict says so."""
    if steps[n].stage in (Stage.SPEC_REVIEW, Stage.QUALITY_REVIEW):
        return n + 1 < len(steps) and steps[n + 1].stage not in (Stage.SPEC_FIX, Stage.QUALITY_FIX)
    return steps[n].stage is not Stage.VERIFICATION or verdict is Verdict.DONE


def test_the_limits_of_the_session_hold_not_the_default_ones() -> None:
    """A session that was started with one spec review is at that review, however it came out."""
    assert Step(Stage.SPEC_REVIEW) == told(True, False).under_way(Limits(spec=1))


def test_a_running_session_shows_its_step_and_age() -> None:
    """Stage and attempt of the step under way, the reviews so far, seconds since the claim; no verdict, no reason."""
    issue = the_issue(a_holding(), tracked("in_progress"), told(True, False))

    assert ("SPEC_FIX", 1, 1, 0) == (issue.stage, issue.attempt, issue.spec, issue.quality)
    assert ("running", 60.0, None, "") == (issue.state, issue.age_s, issue.verdict, issue.reason)
    assert "orch/i-a1b2" == issue.branch


def test_a_running_session_shows_its_worker_and_when_that_was_heard_of() -> None:
    """By its lease: who renewed one of 30 s that is good for 15 more was heard of 15 s ago, on whichever host."""
    (issue,) = board_of("demo", facts(a_holding(), tracked("in_progress"), told(True, False), lease_s=30.0)).issues

    assert ("worker", 15.0, 3) == (issue.worker, issue.heard_s, issue.limit)


def test_a_session_that_nobody_runs_any_more_is_not_heard_of() -> None:
    """Neither one that waits for a worker, nor one that has ended."""
    found = [the_issue(holding, tracked("open")) for holding in (a_holding(state="claimed"), ended("DONE"))]

    assert [None, None] == [issue.heard_s for issue in found]


def test_an_ended_session_shows_its_verdict_and_why() -> None:
    """The verdict, the [FIX] issue that goes on, and when it ended."""
    overflow = ended("OVERFLOW", reason="a box", fix_issue_id="i-f1x1")
    issue = the_issue(overflow, tracked("needs_review"), told(True, False, True, False, True, False))

    assert (Verdict.OVERFLOW, 3, 10.0) == (issue.verdict, issue.spec, issue.age_s)
    assert "its reviews failed too often; it goes on as [FIX] i-f1x1" == issue.reason


def test_a_verdict_of_an_earlier_session_is_not_shown_for_one_that_runs() -> None:
    """Claimed again after an error, the issue has no verdict."""
    assert the_issue(a_holding(state="claimed", verdict="ERROR", reason="it broke"), tracked("open")).verdict is None


@pytest.mark.parametrize(
    ("until_ms", "reason", "held", "settled"),
    [
        (
            float("inf"),
            "3 sessions in a row ended in an error, the last: it broke; held back until `orch enqueue i-a1b2`",
            True,
            True,
        ),
        (NOW_MS + 30_000.0, "its last session ended in an error: it broke; it is tried again in 30 s", False, False),
        (NOW_MS - 1.0, "it is ready and a slot is free", False, False),
    ],
)
def test_an_issue_after_an_error_says_when_it_is_tried_again(
    until_ms: float, reason: str, held: bool, settled: bool
) -> None:
    """Held back for good only a person starts it; held back for a while it starts by itself."""
    issue = the_issue(ended("ERROR", reason="it broke", held_until_ms=until_ms), tracked("open"))

    assert (reason, held, settled) == (issue.reason, issue.held, issue.settled)


@pytest.mark.parametrize(
    "holding",
    [
        a_holding(state="ended", record=None, claimed_at_ms=0, ended_at_ms=0, stop=""),
        ended("ERROR", reason="it broke", stop="stopped by hand", claimed_at_ms=NOW_MS - 5_000),
    ],
    ids=["never claimed", "claimed again after an error"],
)
def test_an_issue_that_was_stopped_before_its_session_began_is_held(holding: Holding) -> None:
    """It does not look like one that is next, nor as if it waited for what its session before ended in."""
    issue = the_issue(replace(holding, held_until_ms=float("inf")), tracked("open"))
    words = "stopped by hand, before its session began; held back until `orch enqueue i-a1b2`"

    assert (words, True, True) == (issue.reason, issue.held, issue.settled)


@pytest.mark.parametrize(
    ("holding", "status", "trouble"),
    [
        (ended("ERROR", reason="it broke", held_until_ms=float("inf")), "open", "it broke; held back until"),
        (ended("ERROR", reason="it broke", held_until_ms=NOW_MS + 30_000.0), "open", ""),
        (ended("VERIFY_FAILED", reason="`make test` exited with 1"), "in_progress", "it could not be verified: `make"),
        (ended("VERIFY_FAILED", reason="`make test` exited with 1"), "open", ""),
        (ended("OVERFLOW", reason="a box", fix_issue_id="i-f1x1"), "needs_review", ""),
        (ended("DONE", undelivered="no token"), "needs_review", "verified, but not delivered: no token"),
        (ended("DONE", delivered_to="orch/i-a1b2"), "needs_review", ""),
        (a_holding(reason="it broke", verdict="VERIFY_FAILED"), "in_progress", ""),
        (a_holding(deadline_ms=NOW_MS - 1.0), "in_progress", "its worker worker fell silent"),
        (None, "in_progress", ""),
    ],
)
def test_what_a_person_should_see_to_is_told_from_what_goes_on_by_itself(
    holding: Holding | None, status: str, trouble: str
) -> None:
    """In the words of the reason."""
    issue = the_issue(holding, tracked(status))

    assert bool(trouble) == bool(issue.trouble)
    assert trouble in issue.trouble
    assert issue.trouble in ("", issue.reason)


def test_an_issue_that_waits_names_its_blockers() -> None:
    """It is settled too: only closing those sets it free."""
    issue = the_issue(None, tracked("open", "Wait", "i-b0b0"))

    assert (("i-b0b0",), "its blocker i-b0b0 is open") == (issue.blockers, issue.reason)
    assert issue.settled


def test_an_issue_in_progress_that_redis_does_not_know_is_looked_at_again() -> None:
    """It may have been claimed between the two looks. When Redis did not answer, nothing is said of its session."""
    known = facts(None, tracked("in_progress"))
    (unknown,) = board_of("demo", replace(known, redis=Asked(None, "refused"))).issues

    assert not_there(known)
    assert not not_there(facts(a_holding(), tracked("in_progress")))
    assert "Redis does not answer" in board_of("demo", replace(known, redis=Asked(None, "refused"))).problems[0]
    assert "it is in progress, and by no session of this checkout" == unknown.reason


def test_a_claim_without_a_session_yet_is_live() -> None:
    """Between the claim and the session's start there is no record."""
    issue = the_issue(a_holding(state="claimed", record=None), tracked("in_progress"))

    assert issue.live
    assert "" == issue.reason


def test_a_session_is_shown_that_the_tracker_s_older_answer_does_not_list() -> None:
    """What runs is there at once; what has ended and is not listed is not."""
    older = Asked(TrackerSays())
    live, over = (
        board_of("demo", replace(facts(holding, None), tracker=older)).issues
        for holding in (a_holding(), ended("DONE"))
    )

    assert [("i-a1b2", "Parse empty input", None)] == [(issue.id, issue.title, issue.status) for issue in live]
    assert () == over


def test_without_a_tracker_the_sessions_are_shown() -> None:
    """Their titles come from their records; their status is not known, and nothing is settled."""
    issue = the_issue(ended("DONE"), None)

    assert ("Parse empty input", None, Verdict.DONE) == (issue.title, issue.status, issue.verdict)
    assert not issue.settled


@pytest.mark.parametrize(
    ("status", "holding", "settled"),
    [
        ("open", None, False),
        ("in_progress", None, False),
        ("in_progress", a_holding(), False),
        ("needs_review", a_holding(), False),
        ("needs_review", ended("DONE"), True),
        ("in_progress", ended("VERIFY_FAILED"), True),
        ("blocked", None, True),
    ],
)
def test_settled_means_that_only_a_person_moves_it(status: str, holding: Holding | None, settled: bool) -> None:
    """Whatever runs, could be claimed, or is being claimed is not settled."""
    assert settled == the_issue(holding, tracked(status)).settled


@pytest.mark.parametrize(
    ("changes", "settled"),
    [({}, True), ({"outbox": 1}, False), ({"slots_used": 1}, False), ({"complete": False}, False)],
)
def test_all_is_settled_when_nothing_is_left_to_run_or_tell(changes: dict[str, int], settled: bool) -> None:
    """And when both Redis and the tracker answered: what is not seen may go on."""
    issue = IssueRow("i-a1b2", "Parse empty input", "needs_review")
    everything = EngineStatus("project", (issue,), complete=True)

    assert settled == replace(everything, **changes).settled  # type: ignore[arg-type] # the fields of EngineStatus


def test_one_fix_issue_too_many_is_held() -> None:
    """The fourth [FIX] in a row waits for a person, and says for what."""
    title = "[FIX] i-a: " * 3 + "One"
    runs, waits = (the_issue(None, tracked("open", words)) for words in (title, f"[FIX] i-a: {title}"))

    assert (False, "it is ready and a slot is free") == (runs.held, runs.reason)
    assert waits.held
    assert "the reviews said no to 4 sessions in a row; held back until `orch enqueue i-a1b2`" == waits.reason
