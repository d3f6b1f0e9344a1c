"""The one place where a port becomes a real thing."""

from orchestrator.adapters.process.sealed import handed_on, start_anew_without
from orchestrator.wiring.agents import agent_commands, sandbox_report, sandboxed, tracker_command
from orchestrator.wiring.project import STOP_GRACE_S, Wiring, here

__all__ = [
    "STOP_GRACE_S",
    "Wiring",
    "agent_commands",
    "handed_on",
    "here",
    "sandbox_report",
    "sandboxed",
    "start_anew_without",
    "tracker_command",
]
