"""A session as its snapshots tell it: those in Redis, or those in feedback, which agents may write too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise, takewhile

from orchestrator.models import Limits, Stage, Step, Verdict
from orchestrator.session_loop import under_way
from orchestrator.snapshot import ENDS, Event, Snapshot, Status, read_snapshot

_VERIFIED = (Event.SESSION_DONE, Event.VERIFY_FAILED)
_NO_STEP = (Event.OVERFLOW_FIX_CREATED, Event.SESSION_ERROR)
_SAID_NO = (Event.SPEC_REVIEW_FAIL, Event.QUALITY_REVIEW_FAIL)
_SPEC = (Stage.SPEC_REVIEW, Stage.SPEC_FIX)
_QUALITY = (Stage.QUALITY_REVIEW, Stage.QUALITY_FIX)


@dataclass(frozen=True)
class Moment:
    """One snapshot, and how long after the one before it."""

    snapshot: Snapshot
    after_s: float

    @property
    def at(self) -> datetime:
        """The time of the snapshot."""
        return datetime.fromisoformat(self.snapshot.timestamp)


@dataclass(frozen=True)
class StepTold:
    """One step that was done."""

    name: str
    seconds: float


@dataclass(frozen=True)
class SessionTold:
    """One session; `verdict` is None until it has ended. `said_no` counts the reviews that failed, `by` ran it.

    `command` is the verification that we ran last, and empty when none was run.
    """

    session_id: str
    started_at: datetime
    heard_at: datetime
    steps: tuple[StepTold, ...] = ()
    verdict: Verdict | None = None
    reason: str = ""
    spec: int = 0
    quality: int = 0
    said_no: int = 0
    command: str = ""
    by: str = ""
    moments: tuple[Moment, ...] = ()

    @property
    def seconds(self) -> float:
        """Its duration, until it was last heard of."""
        return max(0.0, (self.heard_at - self.started_at).total_seconds())

    @property
    def reviews(self) -> int:
        """The number of its reviews."""
        return self.spec + self.quality

    def under_way(self, limits: Limits) -> Step:
        """The step that the lifecycle asks for after these snapshots, or the last one when none follows."""
        told = [moment.snapshot for moment in self.moments]
        steps = (it for it in told if it.event_type is not Event.SESSION_START and it.event_type not in ENDS)
        return under_way((it.status is Status.PASS for it in steps), limits)


def step_name(stage: Stage, attempt: int, limit: int | None = None) -> str:
    """A step as people call it: `implement`, `spec review 2`, or `spec review 2/3` where the limit is known."""
    if stage not in (*_SPEC, *_QUALITY):
        return stage.words
    return f"{stage.words} {attempt}/{limit}" if limit else f"{stage.words} {attempt}"


def limit_of(stage: Stage, limits: Limits) -> int | None:
    """The most reviews of this kind that a session may ask for; None for a step that is no review and no fix."""
    return limits.spec if stage in _SPEC else limits.quality if stage in _QUALITY else None


def sessions_told(contents: Iterable[str]) -> tuple[SessionTold, ...]:
    """The sessions, oldest first, in texts of which some are snapshots, oldest first."""
    snapshots = [snapshot for content in contents if (snapshot := read_snapshot(content))]
    runs = groupby(snapshots, key=lambda snapshot: snapshot.session_id)
    return tuple(_session(list(run)) for _, run in runs)


def since_last(feedback: Iterable[str]) -> list[str]:
    """The feedback since the last snapshot; newest first, both."""
    return list(takewhile(lambda content: read_snapshot(content) is None, feedback))


def _session(told: Sequence[Snapshot]) -> SessionTold:
    moments = [Moment(told[0], 0.0)]
    moments += [Moment(after, max(0.0, (_at(after) - _at(before)).total_seconds())) for before, after in pairwise(told)]
    # Snapshots of one moment may come in any order, so the end need not be the last one.
    end = next((snapshot for snapshot in reversed(told) if snapshot.event_type in ENDS), None)
    last = told[-1]
    verified = [snapshot.verify.command for snapshot in told if snapshot.verify and snapshot.event_type in _VERIFIED]
    return SessionTold(
        session_id=last.session_id,
        started_at=_at(told[0]),
        heard_at=_at(last),
        steps=tuple(_step(moment) for moment in moments[1:] if moment.snapshot.event_type not in _NO_STEP),
        verdict=ENDS[end.event_type] if end else None,
        reason=" ".join("; ".join((end or last).reasons).split()),
        spec=last.attempts.spec,
        quality=last.attempts.quality,
        said_no=sum(snapshot.event_type in _SAID_NO for snapshot in told),
        command=verified[-1] if verified else "",
        by=last.orchestrator_id,
        moments=tuple(moments),
    )


def _step(moment: Moment) -> StepTold:
    after = moment.snapshot
    stage = Stage.VERIFICATION if after.event_type in _VERIFIED else after.stage
    attempt = after.attempts.spec if stage in _SPEC else after.attempts.quality
    return StepTold(step_name(stage, attempt), moment.after_s)


def _at(snapshot: Snapshot) -> datetime:
    return datetime.fromisoformat(snapshot.timestamp)
