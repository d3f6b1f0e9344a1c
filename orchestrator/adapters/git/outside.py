"""What is the user's and no agent's: looked at before and after a step, so that what changed meanwhile can be named.

A sandbox keeps agents from all of it. Without one nothing does, and git does not say who changed it: a person may have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.adapters.git.clone import content, listed_settings
from orchestrator.adapters.git.command import Git, question, reason
from orchestrator.adapters.git.files import TRACKER_FOLDER
from orchestrator.adapters.git.refs import BRANCHES, REMOTE
from orchestrator.models import Outside
from orchestrator.text import one_line

MAX_FILES = 1000


def look_outside(git: Git, root: Path, *, base: str, before: Outside | None = None) -> Outside:
    """Look at the user's repo and its main checkout in `root`; `before` is the look that it is compared with."""
    listed = git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    ours = (BRANCHES, REMOTE, "refs/remotes/")
    refs = {
        one_line(ref): commit for ref, _, commit in (line.partition(" ") for line in listed) if not ref.startswith(ours)
    }
    refs["HEAD"] = content(root / ".git/HEAD")
    settings = frozenset().union(*map(listed_settings, _config_files(git)))
    safe = before is None or settings == before.settings
    files = _changed_files(root) if safe else None
    return Outside(f"refs/heads/{base}", refs, settings, _hooks(git.common), files)


def _config_files(git: Git) -> Iterator[Path]:
    yield from (git.common / "config", git.common / "config.worktree")
    home = Path("~").expanduser()
    yield from (home / ".gitconfig", Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "git/config")


def _hooks(common: Path) -> Mapping[str, object]:
    folders = (common / name for name in ("hooks", "info"))
    return {
        f"{path.parent.name}/{path.name}": _stamp(path)
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
    }


def _changed_files(root: Path) -> Mapping[str, object]:
    """The files that git status names, with what tells one change of a file from the next."""
    asked = ("--no-optional-locks", "status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=all")
    done = question(root, *asked, "--", ".", f":(top,exclude,literal){TRACKER_FOLDER}", timeout_s=60)
    if done.returncode:
        return {f"(git status: {one_line(reason(done.stderr))})": ()}
    rows = [row for row in done.stdout.split("\0") if row][:MAX_FILES]
    return {one_line(row[3:]): (row[:2], _stamp(root / row[3:])) for row in rows}


def _stamp(path: Path) -> object:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
