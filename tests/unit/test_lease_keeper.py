"""Keeping a lease: renewed in time, and known to be gone before anybody else can have it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.errors import LeaseLost, RedisUnavailable, SessionStopped, StoppedByHand
from orchestrator.models import Lease, SessionRecord
from orchestrator.session import keeper as lease_keeper
from orchestrator.session.keeper import LeaseKeeper
from tests.support import an_issue, wait_until

LEASE = Lease("i-a1b2", 7, SessionRecord("s-1", "orch-main", an_issue(), 3, 2))
LEASE_S = 40.0
QUARTER = LEASE_S / 4
GRACE_S = QUARTER


class Clock:
    """A clock that goes when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class MemoryLeases:
    """One lease: `ours` until somebody takes it, unless Redis is away. It counts what it is asked."""

    def __init__(self, clock: Clock) -> None:
        self.renewed_at: list[float] = []
        self.asked = 0
        self.released = 0
        self.ours = True
        self.away: Exception | None = None
        self.stop = ""
        self.mute: Exception | None = None
        self._clock = clock

    def renew(self, lease: Lease) -> bool:
        """Whether it is ours."""
        assert lease == LEASE
        self.asked += 1
        if self.away:
            raise self.away
        self.renewed_at.append(self._clock.now)
        return self.ours

    def stop_asked(self, lease: Lease) -> str:
        """Whether a person ended it."""
        assert lease == LEASE
        if self.mute:
            raise self.mute
        return self.stop

    def release(self, lease: Lease) -> None:
        """Give it back."""
        if self.away:
            raise self.away
        self.released += 1


class Bench:
    """A keeper with a clock to turn, and a worker to stop."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.leases = MemoryLeases(self.clock)
        self.stopping = False
        self.looks = 0
        self.keeper = LeaseKeeper(
            self.leases, LEASE, lease_s=LEASE_S, stopping=self._stops, grace_s=GRACE_S, monotonic=self.clock
        )

    def _stops(self) -> bool:
        self.looks += 1
        return self.stopping

    def cut(self) -> None:
        """Wait for the cut."""
        wait_until(self.keeper.cut.is_set, "the step should have been cut")

    def asked(self, times: int) -> None:
        """Wait until Redis was asked so often."""
        wait_until(lambda: self.leases.asked >= times, f"Redis should have been asked {times} times")


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper looks at the clock so often that no test has to wait for it."""
    monkeypatch.setattr(lease_keeper, "TICK_S", 0.005)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_lease_is_renewed_every_quarter(bench: Bench) -> None:
    """A lease is renewed once per quarter of its time, and not before."""
    with bench.keeper:
        for times in (1, 2, 3):
            bench.clock.now = times * QUARTER
            bench.asked(times)

    assert [QUARTER, 2 * QUARTER, 3 * QUARTER] == bench.leases.renewed_at
    assert not bench.keeper.cut.is_set()


def test_a_session_that_ended_keeps_its_lease(bench: Bench) -> None:
    """Leaving without an error releases nothing: the end of the session has freed the slot already."""
    with bench.keeper:
        bench.keeper.check()

    assert 0 == bench.leases.released


@pytest.mark.parametrize("away", [RedisUnavailable("Redis is away"), RuntimeError("a bug in the client")])
def test_it_fences_itself_when_nothing_was_renewed_for_a_lease_time(bench: Bench, away: Exception) -> None:
    """Whatever keeps a renewal from succeeding, after a lease time the step is cut and nothing more is written."""
    bench.leases.away = away
    with bench.keeper:
        bench.clock.now = LEASE_S
        bench.asked(1)
        bench.keeper.hold()
        bench.clock.now = LEASE_S + 0.1
        bench.cut()

        with pytest.raises(LeaseLost, match="could not be renewed for 40 s"):
            bench.keeper.hold()


def test_a_failed_renewal_is_tried_again_before_the_next_quarter(bench: Bench) -> None:
    """When Redis is back a moment later, the lease is renewed in that quarter still."""
    bench.leases.away = RedisUnavailable("Redis is away")
    with bench.keeper:
        bench.clock.now = QUARTER
        bench.asked(1)
        bench.leases.away = None
        bench.clock.now = QUARTER * 1.25
        wait_until(lambda: bench.leases.renewed_at, "the renewal should have been tried again")

    assert [QUARTER * 1.25] == bench.leases.renewed_at


def test_a_process_that_stood_still_writes_nothing_before_it_has_asked(bench: Bench) -> None:
    """A write is refused by the clock alone, even if the renewing thread has not been awake yet."""
    bench.clock.now = LEASE_S + 0.1

    with pytest.raises(LeaseLost):
        bench.keeper.hold()


def test_a_process_that_stood_still_goes_on_if_nobody_took_the_lease(bench: Bench) -> None:
    """Redis knows better than the clock: a late renewal that succeeds is a lease held."""
    with bench.keeper:
        bench.clock.now = 10 * LEASE_S
        bench.asked(1)
        bench.clock.now += QUARTER
        bench.asked(2)

        bench.keeper.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_keeper_that_breaks_cuts_the_step(bench: Bench) -> None:
    """Whatever ends the renewing, the step does not go on without it."""

    def broken() -> bool:
        raise RuntimeError("a bug")

    keeper = LeaseKeeper(bench.leases, LEASE, lease_s=LEASE_S, stopping=broken, grace_s=GRACE_S, monotonic=bench.clock)
    with keeper:
        wait_until(keeper.cut.is_set, "the step should have been cut")


def test_a_lost_lease_cuts_the_step(bench: Bench) -> None:
    """When another worker has the session, the step ends now and the reason is LeaseLost."""
    bench.leases.ours = False
    with bench.keeper:
        bench.clock.now = QUARTER
        bench.cut()

        with pytest.raises(LeaseLost, match="another worker runs this session"):
            bench.keeper.check()


def test_stopping_ends_the_session_at_the_step_boundary(bench: Bench) -> None:
    """A worker that stops does not begin another step; the one under way has its grace."""

    def session() -> None:
        with bench.keeper:
            bench.stopping = True
            bench.keeper.hold()
            assert not bench.keeper.cut.is_set()
            bench.keeper.check()

    with pytest.raises(SessionStopped):
        session()

    assert 1 == bench.leases.released


def test_a_step_is_cut_once_the_grace_is_over(bench: Bench) -> None:
    """A step that does not end in its grace is cut, and the lease is given back on leaving."""

    def session() -> None:
        with bench.keeper:
            bench.stopping = True
            looks = bench.looks
            wait_until(lambda: bench.looks > looks + 1, "the keeper should have seen that the worker stops")
            bench.clock.now = GRACE_S
            bench.asked(1)
            assert not bench.keeper.cut.is_set()
            bench.clock.now = GRACE_S + 0.1
            bench.cut()
            bench.keeper.hold()
            raise SessionStopped("the agent was cut off")

    with pytest.raises(SessionStopped, match="cut off"):
        session()

    assert 1 == bench.leases.released


@pytest.mark.parametrize("leaving", [SystemExit(1), KeyboardInterrupt()])
def test_a_process_that_is_told_to_exit_gives_the_lease_back(bench: Bench, leaving: BaseException) -> None:
    """The next worker need not wait for a lease that nobody holds."""
    with pytest.raises(type(leaving)), bench.keeper:
        raise leaving

    assert 1 == bench.leases.released


def test_an_error_of_the_session_releases_nothing(bench: Bench) -> None:
    """A session that ended in an error is over; there is nothing to give back."""
    with pytest.raises(ValueError, match="no"), bench.keeper:
        raise ValueError("no")

    assert 0 == bench.leases.released


def test_leaving_while_redis_is_away_tells_why_it_left(bench: Bench) -> None:
    """That the lease could not be given back does not hide the reason for leaving."""
    bench.leases.away = RedisUnavailable("Redis is away")
    with pytest.raises(SessionStopped), bench.keeper:
        raise SessionStopped("the worker stops")

    assert 0 == bench.leases.released


def test_a_stop_cuts_the_step_at_once_and_keeps_the_lease(bench: Bench) -> None:
    """No grace; the lease is renewed on, while the work is put aside, and nothing of the step is written."""
    with bench.keeper:
        bench.leases.stop = "stopped by anna@here (wrong issue)"
        bench.cut()
        with pytest.raises(StoppedByHand, match=r"^stopped by anna@here \(wrong issue\)$"):
            bench.keeper.hold()
        bench.clock.now = QUARTER
        bench.asked(1)

    assert 0 == bench.leases.released


def test_a_session_that_was_stopped_before_begins_no_step(bench: Bench) -> None:
    """A worker that takes a stopped session up knows so from its lease, before it has asked."""
    lease = replace(LEASE, stop="stopped by anna@here")
    keeper = LeaseKeeper(bench.leases, lease, lease_s=LEASE_S, stopping=lambda: False, grace_s=GRACE_S)

    with pytest.raises(StoppedByHand):
        keeper.check()


@pytest.mark.parametrize("away", [RedisUnavailable("Redis is away"), RuntimeError("a replica has no master")])
def test_a_stop_is_looked_for_again_after_redis_was_away(bench: Bench, away: Exception) -> None:
    """Whatever makes a look fail, it stops nothing, and the next one is not left out."""
    bench.leases.mute = away
    with bench.keeper:
        looks = bench.looks
        wait_until(lambda: bench.looks > looks + 1, "the keeper should have looked")
        bench.keeper.check()
        bench.leases.stop = "stopped by anna@here"
        bench.leases.mute = None
        bench.cut()


def test_a_lost_lease_counts_before_a_stop(bench: Bench) -> None:
    """Who has lost the session may not put its work aside: another worker may be at it."""
    with bench.keeper:
        bench.leases.stop = "stopped by anna@here"
        bench.cut()
        bench.leases.ours = False
        bench.clock.now = QUARTER
        bench.asked(1)

        with pytest.raises(LeaseLost):
            bench.keeper.hold()
