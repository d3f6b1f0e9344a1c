"""The git repo that somebody stands in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from orchestrator.errors import WorkspaceError


def top_of(folder: Path) -> Path:
    """The top of the git repo around `folder`. WorkspaceError says what to do when there is none, or no commit."""
    top = git(folder, "rev-parse", "--show-toplevel")
    if top.returncode != 0:
        if "not a git repository" in top.stderr:
            raise WorkspaceError(f"{folder} is in no git repo; run `git init` and commit something, or go to your repo")
        raise WorkspaceError(f"{folder}: git says: {top.stderr.strip() or 'nothing'}")
    root = Path(top.stdout.removesuffix("\n"))
    if git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").returncode != 0:
        raise WorkspaceError(f"{root} has no commit for sessions to start from; commit something first")
    return root


def commit_of(root: Path, base: str) -> str | None:
    """The commit that sessions start from, shortened; None when there is no such branch, neither here nor at origin."""
    for ref in (f"refs/heads/{base}", f"refs/remotes/origin/{base}"):
        found = git(root, "rev-parse", "--verify", "--quiet", "--short", f"{ref}^{{commit}}")
        if found.returncode == 0:
            return found.stdout.strip()
    return None


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One quick question to git. Raises WorkspaceError when there is no git, or it does not answer."""
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=20,
            check=False,
        )
    except FileNotFoundError:
        raise WorkspaceError("git is not on PATH; install git 2.30 or newer") from None
    except subprocess.TimeoutExpired:
        raise WorkspaceError(f"{folder}: git did not answer in 20 s") from None
