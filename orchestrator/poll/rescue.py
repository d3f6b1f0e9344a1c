"""Recover work without an owner: sessions whose worker fell silent, and issues that Redis has forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from orchestrator.errors import InvalidMCPResponseError, TrackerRefused
from orchestrator.issue import Issue
from orchestrator.models import Claim, Entry, IssueStatus, Refusal, SessionRecord
from orchestrator.snapshot import ENDS, read_snapshot

log = structlog.get_logger(__name__)


class Claims(Protocol):
    """The leases as claiming and recovering ask them. Every method raises `RedisUnavailable`."""

    def free(self) -> int:
        """The number of sessions that could start now; 0 while orch is paused."""

    def expired(self, *, opened_only: bool = False) -> list[Claim]:
        """Sessions whose holder fell silent and, unless `opened_only`, claims too."""

    def wanted(self) -> list[str]:
        """The issues that are to run next because a person, or a sweep, asked for them."""

    def want(self, issue_id: str) -> None:
        """Have it run next, as `orch enqueue` does."""

    def answer(self, issue_id: str, answer: str, *, done: bool) -> None:
        """Record what became of a wanted issue."""

    def claim(self, issue_id: str, *, forced: bool = False) -> Claim | Refusal:
        """Win an issue that is free, if a slot is free too."""

    def open(self, claim: Claim, record: SessionRecord, entries: Iterable[Entry]) -> None:
        """Make the claim a session. Raises `LeaseLost`, or `StoppedByHand` when it was stopped meanwhile."""

    def abandon(self, claim: Claim) -> None:
        """Give a claim back."""

    def unheld(self, issue_ids: Sequence[str]) -> list[str]:
        """The ones among these that are neither in flight, nor wanted, nor still to be told of."""

    def met(self) -> str | None:
        """The installation that this Redis served last."""

    def meet(self, installation: str) -> None:
        """Record that it serves this installation from now on."""


@dataclass(frozen=True)
class Sweep:
    """One look for issues that are in progress under our name while Redis knows nothing of them.

    They are what is left of sessions when Redis has lost its data. `in_progress` lists the tracker's issues of that
    status, `show` gives one of them with its feedback. `looked_at` keeps what was found not to be ours; handed on to
    the next sweep, it saves looking again at what has not changed.
    """

    in_progress: Callable[[], Sequence[Issue]]
    show: Callable[[str], Issue]
    claims: Claims
    orchestrator_id: str
    looked_at: dict[str, object] = field(default_factory=dict)

    def __call__(self) -> list[str]:
        """Have the lost issues run next, and give their ids. Running it again is harmless: a claim has one winner.

        After Redis has lost its memory this finds nothing yet: the workers of those sessions may be at work for
        another lease. The next sweep comes later than that.
        """
        if self._forgotten():
            return []
        rows = {issue.id: issue.record for issue in self.in_progress()}
        unheld = self.claims.unheld(list(rows))
        lost = [
            issue_id for issue_id in unheld if self.looked_at.get(issue_id) != rows[issue_id] and self._ours(issue_id)
        ]
        self.looked_at.clear()
        self.looked_at.update((issue_id, rows[issue_id]) for issue_id in unheld if issue_id not in lost)
        for issue_id in lost:
            log.warning("session_lost", issue=issue_id, reason="Redis knows nothing of it; it goes on from its branch")
            self.claims.want(issue_id)
        return lost

    def _forgotten(self) -> bool:
        """True when Redis turns out not to know us. It is said once, because from then on it does."""
        last = self.claims.met()
        if last == self.orchestrator_id:
            return False
        if last is None:
            reason = "it was emptied or replaced, so what sessions did is forgotten"
        else:
            reason = f"it served {last} last; only one control side may work on a project"
        happens = "issues in progress are found from the tracker within minutes, and go on from their branches"
        log.error("redis_does_not_know_us", reason=reason, hint=f"{happens}; see `orch doctor`")
        self.claims.meet(self.orchestrator_id)
        return True

    def _ours(self, issue_id: str) -> bool:
        """True when a session of ours was the last to have it, and did not end. Other issues are left alone."""
        try:
            issue = self.show(issue_id)
        except (TrackerRefused, InvalidMCPResponseError) as error:
            log.info("not_looked_at", issue=issue_id, reason=str(error))
            return False
        return issue.status is IssueStatus.IN_PROGRESS and unfinished(issue, self.orchestrator_id)


def unfinished(issue: Issue, orchestrator_id: str | None) -> bool:
    """True when a session of this installation was the last to have the issue, and did not end."""
    told = [snapshot for content in issue.feedback if (snapshot := read_snapshot(content))]
    if not told or told[0].orchestrator_id != orchestrator_id:
        return False
    # All of that session's snapshots: those of one moment may come in any order.
    return not any(snapshot.event_type in ENDS for snapshot in told if snapshot.session_id == told[0].session_id)


@dataclass(frozen=True)
class Rescue:
    """One look for sessions whose holder fell silent. It needs no tracker, so one that hangs does not hold it up.

    `start` enqueues a session; `give_up` ends one that was stopped, or rescued more than `max_rescues` times.
    """

    claims: Claims
    start: Callable[[str, int], None]
    give_up: Callable[[str], None]
    max_rescues: int

    def __call__(self) -> list[str]:
        """Take them up; the ids started."""
        return [claim.issue_id for claim in self.claims.expired(opened_only=True) if self.take_up(claim)]

    def take_up(self, claim: Claim) -> bool:
        """Start the session again, or end it; True when it was started."""
        if claim.stop:
            self.give_up(claim.issue_id)
            return False
        if claim.rescues > self.max_rescues:
            log.warning("rescued_too_often", issue=claim.issue_id, rescues=claim.rescues)
            self.give_up(claim.issue_id)
            return False
        log.info("session_rescued", issue=claim.issue_id, rescues=claim.rescues)
        self.start(claim.issue_id, claim.token)
        return True
