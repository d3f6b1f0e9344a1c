"""The state folder, for its owner only: agents' words, the private Redis and worktrees are in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

WIDE = stat.S_IRWXG | stat.S_IRWXO
NOT_OURS = "worktrees"
"""What is in there are the files of a repo, with modes that git knows; the folder above them is closed."""


def private(folder: Path) -> Path:
    """The folder, made if need be, and closed to all other users with what is in it; one line says that it was open.

    Running it again changes nothing. Raises OSError when it is another user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not folder.stat().st_mode & WIDE:
        return folder
    # The folder first: from then on nobody gets in.
    folder.chmod(0o700)
    closed = sum(_close(path) for path in _below(folder))
    log.warning("state_folder_was_open", folder=str(folder), closed=closed + 1, hint="other users could read it")
    return folder


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        if Path(where) == folder and NOT_OURS in folders:
            folders.remove(NOT_OURS)
        yield from (Path(where, name) for name in (*folders, *files))


def _close(path: Path) -> bool:
    """Take a file's or folder's rights from all others; True if they had any.

    What is gone meanwhile had none; what is another user's, nobody but that one can close.
    """
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not mode & WIDE:
            return False
        path.chmod(stat.S_IMODE(mode) & ~WIDE)
    except (FileNotFoundError, PermissionError):
        return False
    return True
