"""The engine's core over a real Redis: one project of its own, a tracker in memory, roles in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.adapters.redis import Keys, connect
from orchestrator.adapters.redis.controls import RedisControls
from orchestrator.adapters.redis.history import RedisHistory, RedisOutbox
from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.agent_roles import RoleSteps
from orchestrator.memory import MemoryTracker
from orchestrator.models import (
    Claim,
    Holding,
    IssueTracker,
    Lease,
    Limits,
    Progress,
    Report,
    SessionRecord,
    Stage,
    Untold,
    Verdict,
)
from orchestrator.poll.claim import Poll
from orchestrator.poll.rescue import Rescue
from orchestrator.publish import publish
from orchestrator.publish.entries import About, step_entries
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session.run import Sessions
from orchestrator.session_loop import Doer, History
from orchestrator.snapshot import read_snapshot
from tests.support import NOON, Roles, an_issue, gateway_to, noon

LEASE_S = 30.0
ERRORS_IN_A_ROW = 3
MAX_RESCUES = 3


def doing(do: Doer) -> Callable[[Lease, LeaseKeeper], Doer]:
    """The same doer for every session."""
    return lambda _lease, _keeper: do


def saying_yes(roles: Roles | None = None) -> Doer:
    """The steps of a session as the roles do them."""
    asked = roles or Roles()
    return RoleSteps("do it", asked.implementer, asked.spec_reviewer, asked.quality_reviewer, noon)


def a_report(stage: Stage = Stage.RUNNING, attempt: int = 1, **changes: Any) -> Report:
    """The smallest report of a step."""
    return replace(Report(stage, attempt, NOON), **changes)


@dataclass
class Engine:
    """One project over one Redis. Every property makes things anew, with a connection of their own."""

    url: str
    project: str
    tracker: MemoryTracker = field(default_factory=MemoryTracker)
    started: list[tuple[str, int]] = field(default_factory=list)
    wakes: list[None] = field(default_factory=list)
    client: Any = None
    gateway: IssueTracker = None  # type: ignore[assignment] # set below, over the tracker

    def __post_init__(self) -> None:
        self.keys = Keys(self.project)
        self.client = self.client or connect(self.url)
        self.gateway = self.gateway or gateway_to(self.tracker)

    def elsewhere(self) -> Engine:
        """The same project and tracker, as another process sees them."""
        return replace(self, client=connect(self.url))

    @property
    def leases(self) -> RedisLeases:
        """Who runs what."""
        return RedisLeases(self.client, self.keys, lease_s=LEASE_S)

    @property
    def controls(self) -> RedisControls:
        """Whether new sessions may start."""
        return RedisControls(self.client, self.keys)

    @property
    def outbox(self) -> RedisOutbox:
        """What the tracker has still to be told."""
        return RedisOutbox(self.client, self.keys)

    def history(self, lease: Lease) -> RedisHistory:
        """The session's history."""
        return RedisHistory(
            self.client, self.keys, lease, error_limit=ERRORS_IN_A_ROW, wake=lambda: self.wakes.append(None)
        )

    def sessions(
        self,
        doer: Callable[[Lease, LeaseKeeper], Doer] | None = None,
        *,
        history: Callable[[Lease], History] | None = None,
        stopping: Callable[[], bool] = lambda: False,
        lease_s: float = LEASE_S,
        leases: RedisLeases | None = None,
        renewals: RedisLeases | None = None,
        put_aside: Callable[[Lease], list[str]] = lambda _lease: [],
    ) -> Sessions:
        """What runs sessions; by default every role says yes."""
        return Sessions(
            leases=leases or self.leases,
            history=history or self.history,
            doer=doer or doing(saying_yes()),
            put_aside=put_aside,
            owner=f"test/{os.getpid()}/{threading.get_ident()}",
            lease_s=lease_s,
            grace_s=0.0,
            stopping=stopping,
            now=noon,
            renewals=renewals,
        )

    @property
    def rescue(self) -> Rescue:
        """One look for sessions whose holder fell silent."""
        return Rescue(
            self.leases,
            lambda issue_id, token: self.started.append((issue_id, token)),
            self.sessions().give_up,
            MAX_RESCUES,
        )

    def poll(self, **changes: Any) -> list[str]:
        """One look at the tracker."""
        look = Poll(
            tracker=self.gateway,
            claims=self.leases,
            start=lambda issue_id, token: self.started.append((issue_id, token)),
            rescue=self.rescue,
            orchestrator_id="orch-main",
            limits=Limits(),
        )
        return replace(look, **changes)()

    def publish(self) -> int:
        """Tell the tracker what waits."""
        return publish(self.outbox, self.gateway)

    def held(self, issue_id: str) -> Holding:
        """What Redis knows of the issue, which is something."""
        holding = self.leases.holding(issue_id)
        assert holding is not None
        return holding

    def untold(self) -> Untold:
        """The next thing to be told, of which there is one."""
        untold = self.outbox.next()
        assert untold is not None
        return untold

    def slots(self, count: int, worker: str = "worker@test") -> None:
        """A session worker lives and has so many slots."""
        self.leases.announce(worker, count, for_s=600)

    def claimed(self, issue_id: str) -> Claim:
        """A claim, won."""
        won = self.leases.claim(issue_id)
        assert isinstance(won, Claim), won
        return won

    def opened(self, issue_id: str = "i-a1b2") -> Claim:
        """A session that a worker could acquire; nothing is told of its opening."""
        claim = self.claimed(issue_id)
        self.leases.open(claim, a_record(issue_id), [])
        return claim

    def acquired(self, issue_id: str = "i-a1b2", owner: str = "a worker") -> Lease:
        """The lease on an opened session."""
        lease = self.leases.acquire(issue_id, owner)
        assert lease is not None
        return lease

    def running(self, issue_id: str = "i-a1b2") -> Lease:
        """A session of which we are the worker."""
        self.opened(issue_id)
        return self.acquired(issue_id)

    def fall_silent(self, issue_id: str) -> None:
        """As if the issue's holder had not been heard of for a lease time."""
        assert self.client.zadd(self.keys("inflight"), {issue_id: 1}, xx=True, ch=True)

    def ended(self, issue_id: str, verdict: Verdict = Verdict.DONE) -> None:
        """A whole session, which ends so and of which the tracker knows all."""
        lease = self.running(issue_id)
        self.history(lease).close(verdict, [])

    def inflight(self) -> set[str]:
        """The issues that are claimed or running."""
        return set(self.client.zrange(self.keys("inflight"), 0, -1))

    def status(self, issue_id: str) -> str:
        """The issue's status in the tracker."""
        return str(self.tracker.issues[issue_id]["status"])

    def events(self, issue_id: str) -> list[str]:
        """What the tracker was told of the issue's sessions, oldest first."""
        rows = reversed(self.tracker.issues[issue_id]["feedback"])
        snapshots = [read_snapshot(row["content"]) for row in rows]
        assert None not in snapshots
        return [snapshot.event_type.value for snapshot in snapshots if snapshot]


def a_record(issue_id: str, run: str = "1") -> SessionRecord:
    """What a worker needs to know of a session."""
    return SessionRecord(f"session-of-{issue_id}-{run}", "orch-main", an_issue(issue_id=issue_id), 3, 2)


def about(lease: Lease) -> About:
    """Whom the entries of a session are about."""
    return About(lease.record.issue, lease.record.session_id, "orch-main")


def told_of(lease: Lease, report: Report) -> Iterable[Any]:
    """The entries of a step."""
    return step_entries(about(lease), Progress().after(report), report)
