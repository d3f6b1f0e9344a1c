"""What nobody holds: issues in progress that Redis does not know, and agents whose worker is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from orchestrator.errors import InvalidMCPResponseError, TrackerRefused
from orchestrator.issue import feedback_of
from orchestrator.models import Claim
from orchestrator.poll.claims import Claims
from orchestrator.snapshot import ENDS, read_snapshot

log = structlog.get_logger(__name__)


class Tracker(Protocol):
    """The part of the tracker that the sweep asks."""

    def list_issues(self, *, status: str) -> Sequence[object]:
        """The issues of this status, without content or feedback."""

    def show_issue(self, issue_id: str) -> Mapping[str, object]:
        """One issue, with the feedback it gave, newest first."""


class Memory(Protocol):
    """The part of the leases that the sweep needs."""

    def met(self) -> str | None:
        """Which installation this Redis served last."""

    def meet(self, installation: str) -> None:
        """From now on it is this one."""

    def unheld(self, issue_ids: Sequence[str]) -> list[str]:
        """Those that are neither in flight, nor asked for, nor still to be told of."""

    def want(self, issue_id: str) -> None:
        """Have it run next, as `orch enqueue` does."""


@dataclass(frozen=True)
class Sweep:
    """One look for issues that are in progress under our name while Redis knows nothing of them.

    They are what is left of sessions when Redis has lost its data. `looked_at` keeps what was found not to be ours;
    handed on to the next sweep, it saves looking again at what has not changed.
    """

    tracker: Tracker
    memory: Memory
    orchestrator_id: str
    looked_at: dict[str, object] = field(default_factory=dict)

    def __call__(self) -> list[str]:
        """The issues found, which are asked for from now on. Running it again is harmless: a claim has one winner.

        After Redis has lost its memory this finds nothing yet: those who ran the sessions may be at work for another
        lease. The next sweep comes later than that.
        """
        if self._forgotten():
            return []
        listed = self.tracker.list_issues(status="in_progress")
        rows = {str(row["id"]): row for row in listed if isinstance(row, Mapping) and "id" in row}
        unheld = self.memory.unheld(list(rows))
        lost = [
            issue_id for issue_id in unheld if self.looked_at.get(issue_id) != rows[issue_id] and self._ours(issue_id)
        ]
        self.looked_at.clear()
        self.looked_at.update((issue_id, rows[issue_id]) for issue_id in unheld if issue_id not in lost)
        for issue_id in lost:
            log.warning("session_lost", issue=issue_id, reason="Redis knows nothing of it; it goes on from its branch")
            self.memory.want(issue_id)
        return lost

    def _forgotten(self) -> bool:
        """Whether Redis has just turned out not to know us. It is said once, because from then on it does."""
        last = self.memory.met()
        if last == self.orchestrator_id:
            return False
        if last is None:
            reason = "it was emptied or replaced, so what sessions did is forgotten"
        else:
            reason = f"it served {last} last; only one control side may work on a project"
        happens = "issues in progress are found from the tracker within minutes, and go on from their branches"
        log.error("redis_does_not_know_us", reason=reason, next=happens, see="orch doctor")
        self.memory.meet(self.orchestrator_id)
        return True

    def _ours(self, issue_id: str) -> bool:
        """Whether a session of ours was the last to have it, and did not end. Nobody else's issue is touched."""
        try:
            issue = self.tracker.show_issue(issue_id)
        except (TrackerRefused, InvalidMCPResponseError) as error:
            log.info("not_looked_at", issue=issue_id, reason=str(error))
            return False
        return issue.get("status") == "in_progress" and unfinished(issue, self.orchestrator_id)


def unfinished(issue: Mapping[str, object], orchestrator_id: str | None) -> bool:
    """Whether a session of this name was the last to have a shown issue, and did not end."""
    told = [snapshot for content in feedback_of(issue) if (snapshot := read_snapshot(content))]
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
        """Start the session again, or end it; whether it was started."""
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
