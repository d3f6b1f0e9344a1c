"""The one place where a port becomes a real thing."""

from orchestrator.wiring.agents import agent_commands, tracker_command
from orchestrator.wiring.project import STOP_GRACE_S, Wiring, here

__all__ = [
    "STOP_GRACE_S",
    "Wiring",
    "agent_commands",
    "here",
    "tracker_command",
]
