"""Git: the repo, worktrees with a repository of their own, remotes, merges."""

from orchestrator.adapters.git.create import create_project
from orchestrator.adapters.git.installation import installation_of, name_installation
from orchestrator.adapters.git.leftovers import Leftover, LeftoverKind
from orchestrator.adapters.git.repo import (
    base_branch,
    base_commit,
    base_holds,
    brought_along,
    git_version,
    github_repo,
    top_of,
)
from orchestrator.adapters.git.workspace import GitWorkspace

__all__ = [
    "GitWorkspace",
    "Leftover",
    "LeftoverKind",
    "base_branch",
    "base_commit",
    "base_holds",
    "brought_along",
    "create_project",
    "git_version",
    "github_repo",
    "installation_of",
    "name_installation",
    "top_of",
]
