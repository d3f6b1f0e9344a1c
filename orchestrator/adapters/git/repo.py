"""Questions about the repo that a person stands in: its top, its base branch, its name on GitHub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.adapters.git.command import question, reason
from orchestrator.errors import WorkspaceError

_REMOTE_URL = re.compile(
    r"(?:https?://(?:[^@/]+@)?|ssh://(?:[^@/]+@)?|(?:[^@/]+@))(?P<host>[^/:]+)(?::\d+/|[:/])"
    r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)


def git_version() -> str:
    """The version that git gives, as in `git version 2.45.1`. WorkspaceError when it is not installed."""
    return question(Path(), "--version").stdout.strip()


def top_of(folder: Path) -> Path:
    """The top of the git repo around `folder`. WorkspaceError says what to do when there is none, or no commit."""
    top = question(folder, "rev-parse", "--show-toplevel")
    if top.returncode != 0:
        if "not a git repository" in top.stderr:
            raise WorkspaceError(f"{folder} is in no git repo; run `git init` and commit something, or go to your repo")
        raise WorkspaceError(f"{folder}: git says: {top.stderr.strip() or 'nothing'}")
    root = Path(top.stdout.removesuffix("\n"))
    if _answer(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}") is None:
        raise WorkspaceError(f"{root} has no commit for sessions to start from; commit something first")
    return root


def base_branch(root: Path) -> str | None:
    """The branch sessions start from: origin's default, else main, master, or the current one. None without a repo."""
    if remote := _answer(root, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"):
        return remote.removeprefix("origin/")
    for name in ("main", "master"):
        if _answer(root, "rev-parse", "--verify", "--quiet", f"refs/heads/{name}"):
            return name
    return _answer(root, "symbolic-ref", "--quiet", "--short", "HEAD")


def base_commit(root: Path, base: str) -> str | None:
    """The commit that sessions start from, shortened; None when there is no such branch, neither here nor at origin."""
    found = (_answer(root, "rev-parse", "--verify", "--quiet", "--short", f"{ref}^{{commit}}") for ref in _bases(base))
    return next(filter(None, found), None)


def base_holds(root: Path, base: str, commit: str) -> bool | None:
    """True when the base holds the commit, here or at origin; None when this checkout does not reach that far."""
    asked = ("merge-base", "--is-ancestor", f"{commit}^{{commit}}")
    answers = {question(root, *asked, ref).returncode for ref in _bases(base)}
    return True if 0 in answers else False if 1 in answers else None


def brought_along(root: Path, patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The untracked files that match git's pathspecs: those that git ignores, and the others. Raises WorkspaceError."""

    def listed(*which: str) -> list[str]:
        found = question(root, "ls-files", "-z", "--others", "--exclude-standard", *which, "--", *patterns)
        if found.returncode:
            raise WorkspaceError(
                f"[workspace] copy in orch.toml: git says: {reason(found.stderr)}; correct the pattern"
            )
        return [name for name in found.stdout.split("\0") if name]

    return listed("--ignored"), listed()


def github_repo(root: Path, remote: str, api: str) -> str | None:
    """`owner/name` of the repo that the remote's URL names on the GitHub of `api`; None when it is elsewhere."""
    host = "github.com" if api == "https://api.github.com" else urlsplit(api).hostname or ""
    url = _answer(root, "remote", "get-url", remote) if remote else None
    found = _REMOTE_URL.fullmatch(url or "")
    return f"{found['owner']}/{found['name']}" if found and host.removeprefix("api.") == found["host"].lower() else None


def _bases(base: str) -> tuple[str, str]:
    return f"refs/heads/{base}", f"refs/remotes/origin/{base}"


def _answer(root: Path, *arguments: str) -> str | None:
    """Git's answer; None when it says no, or there is no repo."""
    answer = question(root, *arguments)
    return answer.stdout.strip() or None if answer.returncode == 0 else None
