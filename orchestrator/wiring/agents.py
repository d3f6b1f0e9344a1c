"""The processes that the settings name: agents, verifications and the tracker's server; and the prompt's template."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from threading import Event

from orchestrator.adapters.agents import AgentCommand, CommandTransport, CommandVerifier
from orchestrator.adapters.process import marked
from orchestrator.adapters.process.foreign import Bounds, clean_env
from orchestrator.errors import SettingsError
from orchestrator.models import Lease, Role, Worktree
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


@dataclass(frozen=True)
class SessionProcesses:
    """The processes of sessions on this host: agents and verifications, each with its markers and its logs.

    `state` gives a path in the project's state folder.
    """

    settings: Settings
    state: Callable[[str], Path]

    def transport(self, lease: Lease, worktree: Worktree, cut: Event) -> CommandTransport:
        """The agents of a session, as commands in its worktree, until `cut`."""
        return CommandTransport(
            agent_commands(self.settings),
            cwd=worktree.path,
            logs=self._logs(lease),
            issue_id=lease.issue_id,
            env=os.environ | self._markers(lease),
            cancel=cut,
        )

    def verifier(self, lease: Lease, _worktree: Worktree, cut: Event) -> CommandVerifier:
        """The verifications of a session, until `cut`."""
        limits, markers = self.settings.limits, self._markers(lease)
        return CommandVerifier(
            logs=self._logs(lease),
            bounds=Bounds(wall_s=limits.verify_seconds, silence_s=None, output_bytes=limits.output_mb * MB),
            env=clean_env(os.environ, allow=self.settings.agents.env, extra=markers),
            cancel=cut,
        )

    def end(self, issue_id: str, token: int, session_id: str = "") -> int:
        """End the processes here of an issue, or of one session of it, of this token and older; how many there were."""
        of_session = {"ORCH_SESSION": session_id} if session_id else {}
        return marked.sweep(self._of(issue_id) | of_session, newest=token)

    def families(self) -> Mapping[tuple[str, str, int], set[int]]:
        """The processes above those of sessions, for each issue, session and token."""
        return marked.families(str(self.settings.state_dir))

    def _markers(self, lease: Lease) -> dict[str, str]:
        """The environment by which a process of this holder is told from any other."""
        return self._of(lease.issue_id) | {"ORCH_SESSION": lease.record.session_id, "ORCH_LEASE": str(lease.token)}

    def _of(self, issue_id: str) -> dict[str, str]:
        return {"ORCH_ISSUE": issue_id, "ORCH_STATE": str(self.settings.state_dir)}

    def _logs(self, lease: Lease) -> Path:
        path = self.state(self.settings.logs.name) / lease.issue_id / lease.record.session_id
        path.mkdir(parents=True, exist_ok=True)
        return path
