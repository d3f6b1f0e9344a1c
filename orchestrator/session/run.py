"""One session of the engine, from its lease to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from orchestrator.errors import ENDS_RUN_ONLY, OrchestratorError, StoppedByHand, WorkspaceError
from orchestrator.models import Lease, Limits, Progress, Verdict
from orchestrator.publish.entries import About, error_entries
from orchestrator.session.keeper import LeaseKeeper, Renewable
from orchestrator.session_loop import Doer, History, perform

log = structlog.get_logger(__name__)


class SessionLeases(Renewable, Protocol):
    """The part of the leases that running a session uses."""

    def acquire(self, issue_id: str, owner: str) -> Lease | None:
        """Take an opened session over."""


@dataclass(frozen=True)
class Sessions:
    """The sessions of one worker process. `owner` is its name; `doer` makes what does a session's steps.

    `put_aside` ends what is left of a session on this host and gives the refs that keep its unfinished work.

    `renewals` renews the leases. Give it a client of little patience, or a renewal that hangs makes it miss the rest;
    without it `leases` does this too.
    """

    leases: SessionLeases
    history: Callable[[Lease], History]
    doer: Callable[[Lease, LeaseKeeper], Doer]
    put_aside: Callable[[Lease], list[str]]
    owner: str
    lease_s: float
    grace_s: float
    stopping: Callable[[], bool]
    now: Callable[[], datetime]
    renewals: Renewable | None = None

    def run(self, issue_id: str) -> None:
        """Run the issue's session from its last recorded step to its verdict.

        Leaves quietly when there is nothing to run here: another worker has the lease, the session is over, Redis is
        away, or the worker stops (then the lease is given back). A session that a person stopped ends here, with its
        work put aside. Raises what else ended the session in SESSION_ERROR.
        """
        with structlog.contextvars.bound_contextvars(issue=issue_id):
            try:
                lease = self.leases.acquire(issue_id, self.owner)
                if lease is None:
                    log.info("nothing_to_run")
                    return
                with structlog.contextvars.bound_contextvars(session=lease.record.session_id):
                    self._run(lease)
            except ENDS_RUN_ONLY as left:
                log.info("session_left", reason=str(left))

    def _run(self, lease: Lease) -> None:
        keeper = LeaseKeeper(
            self.renewals or self.leases,
            lease,
            lease_s=self.lease_s,
            stopping=self.stopping,
            grace_s=self.grace_s,
        )
        limits = Limits(lease.record.spec_limit, lease.record.quality_limit)
        with keeper:
            log.info("session_started", token=lease.token)
            try:
                outcome = perform(
                    _about(lease),
                    self.doer(lease, keeper),
                    self.history(lease),
                    limits=limits,
                    now=self.now,
                    stopped=lambda by_hand: self._put_aside(lease, str(by_hand)),
                )
                log.info("session_ended", verdict=outcome.final_state)
            except StoppedByHand as stopped:
                log.info("session_stopped", reason=str(stopped))
            except OrchestratorError as error:
                if not isinstance(error, ENDS_RUN_ONLY):
                    log.warning("session_failed", verdict=Verdict.ERROR, reason=str(error))
                raise

    def _put_aside(self, lease: Lease, stop: str) -> StoppedByHand:
        """Put the unfinished work aside; the error that tells who stopped the session and where the work is."""
        try:
            refs = self.put_aside(lease)
        except WorkspaceError as error:
            return StoppedByHand(f"{stop}; its unfinished work stays in its worktree: {error}")
        kept = f"unfinished work is at {', '.join(refs)}" if refs else "no work is unfinished"
        return StoppedByHand(f"{stop}; {kept} in the clone of {self.owner.rpartition('/')[0]}")

    def give_up(self, issue_id: str) -> None:
        """End a session without a worker: it was stopped, or taken up again too often without getting anywhere."""
        lease = self.leases.acquire(issue_id, self.owner)
        if lease is None:
            return
        error = self._put_aside(lease, lease.stop) if lease.stop else _rescued_too_often(issue_id)
        entries = error_entries(_about(lease), Progress(), error, at=self.now())
        self.history(lease).close(Verdict.ERROR, entries, reason=str(error))


def _rescued_too_often(issue_id: str) -> OrchestratorError:
    return OrchestratorError(
        f"{issue_id}: its worker died again and again in the same step; look at `orch history {issue_id}`, "
        f"then start it anew with `orch enqueue {issue_id}`"
    )


def _about(lease: Lease) -> About:
    return About(lease.record.issue, lease.record.session_id, lease.record.orchestrator_id)
