"""The commands that play the roles, the tracker's server, and the prompt's template, by the settings."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib import resources

from orchestrator.adapters.agents import AgentCommand
from orchestrator.adapters.process.foreign import Bounds
from orchestrator.errors import SettingsError
from orchestrator.models import Role
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
