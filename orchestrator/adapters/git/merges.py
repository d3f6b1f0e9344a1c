"""Merges of delivered commits into the base, found in the repo itself, without a forge.

Nothing is remembered and nothing is written but loose objects: each look asks about the commits it is given. A merge is
proved by history (the base holds the commit) or, where history was rewritten (squash, rebase), by content: a commit of
the base bears the issue's trailer, and merging the delivered commit into it would change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from orchestrator.adapters.git.command import Git
from orchestrator.adapters.git.refs import branch_ref
from orchestrator.merge_close.events import Delivered, MergeClosePayload

TRAILERS = "%(trailers:key=Sudocode-Issue,valueonly,separator=%x2C)"
LOG = ("log", "--no-show-signature", "--no-color")


class GitMerges:
    """Merges into what `base` gives: the commit that the base branch stands on. Raises `WorkspaceError`."""

    def __init__(self, git: Git, *, base: Callable[[], str]) -> None:
        self._git = git
        self._base = base

    def merged(self, delivered: Iterable[Delivered]) -> Iterator[MergeClosePayload]:
        """The merge of each delivered commit that was merged. Its `pr_url` is the branch's ref.

        A commit without its issue's trailer is no work of a session's: it delivers nothing, wherever it is.
        """
        base = self._base()
        for work in delivered:
            if not self._git.commit_of(work.commit) or self._named_by(work.commit) != {work.issue_id}:
                continue
            held = self._git.holds(base, work.commit)
            if by := self._brought_by(work.commit, base) if held else self._rewritten(work, base):
                at = datetime.fromisoformat(self._git(*LOG, "-1", "--format=%cI", by))
                yield MergeClosePayload(work.issue_id, branch_ref(work.issue_id), by, at, True, "daemon")

    def _brought_by(self, commit: str, base: str) -> str:
        """The commit that brought it into the base: a merge, or itself where the base was moved on to it."""
        after = set(self._git("rev-list", "--ancestry-path", f"{commit}..{base}").split())
        line = self._git("rev-list", "--first-parent", "--reverse", f"{commit}..{base}").split()
        first = next((candidate for candidate in line if candidate in after), None)
        return commit if first is None or self._git.holds(f"{first}^1", commit) else first

    def _rewritten(self, work: Delivered, base: str) -> str | None:
        """The oldest commit on the base's own line that bears the trailer and has all of the work."""
        line = self._git(*LOG, "--first-parent", "--reverse", f"--format=%H {TRAILERS}", f"{work.commit}..{base}")
        for candidate, _, issues in (row.partition(" ") for row in line.splitlines()):
            if set(issues.split(",")) == {work.issue_id} and self._git.has_work(candidate, work.commit):
                return candidate
        return None

    def _named_by(self, commit: str) -> set[str]:
        return set(self._git(*LOG, "-1", f"--format={TRAILERS}", commit).split(","))
