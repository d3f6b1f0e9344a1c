"""Agents and verifications: how a role is asked, how its answer comes back, what our own commands say."""

from orchestrator.adapters.agents.command import AgentCommand, CommandTransport
from orchestrator.adapters.agents.verify import CommandVerifier

__all__ = [
    "AgentCommand",
    "CommandTransport",
    "CommandVerifier",
]
