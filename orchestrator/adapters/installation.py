"""Which installation this is: a name of its own for each checkout, kept in git's configuration of the clone.

There it survives what Redis, the state folder and the machine's name do not, and no clone, copy or linked worktree of
the repo has it too: it stands under the checkout's path.
"""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

from orchestrator.errors import WorkspaceError


def name_of(root: Path) -> str | None:
    """The installation's name; None as long as nobody has named it."""
    # All of them: of two who named it at once, the first one holds.
    return next(iter(_config(root, "--get-all", _key(root)).stdout.split()), None)


def named(root: Path) -> str:
    """The installation's name, made if there is none. Raises `WorkspaceError` when git does not keep it."""
    if known := name_of(root):
        return known
    said = _config(root, "--add", _key(root), f"orch-{uuid.uuid4().hex[:8]}").stderr
    if known := name_of(root):
        return known
    raise WorkspaceError(f"git keeps no configuration in {root}: {said.strip() or 'it gave no reason'}")


def _key(root: Path) -> str:
    return f"orch.{root.resolve()}.installation"


def _config(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(root), "config", "--local", *words], capture_output=True, text=True, check=False
    )
