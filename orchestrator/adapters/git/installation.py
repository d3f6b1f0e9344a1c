"""Which installation this is: a name of its own for each checkout, kept in git's configuration of the clone.

There it survives what Redis, the state folder and the machine's name do not, and no clone, copy or linked worktree of
the repo has it too: it stands under the checkout's path.
"""

from __future__ import annotations

import re
import subprocess
import uuid
from pathlib import Path
from urllib.parse import urlsplit

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


_REMOTE_URL = re.compile(
    r"(?:https?://(?:[^@/]+@)?|ssh://(?:[^@/]+@)?|(?:[^@/]+@))(?P<host>[^/:]+)(?::\d+/|[:/])"
    r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)


def base_branch(root: Path) -> str | None:
    """The branch sessions start from: origin's default, else main, master, or the current one. None without a repo."""
    if remote := _git(root, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"):
        return remote.removeprefix("origin/")
    for name in ("main", "master"):
        if _git(root, "rev-parse", "--verify", "--quiet", f"refs/heads/{name}"):
            return name
    return _git(root, "symbolic-ref", "--quiet", "--short", "HEAD")


def github_repo(root: Path, remote: str, api: str) -> str | None:
    """`owner/name` of the repo that the remote's URL names on the GitHub of `api`; None when it is elsewhere."""
    host = "github.com" if api == "https://api.github.com" else urlsplit(api).hostname or ""
    url = _git(root, "remote", "get-url", remote) if remote else None
    found = _REMOTE_URL.fullmatch(url or "")
    return f"{found['owner']}/{found['name']}" if found and host.removeprefix("api.") == found["host"].lower() else None


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers, or None when it says no, is not there, or there is no repo."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


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
