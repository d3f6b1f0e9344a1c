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
from orchestrator.errors import WorkspaceError
from orchestrator.merge_close.events import issue_of_message
from orchestrator.models import Outside, Worktree, branch_of
from orchestrator.text import one_line

MAX_FILES = 1000
NAMED = 5
STATUS_S = 60.0


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


def _changed_files(root: Path) -> Mapping[str, object] | None:
    """The files that git status names, with what tells one change of a file from the next; None where it is too slow.

    What cannot be seen of the user's checkout is no fault of the issue.
    """
    asked = ("--no-optional-locks", "status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=all")
    try:
        done = question(root, *asked, "--", ".", f":(top,exclude,literal){TRACKER_FOLDER}", timeout_s=STATUS_S)
    except WorkspaceError:
        return None
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


def intrusion(git: Git, worktree: Worktree, commit: str, *, base: str, base_was: str, theirs: str) -> str:
    """Why the branch `base` is not what people made it; empty when nothing shows it. `theirs` is the remote's."""
    issue_id, here = worktree.issue_id, git.commit_of(f"refs/heads/{base}") or ""
    new = commit and git.beyond(commit, worktree.base)
    if new and any(git.commit_of(tip) and git.holds(tip, commit) for tip in (here, theirs) if tip):
        return f"{base} has commit {commit[:12]} of {issue_id}, which nobody could merge yet"
    strange = _strangers(git, base_was, here, own=issue_id) if base_was not in ("", here) else []
    if not strange:
        return ""
    moved = f"{base} moved from {base_was[:12]} to {here[:12]} while an agent of {issue_id} was at work"
    return f"{moved}, by nobody known: {'; '.join(strange[:NAMED])}"


def _strangers(git: Git, old: str, new: str, *, own: str) -> list[str]:
    """What brought the base from `old` to `new` that is neither on a remote's nor finished work, a line each.

    Finished may be the work of every issue but `own`, which a session is at.
    """
    if not git.commit_of(new) or not git.holds(new, old):
        return [f"{new[:12] or 'nothing'} does not have what was there"]
    others = (f"--exclude={branch_of(own)}", f"--branches={branch_of('*')}", "--remotes")
    shape = ("--no-show-signature", "--no-color", "--no-merges", "-z", "--format=%h %an: %s%x01%B")
    listed = git("log", *shape, f"{old}..{new}", "--not", *others)
    rows = (row.partition("\1") for row in listed.split("\0") if row)
    return [one_line(told) for told, _, message in rows if issue_of_message(message) in ("", own)]
