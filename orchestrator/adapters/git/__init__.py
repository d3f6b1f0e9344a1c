"""Git: worktrees, remotes, merges."""

from orchestrator.adapters.git.workspace import GitWorkspace, create_project

__all__ = [
    "GitWorkspace",
    "create_project",
]
