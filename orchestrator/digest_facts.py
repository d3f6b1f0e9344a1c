"""What is known of a night's sessions, for the digest: read from their snapshots, which outlive the worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from orchestrator.models import Stage, Verdict
from orchestrator.snapshot import ENDS, Event, Snapshot

_VERIFIED = (Event.SESSION_DONE, Event.VERIFY_FAILED)


@dataclass(frozen=True)
class StepFact:
    """One step that was done."""

    name: str
    seconds: float


@dataclass(frozen=True)
class SessionFact:
    """One session; `verdict` is None while it runs. `said_no` counts the reviews that failed."""

    session_id: str
    started_at: datetime
    heard_at: datetime
    steps: tuple[StepFact, ...]
    verdict: Verdict | None
    reason: str
    reviews: int
    said_no: int
    command: str

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until it was last heard of."""
        return (self.heard_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class IssueFact:
    """An issue and its sessions since then, oldest first; `status` is None when the tracker does not say.

    `place` is where its work is, `commit` the verified one; `held` is set when only a person starts it again;
    `fix_issue_id` is the issue that goes on with it, and `fix_held` whether only a person starts that one.
    """

    id: str
    title: str
    status: str | None
    sessions: tuple[SessionFact, ...]
    live: bool = False
    held: bool = False
    place: str = ""
    commit: str = ""
    fix_issue_id: str = ""
    fix_held: bool = False

    @property
    def last(self) -> SessionFact:
        """Its last session."""
        return self.sessions[-1]

    @property
    def needs_a_person(self) -> bool:
        """Whether nothing more happens to it unless somebody answers."""
        if self.live or self.status == "closed":
            return False
        return self.held or self.fix_held or self.last.verdict is Verdict.VERIFY_FAILED


def session_of(told: Sequence[Snapshot]) -> SessionFact:
    """A session from its snapshots, in order."""
    first, last = told[0], told[-1]
    steps = [_step(before, after) for before, after in pairwise(told)]
    verified = [snapshot.verify.command for snapshot in told if snapshot.verify and snapshot.event_type in _VERIFIED]
    return SessionFact(
        session_id=first.session_id,
        started_at=_at(first),
        heard_at=_at(last),
        steps=tuple(step for step in steps if step),
        verdict=ENDS.get(last.event_type),
        reason=" ".join("; ".join(last.failed_items).split()),
        reviews=last.attempts.spec + last.attempts.quality,
        said_no=sum(snapshot.event_type in (Event.SPEC_REVIEW_FAIL, Event.QUALITY_REVIEW_FAIL) for snapshot in told),
        command=verified[-1] if verified else "",
    )


def _step(before: Snapshot, after: Snapshot) -> StepFact | None:
    if after.event_type in (Event.OVERFLOW_FIX_CREATED, Event.SESSION_ERROR):
        return None
    seconds = (_at(after) - _at(before)).total_seconds()
    if after.event_type in _VERIFIED:
        return StepFact("verification", seconds)
    if after.stage is Stage.RUNNING:
        return StepFact(after.stage.words, seconds)
    attempt = after.attempts.spec if after.stage in (Stage.SPEC_REVIEW, Stage.SPEC_FIX) else after.attempts.quality
    return StepFact(f"{after.stage.words} {attempt}", seconds)


def _at(snapshot: Snapshot) -> datetime:
    return datetime.fromisoformat(snapshot.timestamp)
