"""The lifecycle of one session: implement, pass the spec review, pass the quality review, verify.

Deciding is pure: `session` is a generator that yields steps and receives reports, and playing recorded reports back
into it *is* the recovery. Doing is a callable that turns a step into a report. Telling is a list of entries for the
tracker, recorded together with the report and delivered by the owner of the history.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from orchestrator.agent_roles import Implementer, Reviewer, RoleSteps
from orchestrator.errors import (
    ALREADY_TOLD,
    ENDS_RUN_ONLY,
    HistoryMismatch,
    StoppedByHand,
)
from orchestrator.models import (
    DEFAULT_LIMITS,
    QUALITY_MAX_ATTEMPTS,
    SPEC_MAX_ATTEMPTS,
    Entry,
    IssueContext,
    IssueTracker,
    Limits,
    Progress,
    Report,
    SessionOutcome,
    Stage,
    Step,
    Verdict,
    session_id_for,
    utc_now,
)
from orchestrator.publish.entries import (
    About,
    error_entries,
    opening_entries,
    reason_of,
    step_entries,
    tell,
    verdict_entries,
)

__all__ = [
    "QUALITY_MAX_ATTEMPTS",
    "SPEC_MAX_ATTEMPTS",
    "Doer",
    "History",
    "Path",
    "Session",
    "SingleSessionOrchestrator",
    "ToldAtOnce",
    "advance",
    "paths",
    "perform",
    "session",
    "under_way",
]

Session = Generator[Step, Report, Verdict]

_NO_TIME = datetime.min.replace(tzinfo=UTC)


def session(limits: Limits = DEFAULT_LIMITS) -> Session:
    """Implement, pass the spec review, pass the quality review, verify."""
    yield Step(Stage.RUNNING)
    for review, fix, limit in (
        (Stage.SPEC_REVIEW, Stage.SPEC_FIX, limits.spec),
        (Stage.QUALITY_REVIEW, Stage.QUALITY_FIX, limits.quality),
    ):
        for attempt in range(1, limit + 1):
            report = yield Step(review, attempt)
            if report.passed:
                break
            if attempt == limit:
                return Verdict.OVERFLOW
            yield Step(fix, attempt, report.fix_list)
    report = yield Step(Stage.VERIFICATION)
    return Verdict.DONE if report.passed else Verdict.VERIFY_FAILED


def advance(life: Session, report: Report | None = None) -> Step | Verdict:
    """The step or the verdict that follows a report; without one, the first step."""
    try:
        return next(life) if report is None else life.send(report)
    except StopIteration as ended:
        verdict: Verdict = ended.value
        return verdict


def under_way(passed: Iterable[bool], limits: Limits) -> Step:
    """The step of a session whose reports so far passed or failed like this; the last one when no step follows."""
    life = session(limits)
    step = advance(life)
    assert isinstance(step, Step)
    for answer in passed:
        following = advance(life, Report(step.stage, step.attempt, _NO_TIME, answer))
        if not isinstance(following, Step):
            break
        step = following
    return step


@dataclass(frozen=True)
class Path:
    """One way through the lifecycle: its steps, and where it ended."""

    steps: tuple[Step, ...]
    verdict: Verdict


def paths(limits: Limits = DEFAULT_LIMITS) -> Iterator[Path]:
    """Every path there is; 16 at the default limits. The state diagram and the tests are made from this."""
    pending: list[tuple[bool, ...]] = [()]
    while pending:
        answers = pending.pop()
        given = iter(answers)
        steps: list[Step] = []
        life = session(limits)
        following = advance(life)
        while isinstance(following, Step):
            steps.append(following)
            fallible = following.stage in (Stage.SPEC_REVIEW, Stage.QUALITY_REVIEW, Stage.VERIFICATION)
            passed = next(given, None) if fallible else True
            if passed is None:
                pending += [(*answers, False), (*answers, True)]
                break
            following = advance(life, Report(following.stage, following.attempt, _NO_TIME, passed))
        else:
            yield Path(tuple(steps), following)


Doer = Callable[[Step, Progress], Report]
"""Does one step and gives its report. Any error it raises ends the session in SESSION_ERROR."""


class History(Protocol):
    """The recorded reports of one session, in order, and the entries for the tracker that go with them."""

    def recorded(self) -> Sequence[Report]:
        """All reports so far."""

    def record(self, report: Report, entries: Iterable[Entry]) -> None:
        """Record a step's report and its entries together. The first record of a step holds. Raises `LeaseLost`."""

    def close(self, verdict: Verdict, entries: Iterable[Entry], *, reason: str = "") -> str | None:
        """Record the end, once, and why, for people; gives the [FIX] issue's id if known yet. Raises `LeaseLost`."""


def perform(
    about: About,
    do: Doer,
    history: History,
    *,
    limits: Limits,
    now: Callable[[], datetime],
    stopped: Callable[[StoppedByHand], StoppedByHand] = lambda by_hand: by_hand,
) -> SessionOutcome:
    """Replay what is recorded, then do, record and tell one step after another, to the verdict.

    Running it again is harmless: a recorded step is not done again, and of two records of a step the first one holds.
    An error that ends a session early is told as SESSION_ERROR and raised again, except where the session goes on
    elsewhere from what is recorded (ENDS_RUN_ONLY). `stopped` clears up after a step that
    a person ended, and gives the error to tell instead.
    """
    progress = Progress()
    try:
        recorded = iter(history.recorded())
        life = session(limits)
        following = advance(life)
        while isinstance(following, Step):
            report = _next(recorded, about, following)
            if report is None:
                try:
                    report = do(following, progress)
                except StoppedByHand as by_hand:
                    raise stopped(by_hand) from by_hand
                history.record(report, step_entries(about, progress.after(report), report))
            progress = progress.after(report)
            following = advance(life, report)
        _next(recorded, about, following)
        entries = verdict_entries(about, progress, following, at=now())
        fix_issue_id = history.close(following, entries, reason=progress.why(following))
        return SessionOutcome(following.value, fix_issue_id)  # type: ignore[arg-type] # the lifecycle gives no ERROR
    except ENDS_RUN_ONLY:
        raise
    except Exception as error:
        history.close(Verdict.ERROR, error_entries(about, progress, error, at=now()), reason=reason_of(error))
        error.add_note(ALREADY_TOLD)
        raise


def _next(recorded: Iterator[Report], about: About, following: Step | Verdict) -> Report | None:
    """The next recorded report, None at the end. Raises HistoryMismatch when it is not of the step that follows."""
    report = next(recorded, None)
    if report is None:
        return None
    if isinstance(following, Verdict):
        expected = f"ends {following}"
    elif (report.stage, report.attempt) == (following.stage, following.attempt):
        return report
    else:
        expected = f"asks for {following.stage} {following.attempt}"
    raise HistoryMismatch(
        f"{about.issue.issue_id}: the history of session {about.session_id} has {report.stage} {report.attempt}"
        f" where the lifecycle {expected}: limits or program changed meanwhile."
        f" Start it anew with `orch enqueue {about.issue.issue_id}`."
    )


class ToldAtOnce:
    """The history of a session whose host has the tracker at hand: nothing is kept, everything is told at once."""

    def __init__(self, tracker: IssueTracker) -> None:
        self._tracker = tracker

    def recorded(self) -> Sequence[Report]:
        """Nothing: such a session does not outlive its host."""
        return ()

    def record(self, report: Report, entries: Iterable[Entry]) -> None:
        """Tell the entries."""
        self.tell(entries)

    def close(self, verdict: Verdict, entries: Iterable[Entry], *, reason: str = "") -> str | None:
        """Tell the entries and give the [FIX] issue's id if one was made."""
        return self.tell(entries)

    def tell(self, entries: Iterable[Entry]) -> str | None:
        """Tell the entries in order and give the [FIX] issue's id if one was made."""
        made = [tell(entry, self._tracker) for entry in entries]
        return next((fix_id for fix_id in made if fix_id), None)


class SingleSessionOrchestrator:
    """Sessions in the host's own process, one issue at a time, with the tracker at hand."""

    SPEC_MAX_ATTEMPTS = SPEC_MAX_ATTEMPTS
    QUALITY_MAX_ATTEMPTS = QUALITY_MAX_ATTEMPTS

    def __init__(self, gateway: IssueTracker, *, now: Callable[[], datetime] = utc_now) -> None:
        self._gateway = gateway
        self._now = now

    def run_issue(
        self,
        *,
        issue: IssueContext,
        rendered_prompt: str,
        implementer: Implementer,
        spec_reviewer: Reviewer,
        quality_reviewer: Reviewer,
        session_id: str | None = None,
        orchestrator_id: str = "orch-main",
    ) -> SessionOutcome:
        """Run one session to its end. An error after its start is told as SESSION_ERROR and raised again."""
        started = self._now()
        about = About(issue, session_id or session_id_for(issue.issue_id, started.isoformat()), orchestrator_id)
        history = ToldAtOnce(self._gateway)
        history.tell(opening_entries(about, at=started))
        do = RoleSteps(rendered_prompt, implementer, spec_reviewer, quality_reviewer, self._now)
        return perform(about, do, history, limits=DEFAULT_LIMITS, now=self._now)
