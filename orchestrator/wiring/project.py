"""The one place where a port becomes a real thing."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import redis

from orchestrator import logs
from orchestrator.adapters.git import GitWorkspace, base_branch, installation_of, name_installation
from orchestrator.adapters.process.bound import bound_env, unreadable
from orchestrator.adapters.process.lock import locked
from orchestrator.adapters.process.private import private
from orchestrator.adapters.redis import (
    Keys,
    RedisControls,
    RedisCounts,
    RedisHistory,
    RedisLeases,
    RedisMerges,
    RedisOutbox,
    connect,
    timed,
)
from orchestrator.adapters.redis import server as redis_server
from orchestrator.errors import SettingsError
from orchestrator.gateway import SudocodeGateway
from orchestrator.issue import listed, shown
from orchestrator.logs import Once
from orchestrator.models import IssueStatus, Limits, utc_now
from orchestrator.poll import Poll, Rescue, Sweep
from orchestrator.publish import publish
from orchestrator.session import (
    BaseCheck,
    BaseWatch,
    Sessions,
    SessionTools,
    Verification,
    WorktreeSteps,
    end_orphans,
    put_aside,
)
from orchestrator.settings import Settings, client_url, from_environment
from orchestrator.text import redactor
from orchestrator.wiring.agents import SessionProcesses, UsedBy, Work, prompt_template, tracker_command

if TYPE_CHECKING:
    from orchestrator.adapters.mcp import McpTracker
    from orchestrator.status import Sources

STOP_GRACE_S = 10.0
PUBLISHER_TURN_S = 60.0


class Wiring:
    """All that one process needs for one project, each part made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.project)
        self.redact = redactor(os.environ, *settings.secrets, redis_server.password_of(settings.state_dir))
        logs.configure(settings.log, settings.log_format, redact=self.redact)

    @functools.cached_property
    def redis_url(self) -> str:
        """The Redis of the settings, as redis-py spells it; else our own, found running or started."""
        return client_url(self.settings.redis_url) if self.settings.redis_url else self.own_redis.url

    @functools.cached_property
    def own_redis(self) -> redis_server.RedisServer:
        """Our own Redis. It ends with the process that started it."""
        return redis_server.ensure(self._state_dir)

    @property
    def is_up(self) -> bool:
        """True when there is a Redis to look into: that of the settings, or our own if it runs."""
        return bool(self.settings.redis_url or redis_server.find(self.settings.state_dir))

    @functools.cached_property
    def client(self) -> redis.Redis:
        """A connection pool; safe to use after a fork."""
        return connect(self.redis_url, patience_s=2.0, redact=self.redact)

    @functools.cached_property
    def patient_client(self) -> redis.Redis:
        """Waits for Redis for a lease time: a step's record that is lost costs an agent's work."""
        return connect(self.redis_url, patience_s=self.settings.lease_seconds, redact=self.redact)

    @functools.cached_property
    def hasty_client(self) -> redis.Redis:
        """Gives up after 1 s; for callers that must not block."""
        return connect(self.redis_url, patience_s=1.0, redact=self.redact)

    @functools.cached_property
    def leases(self) -> RedisLeases:
        """Claims, leases and stops."""
        return RedisLeases(self.client, self.keys, lease_s=self.settings.lease_seconds)

    @functools.cached_property
    def heartbeat_leases(self) -> RedisLeases:
        """The same, for callers that must not block."""
        return RedisLeases(self.hasty_client, self.keys, lease_s=self.settings.lease_seconds)

    @functools.cached_property
    def counts(self) -> RedisCounts:
        """Best-effort counters for the metrics."""
        return RedisCounts(self.hasty_client, self.keys)

    @functools.cached_property
    def controls(self) -> RedisControls:
        """Pausing and resuming."""
        return RedisControls(self.client, self.keys)

    @functools.cached_property
    def outbox(self) -> RedisOutbox:
        """The entries that the tracker has still to be told."""
        return RedisOutbox(self.client, self.keys)

    @functools.cached_property
    def tracker(self) -> McpTracker:
        """The tracker's server, one per process, its calls one at a time on this host."""
        # Here, because session workers never speak to the tracker, and the MCP SDK would take 35 MB of each.
        from orchestrator.adapters.mcp import McpTracker

        return McpTracker(
            tracker_command(self.settings),
            cwd=self.settings.root,
            env=bound_env({}),
            lock_path=self.state("tracker.lock"),
        )

    @functools.cached_property
    def gateway(self) -> SudocodeGateway:
        """The tracker, retried and checked."""
        tracker = self.tracker
        return SudocodeGateway(
            mcp_ready=timed(tracker.ready, self._tracker_called),
            mcp_show_issue=timed(tracker.show_issue, self._tracker_called),
            mcp_upsert_issue=timed(tracker.upsert_issue, self._tracker_called),
            mcp_add_feedback=timed(tracker.add_feedback, self._tracker_called),
            mcp_link=timed(tracker.link, self._tracker_called),
            mcp_list_issues=timed(tracker.list_issues, self._tracker_called),
            redact=self.redact,
        )

    def _tracker_called(self, tool: str, outcome: str, seconds: float) -> None:
        # A command that reads the tracker must not start a Redis to say so.
        if "redis_url" in vars(self):
            self.counts.tracker_call(tool, outcome, seconds)

    @functools.cached_property
    def base(self) -> str:
        """The branch that sessions start from and that their work is merged into."""
        base = self.settings.base or base_branch(self.settings.root)
        if base is None:
            raise SettingsError(
                f"{self.settings.root} is no git repo with a commit; run `git init` and commit something"
            )
        return base

    @functools.cached_property
    def workspace(self) -> GitWorkspace:
        """The repo's worktrees."""
        return GitWorkspace(
            self.settings.root,
            worktrees=self.state(self.settings.worktrees.name),
            base=self.base,
            remote=self.settings.remote,
            redact=self.redact,
        )

    def sources(self) -> Sources:
        """The sources of a look at how things stand; a look starts no Redis."""
        # Here, because only commands look.
        from orchestrator.status import Policy, RedisSources, Sources

        def in_redis() -> RedisSources | None:
            if not self.is_up:
                return None
            merges = RedisMerges(self.client, self.keys)
            return RedisSources(self.client, self.leases, self.outbox, self.controls, merges)

        settings = self.settings
        return Sources(
            settings.project,
            redis=in_redis,
            tracker=self.tracker,
            ready=lambda: self.gateway.get_ready_issues(),
            installation=lambda: installation_of(settings.root),
            base=lambda: self.base_check.trouble(),
            logs=settings.logs,
            policy=Policy(
                settings.lease_seconds, settings.poll_interval, settings.limits.rescues, settings.limits.errors_in_a_row
            ),
        )

    @functools.cached_property
    def base_check(self) -> BaseCheck:
        """The verification of the branch that sessions start from."""
        settings = self.settings
        return BaseCheck(
            branch=self.base,
            tip=self.workspace.tip,
            command=settings.verify.default,
            set_up_commands=settings.workspace.setup or (),
            verification=lambda cut: self._verification(self._processes.of_base(), cut),
            recorded=lambda: self.controls,
            now=utc_now,
        )

    def base_watch(self, say: Callable[[str], object]) -> BaseWatch:
        """Verifies the base in the background of this process."""
        return BaseWatch(lambda: self.base_check, say)

    def poll(self, *, start: Callable[[str, int], None], sessions: Sessions) -> Poll:
        """One look at the tracker."""
        return Poll(
            tracker=self.gateway,
            claims=self.leases,
            start=start,
            rescue=self.rescue_silent(start=start, sessions=sessions),
            orchestrator_id=self.orchestrator_id,
            limits=Limits(self.settings.limits.spec_attempts, self.settings.limits.quality_attempts),
            once=self._logged,
            base=self.base_check.trouble,
            redact=self.redact,
        )

    def rescue_silent(self, *, start: Callable[[str, int], None], sessions: Sessions) -> Rescue:
        """Recovers sessions without a live worker."""
        return Rescue(self.leases, start, sessions.give_up, self.settings.limits.rescues)

    def sweep(self) -> Sweep:
        """Recovers issues in progress that Redis does not know."""
        return Sweep(
            in_progress=lambda: listed(self.tracker.list_issues(status=IssueStatus.IN_PROGRESS)),
            show=functools.partial(shown, self.tracker.show_issue),
            claims=self.leases,
            orchestrator_id=self.orchestrator_id,
            looked_at=self._looked_at,
        )

    def end_orphans(self) -> None:
        """End the processes here of workers that are gone."""
        here = self._processes
        end_orphans(here.families(), self.heartbeat_leases.holding, here.end)

    @functools.cached_property
    def orchestrator_id(self) -> str:
        """The name that signs our snapshots. A new one is noted in Redis: one that does not know it lost its data."""
        root = self.settings.root
        if (known := installation_of(root)) is None:
            known = name_installation(root)
            self.leases.meet(known)
        return known

    @functools.cached_property
    def _looked_at(self) -> dict[str, object]:
        """The issues that this process's sweeps found not to be ours."""
        return {}

    @functools.cached_property
    def _logged(self) -> Once:
        """The conditions that this process's polls have logged already."""
        return Once()

    def publish(self) -> int:
        """Publish the outbox, as the only publisher on this host; gives the number of entries told."""
        with locked(self.state("publisher.lock"), wait_s=PUBLISHER_TURN_S):
            return publish(self.outbox, self.gateway)

    def sessions(self, *, owner: str, wake: Callable[[], None], stopping: Callable[[], bool]) -> Sessions:
        """The runner of sessions in this process."""
        return Sessions(
            leases=self.leases,
            renewals=self.heartbeat_leases,
            history=lambda lease: RedisHistory(
                self.patient_client, self.keys, lease, error_limit=self.settings.limits.errors_in_a_row, wake=wake
            ),
            doer=lambda lease, keeper: WorktreeSteps(lease, self.tools, keeper),
            put_aside=lambda lease: put_aside(lease, self.tools),
            owner=owner,
            lease_s=self.settings.lease_seconds,
            grace_s=STOP_GRACE_S,
            stopping=stopping,
            now=utc_now,
        )

    @functools.cached_property
    def tools(self) -> SessionTools:
        """The tools of sessions in this process."""
        settings, processes = self.settings, self._processes
        needed = settings.workspace.setup or settings.workspace.copy_
        return SessionTools(
            workspace=self.workspace,
            remote=lambda lease: self.workspace.remote(lease, host=socket.gethostname()),
            transport=processes.transport,
            verification=lambda lease, cut: self._verification(processes.of(lease), cut),
            verify_command=settings.verify_command,
            prompt_template=lambda: prompt_template(settings),
            # By the issue: if Redis lost its memory, an earlier session's agent may still be at work in this worktree.
            sweep=lambda lease: processes.end(lease.issue_id, lease.token),
            now=utc_now,
            watch=not processes.sandboxed,
            set_up=(lambda lease, cut: processes.set_up(processes.of(lease), cut, UsedBy.AGENTS)) if needed else None,
            set_up_commands=settings.workspace.setup or (),
            trust_agent=settings.verify.trust_agent,
            doubt_base=lambda: self.controls.doubt_base(),
            hold_base=lambda reason: self.controls.hold_base(reason),
        )

    def _verification(self, work: Work, cut: Event) -> Verification:
        set_up = self._processes.set_up(work, cut, UsedBy.VERIFICATION)
        return Verification(self.workspace, set_up, self._processes.verifier(work, cut), self.settings.verify.retries)

    @functools.cached_property
    def _processes(self) -> SessionProcesses:
        return SessionProcesses(self.settings, self.state, lambda: self.workspace.git_folder, self.redact)

    def settle_sandbox(self) -> bool:
        """Find out whether sessions here are boxed, before this process forks; raises SettingsError as that does."""
        return self._processes.sandboxed

    def state(self, name: str) -> Path:
        """A file in the project's state folder."""
        return self._state_dir / name

    @functools.cached_property
    def _state_dir(self) -> Path:
        """The project's state folder, made if need be, and for its owner only."""
        return private(self.settings.state_dir)


@functools.cache
def here() -> Wiring:
    """The wiring of this process, by its environment and current folder; no other process reads that from now on."""
    unreadable()
    return Wiring(from_environment())
