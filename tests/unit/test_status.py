"""What `orch status` makes of what Redis and the tracker say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.leases import Holding, SessionRecord
from orchestrator.models import Progress, Report, SnapshotEntry, Stage, Step, Verdict
from orchestrator.publish.entries import About, opening_entries, step_entries, verdict_entries
from orchestrator.session_loop import Path, advance, paths, session
from orchestrator.snapshot import Snapshot, read_snapshot
from orchestrator.status.board import EngineStatus, IssueStatus, Sessions, Tracked, issues_of, step_told
from tests.support import NOON, an_issue

NOW_MS = int(NOON.timestamp() * 1000)
ABOUT = About(an_issue(), "session-1", "orch-main")
RECORD = SessionRecord("session-1", "orch-main", an_issue(), spec_limit=3, quality_limit=2)


def a_holding(**changes: object) -> Holding:
    """The running session of i-a1b2, claimed a minute before noon."""
    holding = Holding(
        issue_id="i-a1b2",
        state="running",
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


def row(status: str, **changes: object) -> dict[str, object]:
    """i-a1b2 as the tracker lists it."""
    return {"id": "i-a1b2", "title": "Parse empty input", "status": status} | changes


def tracked(*rows: dict[str, object], **blockers: tuple[str, ...]) -> Tracked:
    return Tracked(rows, {name.replace("_", "-"): ids for name, ids in blockers.items()})


def told(*answers: bool) -> list[Snapshot]:
    """The snapshots of a session whose steps, first to last, came out like this."""
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
    snapshots = [read_snapshot(entry.content) for entry in entries if isinstance(entry, SnapshotEntry)]
    return [snapshot for snapshot in snapshots if snapshot]


def the_issue(holding: Holding | None, *known: dict[str, object], snapshots: Sequence[Snapshot] = ()) -> IssueStatus:
    """i-a1b2, at noon."""
    sessions = Sessions((holding,) if holding else (), {"i-a1b2": snapshots})
    (issue,) = issues_of(sessions, tracked(*known), now=NOON)
    return issue


@pytest.mark.parametrize("path", list(paths()), ids=str)
def test_the_step_under_way_follows_from_the_snapshots(path: Path) -> None:
    """On every path through the lifecycle, after each step, the next one is under way; at its end, the last one."""
    following = [*path.steps[1:], path.steps[-1]]
    answers = [_passed(path.steps, n, path.verdict) for n in range(len(path.steps))]
    found = [step_told(told(*answers[: n + 1]), RECORD) for n in range(len(path.steps))]

    assert [(step.stage, step.attempt) for step in following] == [(step.stage, step.attempt) for step in found]


def _passed(steps: Sequence[Step], n: int, verdict: Verdict) -> bool:
    """A review failed if a fix or an overflow followed it, the verification if the verdict says so."""
    if steps[n].stage in (Stage.SPEC_REVIEW, Stage.QUALITY_REVIEW):
        return n + 1 < len(steps) and steps[n + 1].stage not in (Stage.SPEC_FIX, Stage.QUALITY_FIX)
    return steps[n].stage is not Stage.VERIFICATION or verdict is Verdict.DONE


def test_the_limits_of_the_session_hold_not_the_default_ones() -> None:
    """A session that was started with one spec review is at that review, however it came out."""
    assert Step(Stage.SPEC_REVIEW) == step_told(told(True, False), replace(RECORD, spec_limit=1))


def test_a_running_session_shows_its_step_and_age() -> None:
    """Stage and attempt of the step under way, the reviews so far, seconds since the claim; no verdict, no reason."""
    issue = the_issue(a_holding(), row("in_progress"), snapshots=told(True, False))

    assert ("SPEC_FIX", 1, 1, 0) == (issue.stage, issue.attempt, issue.spec, issue.quality)
    assert ("running", 60.0, None, "") == (issue.state, issue.age_s, issue.verdict, issue.reason)
    assert "orch/i-a1b2" == issue.branch


def test_a_running_session_shows_its_worker_and_when_that_was_heard_of() -> None:
    """By its lease: who renewed one of 30 s that is good for 15 more was heard of 15 s ago, on whichever host."""
    sessions = Sessions((a_holding(),), {"i-a1b2": told(True, False)}, lease_s=30.0)
    (issue,) = issues_of(sessions, tracked(row("in_progress")), now=NOON)

    assert ("worker", 15.0, 3) == (issue.worker, issue.heard_s, issue.limit)


def test_a_session_that_nobody_runs_any_more_is_not_heard_of() -> None:
    """Neither one that waits for a worker, nor one that has ended."""
    found = [the_issue(holding, row("open")) for holding in (a_holding(state="claimed"), ended("DONE"))]

    assert [None, None] == [issue.heard_s for issue in found]


def test_an_ended_session_shows_its_verdict_and_why() -> None:
    """The verdict, the reason and the [FIX] issue that goes on, and when it ended."""
    overflow = ended("OVERFLOW", reason="a box", fix_issue_id="i-f1x1")
    issue = the_issue(overflow, row("needs_review"), snapshots=told(True, False, True, False, True, False))

    assert (Verdict.OVERFLOW, 3, 10.0) == (issue.verdict, issue.spec, issue.age_s)
    assert "a box; goes on as i-f1x1" == issue.reason


def test_a_verdict_of_an_earlier_session_is_not_shown_for_one_that_runs() -> None:
    """Claimed again after an error, the issue has no verdict."""
    assert the_issue(a_holding(state="claimed", verdict="ERROR", reason="it broke"), row("open")).verdict is None


@pytest.mark.parametrize(
    ("until_ms", "reason", "held", "settled"),
    [
        (float("inf"), "it broke; held back until `orch enqueue i-a1b2`", True, True),
        (NOW_MS + 30_000.0, "it broke; is tried again in 30 s", False, False),
        (NOW_MS - 1.0, "it broke", False, False),
    ],
)
def test_an_issue_after_an_error_says_when_it_is_tried_again(
    until_ms: float, reason: str, held: bool, settled: bool
) -> None:
    """Held back for good only a person starts it; held back for a while it starts by itself."""
    issue = the_issue(ended("ERROR", reason="it broke", held_until_ms=until_ms), row("open"))

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
    issue = the_issue(replace(holding, held_until_ms=float("inf")), row("open"))
    words = "stopped by hand, before its session began; held back until `orch enqueue i-a1b2`"

    assert (words, True, True) == (issue.reason, issue.held, issue.settled)


@pytest.mark.parametrize(
    ("holding", "status", "trouble"),
    [
        (ended("ERROR", reason="it broke", held_until_ms=float("inf")), "open", "it broke"),
        (ended("ERROR", reason="it broke", held_until_ms=NOW_MS + 30_000.0), "open", ""),
        (ended("VERIFY_FAILED", reason="`make test` exited with 1"), "in_progress", "`make test` exited with 1"),
        (ended("VERIFY_FAILED", reason="`make test` exited with 1"), "open", ""),
        (ended("OVERFLOW", reason="a box", fix_issue_id="i-f1x1"), "needs_review", ""),
        (ended("DONE", undelivered="no token"), "needs_review", "not delivered yet: no token"),
        (ended("DONE", delivered_to="orch/i-a1b2"), "needs_review", ""),
        (a_holding(reason="it broke", verdict="VERIFY_FAILED"), "in_progress", ""),
        (None, "in_progress", "in progress, but no session of ours has it"),
    ],
)
def test_what_a_person_should_see_to_is_told_from_what_goes_on_by_itself(
    holding: Holding | None, status: str, trouble: str
) -> None:
    """In the words of the reason, without what follows from it."""
    issue = the_issue(holding, row(status))

    assert trouble == issue.trouble
    assert trouble in issue.reason


def test_an_issue_that_waits_names_its_blockers() -> None:
    """It is settled too: only closing those sets it free."""
    (issue,) = issues_of(Sessions(), tracked(row("open"), i_a1b2=("i-b0b0",)), now=NOON)

    assert (("i-b0b0",), "waits for i-b0b0 to be closed") == (issue.blockers, issue.reason)
    assert issue.settled


def test_an_issue_in_progress_that_nobody_has_is_pointed_out() -> None:
    """But not when Redis did not answer: then nobody knows."""
    (unknown,) = issues_of(None, tracked(row("in_progress")), now=NOON)

    assert "in progress, but no session of ours has it" == the_issue(None, row("in_progress")).reason
    assert "" == unknown.reason


def test_a_claim_without_a_session_yet_is_live() -> None:
    """Between the claim and the session's start there is no record."""
    issue = the_issue(a_holding(state="claimed", record=None), row("in_progress"))

    assert issue.live
    assert "" == issue.reason


def test_without_a_tracker_the_sessions_are_shown() -> None:
    """Their titles come from their records; their status is not known, and nothing is settled."""
    (issue,) = issues_of(Sessions((ended("DONE"),)), None, now=NOON + timedelta(seconds=5))

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
    assert settled == the_issue(holding, row(status)).settled


@pytest.mark.parametrize(
    ("changes", "settled"),
    [({}, True), ({"outbox": 1}, False), ({"slots_used": 1}, False), ({"complete": False}, False)],
)
def test_all_is_settled_when_nothing_is_left_to_run_or_tell(changes: dict[str, int], settled: bool) -> None:
    """And when both Redis and the tracker answered: what is not seen may go on."""
    issue = IssueStatus("i-a1b2", "Parse empty input", "needs_review")
    everything = EngineStatus("project", (issue,), complete=True)

    assert settled == replace(everything, **changes).settled  # type: ignore[arg-type] # the fields of EngineStatus


def test_one_fix_issue_too_many_is_held() -> None:
    """The fourth [FIX] in a row waits for a person, and says for what."""
    title = "[FIX] i-a: " * 3 + "One"
    runs, waits = (the_issue(None, row("open") | {"title": words}) for words in (title, f"[FIX] i-a: {title}"))

    assert (False, "") == (runs.held, runs.reason)
    assert waits.held
    assert "the reviews said no to 4 sessions in a row; held back until `orch enqueue i-a1b2`" == waits.reason
