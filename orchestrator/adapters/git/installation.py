"""The installation's name: one for each checkout, kept in git's configuration of the clone.

There it survives what Redis, the state folder and the machine's name do not, and no clone, copy or linked worktree of
the repo has it too: it stands under the checkout's path.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from orchestrator.adapters.git.command import question
from orchestrator.errors import WorkspaceError


def installation_of(root: Path) -> str | None:
    """The installation's name; None until it is named."""
    # Of two names that were given at once, the first one holds.
    return next(iter(question(root, "config", "--local", "--get-all", _key(root)).stdout.split()), None)


def name_installation(root: Path) -> str:
    """The installation's name, made if there is none. Raises `WorkspaceError` when git does not keep it."""
    if known := installation_of(root):
        return known
    said = question(root, "config", "--local", "--add", _key(root), f"orch-{uuid.uuid4().hex[:8]}").stderr
    if known := installation_of(root):
        return known
    raise WorkspaceError(f"git keeps no configuration in {root}: {said.strip() or 'it gave no reason'}")


def _key(root: Path) -> str:
    return f"orch.{root.resolve()}.installation"
