"""Agents and verifications: commands of the user's, run in a worktree, and what they find on this machine."""

from orchestrator.adapters.agents.command import AgentCommand, CommandTransport
from orchestrator.adapters.agents.reach import (
    reach_given,
    reach_of_machine,
    reach_of_objects,
    reach_of_programs,
    reach_without,
)
from orchestrator.adapters.agents.set_up import CheckoutSetUp
from orchestrator.adapters.agents.verify import CommandVerifier
from orchestrator.adapters.process.sandbox import Access, Reach, remedy, why_not

__all__ = [
    "Access",
    "AgentCommand",
    "CheckoutSetUp",
    "CommandTransport",
    "CommandVerifier",
    "Reach",
    "reach_given",
    "reach_of_machine",
    "reach_of_objects",
    "reach_of_programs",
    "reach_without",
    "remedy",
    "why_not",
]
