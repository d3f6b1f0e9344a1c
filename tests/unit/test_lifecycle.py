"""The lifecycle, all of it: every path, what each path tells, and every point at which it can be taken up again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from orchestrator.agent_roles import RoleSteps, claimed_evidence
from orchestrator.errors import HistoryMismatch, LeaseLost, RedisUnavailable, SessionStopped
from orchestrator.issue import feedback_of
from orchestrator.memory import MemoryHistory, MemoryTracker
from orchestrator.models import (
    DEFAULT_LIMITS,
    Entry,
    FixIssueEntry,
    ImplementerResult,
    IssueStatus,
    Limits,
    Progress,
    Report,
    ReviewResult,
    SessionOutcome,
    SnapshotEntry,
    Stage,
    StatusEntry,
    Step,
    Verdict,
    VerificationEvidence,
    session_id_for,
)
from orchestrator.publish.entries import About
from orchestrator.session_loop import Path, SingleSessionOrchestrator, paths, perform, session
from orchestrator.status.told import sessions_told
from tests.support import NOON, Roles, an_issue, evidence, gateway_to, noon

ABOUT = About(an_issue(), "session-1", "orch-test")
LIMITS = [Limits(), Limits(1, 1), Limits(2, 3), Limits(5, 1)]

Told = tuple[str, str, str, int, int]  # event, stage, status, spec attempts, quality attempts


@dataclass(frozen=True)
class Story:
    """One session, told by how often each review said no and how the verification exited. The tests' own account."""

    limits: Limits
    spec_noes: int
    quality_noes: int = 0
    exit_code: int = 0

    @property
    def verdict(self) -> Verdict:
        if self.spec_noes == self.limits.spec or self.quality_noes == self.limits.quality:
            return Verdict.OVERFLOW
        return Verdict.VERIFY_FAILED if self.exit_code else Verdict.DONE

    @property
    def steps(self) -> list[Step]:
        """Every step, in order, without its fix list."""
        steps = [Step(Stage.RUNNING)]
        for review, fix, noes, limit in self._reviews():
            for attempt in range(1, noes + 1):
                steps += [Step(review, attempt), Step(fix, attempt)]
            if noes == limit:
                return steps[:-1]
            steps.append(Step(review, noes + 1))
        return [*steps, Step(Stage.VERIFICATION)]

    @property
    def told(self) -> list[Told]:
        """Every snapshot after SESSION_START, in order."""
        told: list[Told] = [("IMPLEMENT_DONE", "RUNNING", "PASS", 0, 0)]
        counts = {"SPEC": 0, "QUALITY": 0}
        for kind, noes, limit in (
            ("SPEC", self.spec_noes, self.limits.spec),
            ("QUALITY", self.quality_noes, self.limits.quality),
        ):
            for attempt in range(1, noes + 1):
                counts[kind] = attempt
                told.append((f"{kind}_REVIEW_FAIL", f"{kind}_REVIEW", "FAIL", counts["SPEC"], counts["QUALITY"]))
                if attempt == limit:
                    return [
                        *told,
                        ("OVERFLOW_FIX_CREATED", "OVERFLOW", "FIX_CREATED", counts["SPEC"], counts["QUALITY"]),
                    ]
                told.append((f"{kind}_FIX_APPLIED", f"{kind}_FIX", "PASS", counts["SPEC"], counts["QUALITY"]))
            counts[kind] = noes + 1
            told.append((f"{kind}_REVIEW_PASS", f"{kind}_REVIEW", "PASS", counts["SPEC"], counts["QUALITY"]))
        end = ("VERIFY_FAILED", "VERIFICATION", "VERIFY_FAILED") if self.exit_code else ("SESSION_DONE", "DONE", "PASS")
        return [*told, (*end, counts["SPEC"], counts["QUALITY"])]

    def _reviews(self) -> Iterator[tuple[Stage, Stage, int, int]]:
        yield Stage.SPEC_REVIEW, Stage.SPEC_FIX, self.spec_noes, self.limits.spec
        yield Stage.QUALITY_REVIEW, Stage.QUALITY_FIX, self.quality_noes, self.limits.quality


def stories(limits: Limits = DEFAULT_LIMITS) -> list[Story]:
    """Every session there can be: each review passes at some attempt or never, the verification passes or not."""
    found = [Story(limits, limits.spec)]
    for spec_noes in range(limits.spec):
        found.append(Story(limits, spec_noes, limits.quality))
        found += [Story(limits, spec_noes, noes, code) for noes in range(limits.quality) for code in (0, 1)]
    return found


def named(story: Story) -> str:
    return f"{story.limits.spec}.{story.limits.quality}-{story.spec_noes}.{story.quality_noes}-{story.verdict}"


EVERY = [story for limits in LIMITS for story in stories(limits)]
every_story = pytest.mark.parametrize("story", EVERY, ids=map(named, EVERY))
every_default_story = pytest.mark.parametrize("story", stories(), ids=map(named, stories()))


class Scripted:
    """Does a story's steps by asking its roles, at noon; `done` is what was done, without fix lists."""

    def __init__(self, story: Story) -> None:
        self.done: list[Step] = []
        self.roles = Roles(story.spec_noes, story.quality_noes, story.exit_code)
        self._steps = RoleSteps(
            "PROMPT", self.roles.implementer, self.roles.spec_reviewer, self.roles.quality_reviewer, noon
        )

    def __call__(self, step: Step, progress: Progress) -> Report:
        self.done.append(replace(step, fix_list=()))
        return self._steps(step, progress)


class Failing(Scripted):
    """Does a story up to its nth step, which raises."""

    def __init__(self, story: Story, nth: int, error: Exception) -> None:
        super().__init__(story)
        self._nth = nth
        self._error = error

    def __call__(self, step: Step, progress: Progress) -> Report:
        if len(self.done) == self._nth:
            raise self._error
        return super().__call__(step, progress)


def run(do: Scripted, history: MemoryHistory, limits: Limits = DEFAULT_LIMITS) -> SessionOutcome:
    return perform(ABOUT, do, history, limits=limits, now=noon)


def played(story: Story) -> MemoryHistory:
    """The history of a story from its beginning to its end."""
    history = MemoryHistory()
    run(Scripted(story), history, story.limits)
    return history


def snapshots(entries: list[Entry]) -> list[dict[str, Any]]:
    return [json.loads(entry.content) for entry in entries if isinstance(entry, SnapshotEntry)]


def heard(entries: list[Entry]) -> list[Told]:
    """The snapshots among the entries, as a story tells them."""
    return [
        (row["event_type"], row["stage"], row["status"], row["attempts"]["spec"], row["attempts"]["quality"])
        for row in snapshots(entries)
    ]


# Deciding


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_the_paths_are_exactly_these(limits: Limits) -> None:
    """The lifecycle has one path for each story, and no other."""
    expected = {Path(tuple(story.steps), story.verdict) for story in stories(limits)}
    found = list(paths(limits))

    assert expected == set(found)
    assert 1 + limits.spec * (1 + 2 * limits.quality) == len(found)


def test_there_are_sixteen_paths_at_three_and_two() -> None:
    """The default limits are 3 spec reviews and 2 quality reviews: 16 paths."""
    assert (3, 2) == (SingleSessionOrchestrator.SPEC_MAX_ATTEMPTS, SingleSessionOrchestrator.QUALITY_MAX_ATTEMPTS)
    assert (3, 2) == (DEFAULT_LIMITS.spec, DEFAULT_LIMITS.quality)
    assert 16 == len(list(paths())) == len(stories())


def test_a_fix_is_asked_for_with_the_reviews_fix_list() -> None:
    """The step after a failed review carries what that review wants fixed."""
    life = session()
    next(life)
    life.send(Report(Stage.RUNNING, 1, NOON))
    step = life.send(Report(Stage.SPEC_REVIEW, 1, NOON, passed=False, fix_list=("close the file",)))

    assert Step(Stage.SPEC_FIX, 1, ("close the file",)) == step


# Doing and telling


@every_story
def test_a_session_does_and_tells_its_story(story: Story) -> None:
    """Steps, snapshots, attempts and verdict of every path are the story's, one snapshot for each step."""
    do, history = Scripted(story), MemoryHistory()
    outcome = run(do, history, story.limits)

    assert story.steps == do.done
    assert story.told == heard(history.told)
    assert story.verdict == history.verdict
    assert SessionOutcome(story.verdict.value) == outcome  # type: ignore[arg-type] # one of the three that end a story


@every_default_story
def test_reviews_are_told_with_what_they_found(story: Story) -> None:
    """A failed review says its items and fixes, and so does the overflow after it; a failed verification says why."""
    for row in snapshots(played(story).told):
        kind = row["event_type"].split("_")[0].lower()
        if row["event_type"] == "OVERFLOW_FIX_CREATED":
            kind = "spec" if story.spec_noes == story.limits.spec else "quality"
        failed = row["status"] in ("FAIL", "FIX_CREATED")
        attempt = row["attempts"].get(kind)
        items = [f"{kind} item {attempt}"] if failed else []
        if row["event_type"] == "VERIFY_FAILED":
            items = ["`make test` exited with 1: 3 passed"]

        assert items == row["failed_items"]
        assert ([f"{kind} fix {attempt}"] if failed else []) == row["fix_list"]


@every_default_story
def test_every_snapshot_says_whose_it_is_and_what_was_verified(story: Story) -> None:
    """Ids, schema, moment and latest evidence stand in every snapshot, so one alone can be understood."""
    for row in snapshots(played(story).told):
        assert ("loop_snapshot.v1", "session-1", "orch-test", "i-a1b2", "DEV-001", "2026-01-05T12:00:00+00:00") == (
            row["schema_version"],
            row["session_id"],
            row["orchestrator_id"],
            row["issue_id"],
            row["task_id"],
            row["timestamp"],
        )
        assert {
            "command": "make test",
            "exit_code": story.exit_code,
            "produced_at": "2026-01-05T12:00:00+00:00",
            "output_ref": "runs/1.log",
        } == row["verify"]


@every_default_story
def test_the_end_is_told_in_order(story: Story) -> None:
    """DONE: needs_review, then the snapshot. OVERFLOW: the [FIX] issue first. VERIFY_FAILED leaves the status alone."""
    kinds = {
        Verdict.DONE: [StatusEntry, SnapshotEntry],
        Verdict.OVERFLOW: [FixIssueEntry, StatusEntry, SnapshotEntry],
        Verdict.VERIFY_FAILED: [SnapshotEntry],
    }[story.verdict]
    end = played(story).told[len(story.told) - 1 :]

    assert kinds == [type(entry) for entry in end]
    assert all(entry.status == "needs_review" for entry in end if isinstance(entry, StatusEntry))


@every_default_story
def test_a_host_with_the_tracker_at_hand_hears_the_same(story: Story) -> None:
    """Told at once to a tracker, a story has the same snapshots after a SESSION_START, and its verdict's statuses."""
    tracker = MemoryTracker()
    issue = an_issue(issue_id=tracker.file("Parse empty input"))
    roles = Roles(story.spec_noes, story.quality_noes, story.exit_code)
    outcome = SingleSessionOrchestrator(gateway_to(tracker), now=noon).run_issue(
        issue=issue,
        rendered_prompt="PROMPT",
        implementer=roles.implementer,
        spec_reviewer=roles.spec_reviewer,
        quality_reviewer=roles.quality_reviewer,
    )
    contents = [SnapshotEntry("", content) for content in feedback_of(tracker.show_issue(issue.issue_id))][::-1]
    statuses = ["in_progress"] if story.verdict is Verdict.VERIFY_FAILED else ["in_progress", "needs_review"]
    fixes = [issue_id for issue_id, row in tracker.issues.items() if row["title"].startswith("[FIX] ")]

    assert [("SESSION_START", "RUNNING", "START", 0, 0), *story.told] == heard([*contents])
    assert [(issue.issue_id, status) for status in statuses] == tracker.status_updates
    assert (1 if story.verdict is Verdict.OVERFLOW else 0) == len(fixes)
    assert SessionOutcome(story.verdict.value, fixes[0] if fixes else None) == outcome  # type: ignore[arg-type] # as above
    assert [{"from_id": issue.issue_id, "to_id": fix, "type": "related"} for fix in fixes] == tracker.links


# Taking up again


@every_story
def test_a_session_goes_on_where_its_history_ends(story: Story) -> None:
    """With any number of its reports recorded, a session does the rest of its steps and tells the rest of its story."""
    whole = played(story)
    for recorded in range(len(story.steps) + 1):
        do, history = Scripted(story), MemoryHistory(whole.reports[:recorded])
        run(do, history, story.limits)
        told_before = sum(report.stage is not Stage.VERIFICATION for report in whole.reports[:recorded])

        assert story.steps[recorded:] == do.done
        assert whole.told[told_before:] == history.told
        assert whole.reports == history.reports
        assert story.verdict == history.verdict


def _misfits() -> Iterator[tuple[str, list[Report]]]:
    implemented, failed = Report(Stage.RUNNING, 1, NOON), Report(Stage.SPEC_REVIEW, 1, NOON, passed=False)
    done = played(Story(DEFAULT_LIMITS, 0)).reports
    yield "another stage", [implemented, Report(Stage.QUALITY_REVIEW, 1, NOON)]
    yield "another attempt", [implemented, failed, Report(Stage.SPEC_FIX, 2, NOON)]
    yield "no beginning", [failed]
    yield "a step twice", [implemented, implemented]
    yield "more than the lifecycle asks for", [*done, Report(Stage.SPEC_FIX, 1, NOON)]


MISFITS = dict(_misfits())


@pytest.mark.parametrize("reports", MISFITS.values(), ids=MISFITS.keys())
def test_a_history_that_does_not_fit_is_told_and_ends_the_session(reports: list[Report]) -> None:
    """Nothing is done on top of a history that the lifecycle cannot have written; the error says how to start anew."""
    do, history = Scripted(Story(DEFAULT_LIMITS, 0)), MemoryHistory(reports)

    with pytest.raises(HistoryMismatch, match=r"i-a1b2: .*session-1.* `orch enqueue i-a1b2`"):
        run(do, history)
    assert [] == do.done
    assert Verdict.ERROR == history.verdict
    assert ["SESSION_ERROR"] == [event for event, *_rest in heard(history.told)]


def test_a_history_of_wider_limits_does_not_fit() -> None:
    """A session whose third spec review passed is not an overflow because the limit is 2 by now."""
    history = MemoryHistory(played(Story(DEFAULT_LIMITS, 2)).reports)

    with pytest.raises(HistoryMismatch):
        run(Scripted(Story(DEFAULT_LIMITS, 2)), history, Limits(2, 2))


# Ending early


LONGEST = max(stories(), key=lambda story: len(story.steps))
every_step = pytest.mark.parametrize("nth", range(len(LONGEST.steps)), ids=lambda n: f"{n}-{LONGEST.steps[n].stage}")


@every_step
@pytest.mark.parametrize(
    "error", [ValueError("the file is gone"), StopIteration("x"), StopIteration(Verdict.DONE)], ids=repr
)
def test_an_error_is_told_with_its_reason_and_reopens_the_issue(nth: int, error: Exception) -> None:
    """Whatever a step raises, at whichever step: SESSION_ERROR where the session stood, open, and raised again."""
    history = MemoryHistory()

    with pytest.raises(type(error)) as raised:
        run(Failing(LONGEST, nth, error), history)
    assert error is raised.value
    assert Verdict.ERROR == history.verdict
    stood_at = LONGEST.steps[nth - 1].stage if nth else Stage.RUNNING
    *before, last = heard(history.told)
    assert LONGEST.told[:nth] == before
    assert ("SESSION_ERROR", stood_at, "FAIL") == last[:3]
    assert [str(error)] == snapshots(history.told)[-1]["failed_items"]
    assert StatusEntry("i-a1b2", IssueStatus.OPEN) == history.told[-1]


@pytest.mark.parametrize(("error", "reason"), [(RuntimeError("  why \n"), "why"), (KeyError(), "KeyError")])
def test_an_error_without_words_is_told_by_its_type(error: Exception, reason: str) -> None:
    """A timeline never shows an empty reason."""
    history = MemoryHistory()

    with pytest.raises(type(error)):
        run(Failing(LONGEST, 0, error), history)
    assert [reason] == snapshots(history.told)[-1]["failed_items"]


@every_step
@pytest.mark.parametrize("error", [LeaseLost("x"), SessionStopped("x"), RedisUnavailable("x")], ids=repr)
def test_a_session_that_goes_on_elsewhere_tells_nothing(nth: int, error: Exception) -> None:
    """Who lost the lease, is shutting down or cannot reach the history says nothing: the session is not over."""
    history = MemoryHistory()

    with pytest.raises(type(error)):
        run(Failing(LONGEST, nth, error), history)
    assert history.verdict is None
    assert LONGEST.told[:nth] == heard(history.told)


class HalfAHistory(MemoryHistory):
    """A history that cannot take the end of a session."""

    def close(self, verdict: Verdict, entries: Any, *, reason: str = "") -> str | None:
        """Takes errors only."""
        if verdict is not Verdict.ERROR:
            raise ValueError("no room for the end")
        return super().close(verdict, entries, reason=reason)


def test_an_end_that_cannot_be_recorded_is_an_error_like_any_other() -> None:
    """If the verdict cannot be told, the issue is not left in progress: the error is told where the session stood."""
    history = HalfAHistory()

    with pytest.raises(ValueError, match="no room"):
        run(Scripted(Story(DEFAULT_LIMITS, 0)), history)
    assert ("SESSION_ERROR", "VERIFICATION", "FAIL", 1, 1) == heard(history.told)[-1]
    assert StatusEntry("i-a1b2", IssueStatus.OPEN) == history.told[-1]


# The steps


def test_each_role_is_asked_what_the_step_is_for() -> None:
    """Reviewers hear their attempt; the implementer hears an empty list first and the review's fixes later."""
    do = Scripted(Story(DEFAULT_LIMITS, 1, 1))
    run(do, MemoryHistory())

    assert [
        ("implementer", ()),
        ("spec_reviewer", 1),
        ("implementer", ("spec fix 1",)),
        ("spec_reviewer", 2),
        ("quality_reviewer", 1),
        ("implementer", ("quality fix 1",)),
        ("quality_reviewer", 2),
    ] == do.roles.asked


def test_reviewers_see_the_latest_implementation() -> None:
    """What a reviewer is shown is what the last fix said, not what the implementation said."""
    seen: list[str] = []

    def implement(_prompt: str, fixes: Sequence[str]) -> ImplementerResult:
        return ImplementerResult(evidence(), NOON, "fixed " + fixes[0] if fixes else "implemented")

    def review(_prompt: str, result: ImplementerResult, attempt: int) -> ReviewResult:
        seen.append(result.notes)
        return ReviewResult(attempt == 2, [], [str(len(seen))], "")

    perform(
        ABOUT, RoleSteps("PROMPT", implement, review, review, noon), MemoryHistory(), limits=DEFAULT_LIMITS, now=noon
    )

    assert ["implemented", "fixed 1", "fixed 1", "fixed 3"] == seen


def test_a_review_without_fixes_is_fixed_by_its_failed_items() -> None:
    """A reviewer that names what failed but not what to do still gives the implementer something to fix."""
    good = Roles()
    steps = RoleSteps("", good.implementer, lambda *_: ReviewResult(False, ["a"], [], ""), good.quality_reviewer, noon)
    report = steps(Step(Stage.SPEC_REVIEW), Progress(implementer_result=ImplementerResult(None, NOON, "")))

    assert (("a",), ("a",)) == (report.failed_items, report.fix_list)


def test_a_review_of_nothing_is_a_mismatch() -> None:
    """There is no review before the first implementation."""
    with pytest.raises(HistoryMismatch, match="nothing to review"):
        Scripted(LONGEST)(Step(Stage.SPEC_REVIEW), Progress())


BEFORE, AFTER = NOON - timedelta(seconds=1), NOON + timedelta(seconds=1)
TOKYO_NOON = NOON.astimezone(timezone(timedelta(hours=9)))


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        (None, Verdict.VERIFY_FAILED),
        (evidence(1), Verdict.VERIFY_FAILED),
        (evidence(-9), Verdict.VERIFY_FAILED),
        (evidence(produced_at=BEFORE), Verdict.VERIFY_FAILED),
        (evidence(produced_at=TOKYO_NOON - timedelta(seconds=1)), Verdict.VERIFY_FAILED),
        (evidence(produced_at=NOON), Verdict.DONE),
        (evidence(produced_at=TOKYO_NOON), Verdict.DONE),
        (evidence(produced_at=AFTER), Verdict.DONE),
    ],
    ids=["missing", "non-zero", "killed", "stale", "stale elsewhere", "same moment", "same moment elsewhere", "later"],
)
def test_missing_failed_or_stale_evidence_is_no_evidence(claim: VerificationEvidence | None, verdict: Verdict) -> None:
    """A session is DONE only with exit code 0 that is not older than the last code change."""
    good = Roles()
    steps = RoleSteps(
        "", lambda *_: ImplementerResult(claim, NOON, ""), good.spec_reviewer, good.quality_reviewer, noon
    )
    history = MemoryHistory()
    perform(ABOUT, steps, history, limits=DEFAULT_LIMITS, now=noon)

    assert verdict == history.verdict


class Verified(RoleSteps):
    """Steps whose verification is somebody else's, and red."""

    def verify(self, progress: Progress) -> VerificationEvidence | str:
        return evidence(2, output="1 failed")


def test_an_independent_verification_outdoes_the_claim() -> None:
    """Where somebody verifies, the implementer's green claim does not help against their red run."""
    good = Roles()
    steps = Verified("", good.implementer, good.spec_reviewer, good.quality_reviewer, noon)
    history = MemoryHistory()
    perform(ABOUT, steps, history, limits=DEFAULT_LIMITS, now=noon)

    assert Verdict.VERIFY_FAILED == history.verdict
    assert 2 == snapshots(history.told)[-1]["verify"]["exit_code"]


# Nothing to merge

HOW = "nothing to merge: the implementer says that the work is there already: see greet.py"


class Unchanged(RoleSteps):
    """Steps that made no commit of their own, as the implementer says that all was there already."""

    commit = "c0ffee"

    def implement(self, step: Step) -> ImplementerResult:
        return ImplementerResult(evidence(), NOON, "see\n greet.py", self.commit, already_done=True)


class Unheard(Unchanged):
    """The same in a host's own process, where nobody looks at a commit."""

    commit = ""


class Mended(Unchanged):
    """The same until the first fix, which changes something."""

    def implement(self, step: Step) -> ImplementerResult:
        return replace(super().implement(step), already_done=step.stage is Stage.RUNNING)


def unchanged(kind: type[Unchanged] = Unchanged, spec_noes: int = 0) -> RoleSteps:
    roles = Roles(spec_noes)
    return kind("PROMPT", roles.implementer, roles.spec_reviewer, roles.quality_reviewer, noon)


@pytest.mark.parametrize("spec_noes", [0, 2])
def test_what_was_there_already_is_reviewed_and_verified_and_waits_for_a_person(spec_noes: int) -> None:
    """The steps and the verdict are those of any session; its last snapshot says that there is nothing to merge."""
    history = MemoryHistory()
    perform(ABOUT, unchanged(spec_noes=spec_noes), history, limits=DEFAULT_LIMITS, now=noon)
    last = snapshots(history.told)[-1]

    assert Story(DEFAULT_LIMITS, spec_noes).told == heard(history.told)
    assert (Verdict.DONE, HOW) == (history.verdict, history.reason)
    assert StatusEntry("i-a1b2", IssueStatus.NEEDS_REVIEW) == history.told[-2]
    assert ([HOW, "close it with `orch issue close i-a1b2`"], []) == (last["fix_list"], last["failed_items"])
    (told,) = sessions_told(entry.content for entry in history.told if isinstance(entry, SnapshotEntry))
    assert f"{HOW}; close it with `orch issue close i-a1b2`" == told.reason


def test_a_claim_is_replayed() -> None:
    """A session that is taken up again after any step ends with the same reason."""
    whole = MemoryHistory()
    perform(ABOUT, unchanged(), whole, limits=DEFAULT_LIMITS, now=noon)
    for recorded in range(len(whole.reports) + 1):
        history = MemoryHistory(whole.reports[:recorded])
        perform(ABOUT, unchanged(), history, limits=DEFAULT_LIMITS, now=noon)

        assert (HOW, whole.told[-2:]) == (history.reason, history.told[-2:])


def test_the_last_implementation_says_whether_there_is_something_to_merge() -> None:
    """A fix that changed something after all is to be merged like any work."""
    history = MemoryHistory()
    perform(ABOUT, unchanged(Mended, spec_noes=1), history, limits=DEFAULT_LIMITS, now=noon)

    assert (Verdict.DONE, "") == (history.verdict, history.reason)
    assert [] == snapshots(history.told)[-1]["fix_list"]


def test_a_claim_that_nobody_looked_into_counts_for_nothing() -> None:
    """In a host's own process there is no commit to compare: its sessions end as they always did."""
    history = MemoryHistory()
    perform(ABOUT, unchanged(Unheard), history, limits=DEFAULT_LIMITS, now=noon)

    assert (Verdict.DONE, "") == (history.verdict, history.reason)


def test_nothing_done_is_nothing_claimed() -> None:
    """Without an implementation there is no evidence."""
    assert "the implementer gave no verification" == claimed_evidence(Progress())


# The session's id


def test_a_sessions_id_is_one_per_issue_and_run() -> None:
    """The same issue and run give the same uuid5 whoever computes it; another issue or run gives another."""
    first = session_id_for("i-a", "1")

    assert first == session_id_for("i-a", "1")
    assert 3 == len({first, session_id_for("i-a", "2"), session_id_for("i-b", "1")})
    assert 5 == uuid.UUID(first).version


def test_a_session_may_be_given_its_id_and_orchestrator() -> None:
    """A host's own ids stand in every snapshot; without them the id comes from the issue and the moment."""
    moments = iter(datetime(2026, 1, 5, 12, 0, second, tzinfo=UTC) for second in range(40))
    tracker = MemoryTracker()
    issue = an_issue(issue_id=tracker.file("x"))
    host, good = SingleSessionOrchestrator(gateway_to(tracker), now=lambda: next(moments)), Roles()

    def ids(**given: str) -> set[tuple[str, str]]:
        tracker.issues[issue.issue_id]["feedback"].clear()
        host.run_issue(
            issue=issue,
            rendered_prompt="",
            implementer=good.implementer,
            spec_reviewer=good.spec_reviewer,
            quality_reviewer=good.quality_reviewer,
            **given,
        )
        rows = map(json.loads, feedback_of(tracker.show_issue(issue.issue_id)))
        return {(row["session_id"], row["orchestrator_id"]) for row in rows}

    ((first, orchestrator_id),) = ids()
    ((second, _),) = ids()

    assert {("mine", "me")} == ids(session_id="mine", orchestrator_id="me")
    assert "orch-main" == orchestrator_id
    assert first != second
