"""The one place where a port becomes a real thing."""

from orchestrator.wiring.agents import agent_commands, sandbox_report, sandboxed, tracker_command
from orchestrator.wiring.project import STOP_GRACE_S, Wiring, here

__all__ = [
    "STOP_GRACE_S",
    "Wiring",
    "agent_commands",
    "here",
    "sandbox_report",
    "sandboxed",
    "tracker_command",
]
