"""Git: worktrees, remotes, merges."""

from orchestrator.adapters.git.leftovers import Leftover, LeftoverKind
from orchestrator.adapters.git.workspace import GitWorkspace, create_project

__all__ = [
    "GitWorkspace",
    "Leftover",
    "LeftoverKind",
    "create_project",
]
