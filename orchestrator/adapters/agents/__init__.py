"""Agents and verifications: commands of the user's, run in a worktree."""

from orchestrator.adapters.agents.command import AgentCommand, CommandTransport
from orchestrator.adapters.agents.set_up import CheckoutSetUp
from orchestrator.adapters.agents.verify import CommandVerifier

__all__ = [
    "AgentCommand",
    "CheckoutSetUp",
    "CommandTransport",
    "CommandVerifier",
]
