"""Keep a lease while a step runs, and notice at once when it is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

import structlog

from orchestrator.errors import LeaseLost, RedisUnavailable, SessionStopped, StoppedByHand
from orchestrator.models import Lease

log = structlog.get_logger(__name__)

RENEWALS_PER_LEASE = 4
TICK_S = 0.2


class Renewable(Protocol):
    """The part of the leases that a holder uses."""

    def renew(self, lease: Lease) -> bool:
        """Renew the lease for another lease time; False when it is not ours any more."""

    def stop_asked(self, lease: Lease) -> str:
        """The words of the person who stops our session; empty when none does."""

    def release(self, lease: Lease) -> None:
        """Give the session back."""


class LeaseKeeper:
    """Renews a lease from a thread, as a context manager around a session.

    `cut` is set when the step under way must end now: a person stopped the session, the lease is lost, or was not
    renewed for a whole lease time (then another may have it, so we stop before we are told), or the worker stops and
    its grace is over. `stopping` tells that the worker stops. Leaving with SessionStopped gives the lease back: the
    next worker need not wait. A stopped session keeps its lease until it has put its work aside.

    `leases` must give up on a silent Redis well within a quarter of the lease, or it misses the next renewals.
    """

    def __init__(
        self,
        leases: Renewable,
        lease: Lease,
        *,
        lease_s: float,
        stopping: Callable[[], bool],
        grace_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cut = threading.Event()
        self._leases = leases
        self._lease = lease
        self._lease_s = lease_s
        self._stopping = stopping
        self._grace_s = grace_s
        self._monotonic = monotonic
        self._lost = ""
        self._stop = lease.stop
        self._renewed = monotonic()
        self._failing = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{lease.issue_id}", daemon=True)

    def hold(self) -> None:
        """Before a write: raise LeaseLost when the lease is not ours any more, StoppedByHand when a person ended it.

        Looks at the clock itself: when the whole process stood still, this may be reached before the next renewal.
        """
        if not self._holds():
            raise LeaseLost(f"{self._lease.issue_id}: {self._lost}; nothing more is written here")
        if self._stop:
            raise StoppedByHand(self._stop)

    def check(self) -> None:
        """At a step boundary: raise LeaseLost, StoppedByHand or SessionStopped when the session may not go on here."""
        self.hold()
        if self._stopping():
            raise SessionStopped(f"{self._lease.issue_id}: the worker stops; the session goes on elsewhere")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Around a step: `hold` at its end, instead of anything that it raises without the lease.

        By then others may have ended our agent or changed its worktree, and that is why it failed.
        """
        try:
            yield
        finally:
            self.hold()

    def _holds(self) -> bool:
        if not self._lost and self._monotonic() - self._renewed > self._lease_s:
            self._lost = f"its lease could not be renewed for {self._lease_s:g} s"
        return not self._lost

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if isinstance(error, SessionStopped) or (error is not None and not isinstance(error, Exception)):
            self._release()

    def _release(self) -> None:
        try:
            self._leases.release(self._lease)
        except RedisUnavailable as error:
            # Why we leave matters more, and the lease ends by itself.
            log.warning("lease_not_released", issue=self._lease.issue_id, reason=str(error))

    def _keep(self) -> None:
        try:
            self._renew_until_over()
        finally:
            # However this ended: the lease is not renewed from here on.
            if not self._over.is_set():
                self.cut.set()

    def _renew_until_over(self) -> None:
        quarter = self._lease_s / RENEWALS_PER_LEASE
        due = self._renewed + quarter
        stop_seen: float | None = None
        while not self._over.wait(min(TICK_S, quarter)):
            now = self._monotonic()
            if now >= due:
                # A failed renewal is tried again soon: Redis may be back just before the lease is over.
                due = now + (quarter if self._renew(now) else quarter / RENEWALS_PER_LEASE)
            self._look_for_stop()
            if self._stopping() and stop_seen is None:
                stop_seen = now
            if not self._holds() or (stop_seen is not None and now - stop_seen > self._grace_s):
                return

    def _look_for_stop(self) -> None:
        """Cut the step when a person ended the session. Not while renewals fail: those must not wait for this."""
        if self._failing or self._stop:
            return
        try:
            self._stop = self._leases.stop_asked(self._lease)
        except Exception as error:  # noqa: BLE001 - the next renewal says what is wrong, and we look again in a moment
            log.debug("not_looked_for_stop", issue=self._lease.issue_id, reason=str(error))
        if self._stop:
            self.cut.set()

    def _renew(self, now: float) -> bool:
        try:
            if self._leases.renew(self._lease):
                self._renewed = now
                self._failing = False
                return True
            self._lost = "another worker runs this session now"
        except Exception as error:  # noqa: BLE001 - whatever keeps Redis away, what counts is how long
            if not self._failing:
                log.warning("lease_not_renewed", issue=self._lease.issue_id, reason=str(error))
            self._failing = True
        return False
