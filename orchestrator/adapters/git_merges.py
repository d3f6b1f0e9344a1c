"""Which delivered commits were merged into the base, seen in the repo itself: no forge is needed.

Nothing is remembered and nothing is written but loose objects: each look asks about the commits it is given. A merge is
proved by history (the base holds the commit) or, where history was rewritten (squash, rebase), by content: a commit of
the base bears the issue's trailer, and merging the delivered commit into it would change nothing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from orchestrator.errors import WorkspaceError
from orchestrator.forge import Delivered, MergeClosePayload, branch_of

TRAILERS = "%(trailers:key=Sudocode-Issue,valueonly,separator=%x2C)"
OPTIONS = ("--no-pager", "--no-optional-locks", "--no-replace-objects", "-c", "log.showSignature=false")


class GitMerges:
    """Merges into branch `base` of `repo`. Each git call may take `timeout_s`. Raises `WorkspaceError`."""

    def __init__(self, repo: Path, *, base: str, timeout_s: float = 60.0) -> None:
        self._repo = repo
        self._base = base
        self._timeout_s = timeout_s

    def merged(self, delivered: Iterable[Delivered]) -> Iterator[MergeClosePayload]:
        """The merge of each delivered commit that was merged. Its `pr_url` is the branch's ref.

        A commit without its issue's trailer is no work of a session's: it delivers nothing, wherever it is.
        """
        base = self._git("rev-parse", "--verify", f"refs/heads/{self._base}^{{commit}}")
        for work in delivered:
            if not self._knows(work.commit) or self._named_by(work.commit) != {work.issue_id}:
                continue
            by = self._brought_by(work.commit, base) if self._holds(base, work.commit) else self._rewritten(work, base)
            if by:
                at = datetime.fromisoformat(self._git("log", "-1", "--format=%cI", by))
                ref = f"refs/heads/{branch_of(work.issue_id)}"
                yield MergeClosePayload(work.issue_id, ref, by, at, True, "daemon")

    def _brought_by(self, commit: str, base: str) -> str:
        """The commit that brought it into the base: a merge, or itself where the base was moved on to it."""
        after = set(self._git("rev-list", "--ancestry-path", f"{commit}..{base}").split())
        line = self._git("rev-list", "--first-parent", "--reverse", f"{commit}..{base}").split()
        first = next((candidate for candidate in line if candidate in after), None)
        return commit if first is None or self._holds(f"{first}^1", commit) else first

    def _rewritten(self, work: Delivered, base: str) -> str | None:
        """The oldest commit on the base's own line that bears the trailer and has all of the work."""
        line = self._git("log", "--first-parent", "--reverse", f"--format=%H {TRAILERS}", f"{work.commit}..{base}")
        for candidate, _, issues in (row.partition(" ") for row in line.splitlines()):
            if set(issues.split(",")) == {work.issue_id} and self._has_all(candidate, work.commit):
                return candidate
        return None

    def _has_all(self, candidate: str, commit: str) -> bool:
        """Whether merging the commit into the candidate would change nothing."""
        done = self._run("merge-tree", "--write-tree", candidate, commit)
        if done.returncode > 1:
            raise WorkspaceError(f"git merge-tree failed: {done.stderr.strip()}; git 2.38 or newer is needed")
        return done.returncode == 0 and done.stdout.strip() == self._git("rev-parse", f"{candidate}^{{tree}}")

    def _named_by(self, commit: str) -> set[str]:
        return set(self._git("log", "-1", f"--format={TRAILERS}", commit).split(","))

    def _knows(self, commit: str) -> bool:
        return self._run("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0

    def _holds(self, tip: str, commit: str) -> bool:
        return self._run("merge-base", "--is-ancestor", commit, tip).returncode == 0

    def _git(self, *args: str) -> str:
        done = self._run(*args)
        if done.returncode:
            raise WorkspaceError(
                f"git {args[0]} failed in {self._repo}: {done.stderr.strip()}; check `repo` and `base` in orch.toml"
            )
        return done.stdout.strip()

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        # A GIT_* of ours could point git at another repo.
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"LC_ALL": "C"}
        try:
            return subprocess.run(
                ["git", *OPTIONS, *args],
                cwd=self._repo,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self._timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WorkspaceError(f"git {args[0]} could not be run in {self._repo}: {error}; check git") from error
