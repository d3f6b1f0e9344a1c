"""The one place where a port becomes a real thing."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from orchestrator import logs
from orchestrator.adapters.git import GitWorkspace, base_branch, installation_of, name_installation
from orchestrator.adapters.process.bound import bound_env
from orchestrator.adapters.redis import (
    Keys,
    RedisControls,
    RedisCounts,
    RedisHistory,
    RedisLeases,
    RedisOutbox,
    connect,
    timed,
)
from orchestrator.adapters.redis import server as redis_server
from orchestrator.errors import SettingsError
from orchestrator.gateway import SudocodeGateway
from orchestrator.logs import News
from orchestrator.models import Limits, utc_now
from orchestrator.poll import Poll, Rescue, Sweep
from orchestrator.publish import outbox
from orchestrator.session import Sessions, SessionTools, WorktreeSteps, end_orphans, put_aside
from orchestrator.settings import Settings, from_environment
from orchestrator.settings.redis_url import client_url
from orchestrator.text import redactor
from orchestrator.wiring.agents import SessionProcesses, prompt_template, tracker_command

if TYPE_CHECKING:
    from orchestrator.adapters.mcp import McpTracker

STOP_GRACE_S = 10.0


class Wiring:
    """Everything one process needs for one project, made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.project)
        logs.configure(settings.log, settings.log_format, redact=redactor(os.environ))

    @functools.cached_property
    def redis_url(self) -> str:
        """The Redis of the settings, as redis-py spells it; else our own, found running or started."""
        return client_url(self.settings.redis_url) if self.settings.redis_url else self.own_redis.url

    @functools.cached_property
    def own_redis(self) -> redis_server.RedisServer:
        """Our own Redis. It ends with the process that started it."""
        return redis_server.ensure(self.settings.state_dir)

    @functools.cached_property
    def client(self) -> redis.Redis:
        """A connection pool; safe to use after a fork."""
        return connect(self.redis_url, patience_s=2.0)

    @functools.cached_property
    def patient_client(self) -> redis.Redis:
        """For what must not be lost while Redis restarts: a step's record costs an agent's work."""
        return connect(self.redis_url, patience_s=self.settings.lease_seconds)

    @functools.cached_property
    def hasty_client(self) -> redis.Redis:
        """For who has to go on, with or without an answer."""
        return connect(self.redis_url, patience_s=1.0)

    @functools.cached_property
    def leases(self) -> RedisLeases:
        """Who runs what."""
        return RedisLeases(self.client, self.keys, lease_s=self.settings.lease_seconds)

    @functools.cached_property
    def heartbeat_leases(self) -> RedisLeases:
        """The leases, for a caller in an event loop that must not be kept waiting."""
        return RedisLeases(self.hasty_client, self.keys, lease_s=self.settings.lease_seconds)

    @functools.cached_property
    def counts(self) -> RedisCounts:
        """What is counted for those who watch."""
        return RedisCounts(self.hasty_client, self.keys)

    @functools.cached_property
    def controls(self) -> RedisControls:
        """Whether new sessions may start."""
        return RedisControls(self.client, self.keys)

    @functools.cached_property
    def outbox(self) -> RedisOutbox:
        """What the tracker has still to be told."""
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
        )

    def poll(self, *, start: Callable[[str, int], None], sessions: Sessions) -> Poll:
        """One look at the tracker."""
        return Poll(
            tracker=self.gateway,
            claims=self.leases,
            start=start,
            rescue=self.rescue_silent(start=start, sessions=sessions),
            orchestrator_id=self.orchestrator_id,
            limits=Limits(self.settings.limits.spec_attempts, self.settings.limits.quality_attempts),
            news=self._news,
        )

    def rescue_silent(self, *, start: Callable[[str, int], None], sessions: Sessions) -> Rescue:
        """One look for sessions whose holder fell silent."""
        return Rescue(self.leases, start, sessions.give_up, self.settings.limits.rescues)

    def sweep(self) -> Sweep:
        """One look for issues that nobody holds."""
        return Sweep(self.tracker, self.leases, self.orchestrator_id, self._looked_at)

    def end_orphans(self) -> None:
        """End the processes here of workers that are gone."""
        here = self._processes
        end_orphans(here.families(), self.heartbeat_leases.holding, here.end)

    @functools.cached_property
    def orchestrator_id(self) -> str:
        """The name that signs our snapshots. Redis is told a new one: if it does not know it, it lost its memory."""
        root = self.settings.root
        if (known := installation_of(root)) is None:
            known = name_installation(root)
            self.leases.meet(known)
        return known

    @functools.cached_property
    def _looked_at(self) -> dict[str, object]:
        """What this process's sweeps have found not to be ours."""
        return {}

    @functools.cached_property
    def _news(self) -> News:
        """What this process's polls have logged already."""
        return News()

    def publish(self) -> int:
        """Tell the tracker what waits, as the only one on this host; gives how many entries were told."""
        from orchestrator.adapters.mcp import flock

        with flock(self.state("publisher.lock"), timeout_s=60.0):
            return outbox.publish(self.outbox, self.gateway)

    def sessions(self, *, owner: str, wake: Callable[[], None], stopping: Callable[[], bool]) -> Sessions:
        """The sessions of this process."""
        return Sessions(
            leases=self.leases,
            renewals=self.heartbeat_leases,
            history=lambda lease: RedisHistory(
                self.patient_client, self.keys, lease, error_limit=self.settings.limits.errors_in_a_row, wake=wake
            ),
            doer=lambda lease, keeper: WorktreeSteps(lease, self._tools, keeper),
            put_aside=lambda lease: put_aside(lease, self._tools),
            owner=owner,
            lease_s=self.settings.lease_seconds,
            grace_s=STOP_GRACE_S,
            stopping=stopping,
            now=utc_now,
        )

    @functools.cached_property
    def _tools(self) -> SessionTools:
        return SessionTools(
            workspace=self.workspace,
            remote=lambda lease: self.workspace.remote(lease, host=socket.gethostname()),
            transport=self._processes.transport,
            verifier=self._processes.verifier,
            verify_command=self.settings.verify_command,
            prompt_template=lambda: prompt_template(self.settings),
            # By the issue: if Redis lost its memory, an earlier session's agent may still be at work in this worktree.
            sweep=lambda lease: self._processes.end(lease.issue_id),
            now=utc_now,
        )

    @functools.cached_property
    def _processes(self) -> SessionProcesses:
        return SessionProcesses(self.settings, self.state)

    def state(self, name: str) -> Path:
        """A file in the project's state folder, which is made if need be: for its owner, as logs have it all."""
        self.settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.settings.state_dir / name


@functools.cache
def here() -> Wiring:
    """The wiring of this process, by its environment and current folder."""
    return Wiring(from_environment())
