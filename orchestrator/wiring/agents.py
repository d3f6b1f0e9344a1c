"""The processes that the settings name: agents, verifications and the tracker's server; and the prompt's template."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, partial
from importlib import resources
from pathlib import Path
from threading import Event

from orchestrator.adapters.agents import (
    Access,
    AgentCommand,
    CheckoutSetUp,
    CommandTransport,
    CommandVerifier,
    Reach,
    reach_given,
    reach_of_machine,
    reach_of_objects,
    reach_of_programs,
    reach_without,
    remedy,
    why_not,
)
from orchestrator.adapters.process import marked
from orchestrator.adapters.process.foreign import Bounds, clean_env
from orchestrator.errors import SettingsError
from orchestrator.models import BASE, Lease, Role, Worktree
from orchestrator.settings import Settings

MB = 1_000_000


def tracker_command(settings: Settings) -> Sequence[str]:
    """The command of the tracker's server: sudocode's if it is installed (or asked for), else ours."""
    if not isinstance(settings.tracker, str):
        return settings.tracker.command
    if settings.tracker == "sudocode" or (settings.tracker == "auto" and shutil.which("sudocode-mcp")):
        return ("sudocode-mcp", "-w", str(settings.root))
    return (sys.executable, "-P", "-m", "orchestrator.tracker", "-w", str(settings.root))


def agent_commands(settings: Settings) -> dict[str, AgentCommand]:
    """Each role's command. SettingsError names the roles without one."""
    limits = settings.limits
    bounds = Bounds(wall_s=limits.agent_seconds, silence_s=limits.silence_seconds, output_bytes=limits.output_mb * MB)
    unset = [role for role in Role if settings.agent(role) is None]
    if unset:
        raise SettingsError(
            f"orch.toml: agents: no command for {', '.join(unset)};"
            ' write e.g. [agents.default] command = ["claude", "-p"], or run `orch init`'
        )
    played = {role: agent for role in Role if (agent := settings.agent(role))}
    return {
        role: AgentCommand(agent.command, agent.prompt, bounds, settings.agents.env) for role, agent in played.items()
    }


def prompt_template(settings: Settings) -> str:
    """The user's template, or the one that ships with the package."""
    if settings.prompt_template:
        return (settings.root / settings.prompt_template).read_text(encoding="utf-8")
    return resources.files("orchestrator").joinpath("prompt_template.md").read_text(encoding="utf-8")


def sandboxed(settings: Settings) -> bool:
    """True when agents and verifications run in a sandbox here. Raises SettingsError when they must and cannot."""
    if settings.sandbox == "off":
        return False
    reason = why_not()
    if reason and settings.sandbox == "bubblewrap":
        raise SettingsError(
            f'orch.toml: sandbox = "bubblewrap", but {reason}: no session runs on this host; {remedy()}, '
            'or set sandbox = "auto"'
        )
    return not reason


def sandbox_report(settings: Settings) -> tuple[str, str]:
    """Whether agents and verifications run in a sandbox here, in words, and what to do if they do not."""
    if settings.sandbox == "off":
        return "off, by orch.toml: agents reach all that you do", 'set sandbox = "auto"'
    if reason := why_not():
        return f"none: {reason}; agents reach all that you do", remedy()
    return "bubblewrap: agents reach their workspace, not the main checkout, and what docs/threat-model.md lists", ""


@dataclass(frozen=True)
class Work:
    """The work that a process is for: its folder below the logs, and the markers in its environment."""

    logs: str
    markers: dict[str, str]


class UsedBy(StrEnum):
    """Who uses a checkout. Each has caches of its own: an agent could spoil those that it works with."""

    AGENTS = "agents"
    VERIFICATION = "verification"


@dataclass(frozen=True)
class SessionProcesses:
    """The processes of sessions on this host: agents, set-ups, verifications, each with its markers and its logs.

    `state` gives a path in the project's state folder, `git` the git folder of the user's repo.
    """

    settings: Settings
    state: Callable[[str], Path]
    git: Callable[[], Path]
    redact: Callable[[str], str]

    @cached_property
    def sandboxed(self) -> bool:
        """As `sandboxed` finds it. Once: a worker asks before it forks, so that no agent can change the answer."""
        return sandboxed(self.settings)

    def transport(self, lease: Lease, worktree: Worktree, cut: Event) -> CommandTransport:
        """The agents of a session, as commands in its worktree, until `cut`."""
        work, caches = self.of(lease), self._caches(UsedBy.AGENTS)
        return CommandTransport(
            {role: replace(agent, allow_env=(*agent.allow_env, *caches)) for role, agent in self._agents.items()},
            cwd=worktree.path,
            logs=self._logs(work),
            issue_id=lease.issue_id,
            env=os.environ | caches | work.markers,
            redact=self.redact,
            cancel=cut,
            reach=partial(self._reach, caches.values(), worktree.path) if self.sandboxed else None,
        )

    def verifier(self, work: Work, cut: Event) -> CommandVerifier:
        """Verifications, until `cut`."""
        return self._command(work, cut, UsedBy.VERIFICATION, "verification", self.settings.limits.verify_seconds)

    def set_up(self, work: Work, cut: Event, by: UsedBy) -> CheckoutSetUp:
        """Set-ups of checkouts, until `cut`."""
        workspace = self.settings.workspace
        run = self._command(work, cut, by, "set-up", self.settings.limits.setup_seconds)
        return CheckoutSetUp(self.settings.root, workspace.copy_, workspace.setup or (), run)

    def of(self, lease: Lease) -> Work:
        """The work of this holder, whose processes are told by it from any other's."""
        session_id = lease.record.session_id
        markers = self._of(lease.issue_id) | {"ORCH_SESSION": session_id, "ORCH_LEASE": str(lease.token)}
        return Work(f"{lease.issue_id}/{session_id}", markers)

    def of_base(self) -> Work:
        """The work on the base branch, which is of no session."""
        return Work(BASE, self._of(BASE))

    def _reach(self, caches: Iterable[str], workspace: Path, role: str = Role.IMPLEMENTER) -> Reach:
        """What a role's agent, or a verification, finds on this machine. Reviewers only read the workspace.

        Of ours it finds the workspace alone: not the state folder, nor the tracker's; of the user's checkout not what
        git does not know, as secrets may be in it, and of the repo the objects that the workspace borrows.
        """
        settings, env = self.settings, clean_env(os.environ, allow=self.settings.agents.env)
        ours = (settings.state_dir, *(settings.root / name for name in (".sudocode", ".git")), self.git())
        named = reach_given(env.get("HOME", ""), write=settings.agents.write, read=settings.agents.read)
        verify = settings.verify
        checks = filter(None, (verify.default, verify.L0, verify.L1, verify.L2))
        commands = (*(agent.argv for agent in self._agents.values()), *checks)
        return (
            reach_of_machine(env)
            | reach_of_programs(env, commands)
            | reach_without(*ours, *settings.root.glob(".env*"))
            | reach_of_objects(self.git())
            | named
            | dict.fromkeys((Path(path).resolve() for path in caches), Access.WRITE)
            | {workspace.resolve(): Access.WRITE if role == Role.IMPLEMENTER else Access.READ}
        )

    def end(self, issue_id: str, token: int, session_id: str = "") -> int:
        """End the processes here of an issue, or of one session of it, of this token and older; how many there were."""
        of_session = {"ORCH_SESSION": session_id} if session_id else {}
        return marked.sweep(self._of(issue_id) | of_session, newest=token)

    def families(self) -> Mapping[tuple[str, str, int], set[int]]:
        """The processes above those of sessions, for each issue, session and token."""
        return marked.families(str(self.settings.state_dir))

    @property
    def _agents(self) -> Mapping[str, AgentCommand]:
        return agent_commands(self.settings)

    def _command(self, work: Work, cut: Event, by: UsedBy, what: str, wall_s: float) -> CommandVerifier:
        caches = self._caches(by)
        return CommandVerifier(
            logs=self._logs(work),
            bounds=Bounds(wall_s=wall_s, silence_s=None, output_bytes=self.settings.limits.output_mb * MB),
            env=clean_env(os.environ, allow=self.settings.agents.env, extra={**caches, **work.markers}),
            redact=self.redact,
            cancel=cut,
            reach=partial(self._reach, caches.values()) if self.sandboxed else None,
            what=what,
        )

    def _caches(self, by: UsedBy) -> dict[str, str]:
        """The variables that name caches, and their folders, which are made."""
        folders = {name: self.settings.caches / by / name for name in self.settings.workspace.cache}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return {name: str(folder) for name, folder in folders.items()}

    def _of(self, issue_id: str) -> dict[str, str]:
        return {"ORCH_ISSUE": issue_id, "ORCH_STATE": str(self.settings.state_dir)}

    def _logs(self, work: Work) -> Path:
        path = self.state(self.settings.logs.name) / work.logs
        path.mkdir(parents=True, exist_ok=True)
        return path
