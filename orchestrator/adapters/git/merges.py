"""Merges of delivered commits into the base, found in the repo itself, without a forge.

Nothing is remembered and nothing is written but loose objects: each look asks about the commits it is given. A merge is
proved by history (the base holds the commit) or, where history was rewritten (squash, rebase), by a commit on the
base's own line that names the issue and has the work. Either way some of the work must be in the base's files now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.adapters.git.command import Git, question
from orchestrator.adapters.git.refs import branch_ref
from orchestrator.merge_close.events import Commit, Delivered, MergeClosePayload, issue_of_message, taken_back

LOG = ("log", "--no-show-signature", "--no-color")

_STEP = re.compile(r"^\s*(Orch-(?:Session|Step): .*?)\s*$", re.MULTILINE)
_CONFLICTS = 1
"""The exit code of `git merge-tree` for a merge that a person has to finish."""


@dataclass(frozen=True)
class _Way:
    """A way by which work came into the base: the commit that brought it, and the one before it."""

    by: str
    before: str


@dataclass(frozen=True)
class _Named:
    """A commit on the base's own line that names one issue: its first parent, when it was made, and its words."""

    sha: str
    parent: str
    at: datetime
    message: str


@dataclass(frozen=True)
class _Tried:
    """A merge tried out: the files it comes to, and those among them that conflict."""

    tree: str
    conflicts: frozenset[str]


class GitMerges:
    """Merges into what `base` gives: the commit that the base branch stands on. Raises `WorkspaceError`."""

    def __init__(self, git: Git, *, base: Callable[[], str]) -> None:
        self._git = git
        self._base = base

    def merged(self, delivered: Iterable[Delivered]) -> Iterator[MergeClosePayload]:
        """The merge of each delivered commit that was merged, and not taken back. Its `pr_url` is the branch's ref."""
        base = self._base()
        for work in delivered:
            if not self._git.commit_of(work.commit) or not self._delivers(work):
                continue
            if way := next((way for way in self._ways(work, base) if self._there(work, way, base)), None):
                at = datetime.fromisoformat(self._git(*LOG, "-1", "--format=%cI", way.by))
                yield MergeClosePayload(work.issue_id, branch_ref(work.issue_id), way.by, at, True, "daemon")

    def _delivers(self, work: Delivered) -> bool:
        """True when the session came to work of its own. Without its base on record, the commit's trailer says so."""
        if work.base:
            return not work.empty
        trailers = "--format=%(trailers:key=Sudocode-Issue,valueonly,separator=%x2C)"
        return {work.issue_id} == set(self._git(*LOG, "-1", trailers, work.commit).split(","))

    def _ways(self, work: Delivered, base: str) -> Iterator[_Way]:
        """Yield the ways by which it may have come in, the oldest first."""
        if self._git.holds(base, work.commit):
            by = self._brought_by(work.commit, base)
            yield _Way(by, work.base if by == work.commit and work.base else f"{by}^1")
        named = {commit.sha: commit for commit in self._naming(work, base)}
        for commit in named.values():
            first = commit
            while earlier := named.get(first.parent):
                first = earlier  # a rebase is a row of them
            if self._is_rewritten(work, commit):
                yield _Way(commit.sha, first.parent)

    def _brought_by(self, commit: str, base: str) -> str:
        """The commit that brought it into the base: a merge, or itself where the base was moved on to it."""
        after = set(self._git("rev-list", "--ancestry-path", f"{commit}..{base}").split())
        line = self._git("rev-list", "--first-parent", "--reverse", f"{commit}..{base}").split()
        first = next((candidate for candidate in line if candidate in after), None)
        return commit if first is None or self._git.holds(f"{first}^1", commit) else first

    def _naming(self, work: Delivered, base: str) -> Iterator[_Named]:
        """Yield the commits on the base's own line, oldest first, that name this issue alone, made since it began."""
        since = work.since.replace(microsecond=0) if work.since else datetime.min.replace(tzinfo=UTC)
        words = ("--fixed-strings", f"--grep={work.issue_id}", "-z", "--format=%H %cI %P%n%B")
        rows = self._git(*LOG, "--first-parent", "--reverse", *words, f"{work.commit}..{base}")
        for row in filter(None, rows.split("\0")):
            head, _, message = row.partition("\n")
            sha, at, *parents = head.split()
            made = datetime.fromisoformat(at)
            if parents and made >= since and issue_of_message(message) == work.issue_id:
                yield _Named(sha, parents[0], made, message)

    def _is_rewritten(self, work: Delivered, commit: _Named) -> bool:
        """True when it has all of the work: as it was, or, where that conflicts, with the conflicts solved by hand.

        Whether a person solved them, or left them out, its words are believed; one that bears the trailers of steps but
        not of the last one is a part of the work.
        """
        tried = self._try(commit.sha, work.commit)
        if tried is None or not tried.conflicts:
            return tried is not None and tried.tree == self._git.tree_of(commit.sha)
        steps = set(_STEP.findall(commit.message))
        whole = not steps or steps >= set(_STEP.findall(self._git(*LOG, "-1", "--format=%B", work.commit)))
        return whole and self._changed(commit.sha, tried.tree) <= tried.conflicts

    def _there(self, work: Delivered, way: _Way, base: str) -> bool:
        """True when the base has the work now, or what others made of it since.

        It has not where the merge touched none of its files (`-s ours`), and where it was taken back: a later commit
        says so, or to take it back now would change nothing.
        """
        start = self._start(work, way.before)
        again = self._try(base, self._made(f"{work.commit}^{{tree}}", on=start))
        if again and not again.conflicts and again.tree == self._git.tree_of(base):
            return True
        if not self._changed(way.before, way.by) & self._files(work, way.before):
            return False
        if self._says_it_is_gone(work, way, base):
            return False
        back = self._try(base, self._made(f"{way.before}^{{tree}}", on=way.by))
        return back is None or bool(back.conflicts) or back.tree != self._git.tree_of(base)

    def _says_it_is_gone(self, work: Delivered, way: _Way, base: str) -> bool:
        names = Commit(way.by, self._git(*LOG, "-1", "--format=%B", way.by)).names | Commit(work.commit, "").names
        rows = self._git(*LOG, "-z", "--regexp-ignore-case", "--grep=revert", "--format=%H%n%B", f"{way.by}..{base}")
        commits = (row.partition("\n") for row in filter(None, rows.split("\0")))
        return bool(taken_back(names, (Commit(sha, message) for sha, _, message in commits)))

    def _start(self, work: Delivered, before: str) -> str:
        """The commit from which the work and the base went apart; where they never met, the one that it began from."""
        return self._git.ask("merge-base", before, work.commit) or work.base or f"{work.commit}^1"

    def _files(self, work: Delivered, before: str) -> set[str]:
        """The files that the work touches."""
        return self._changed(self._start(work, before), work.commit)

    def _changed(self, old: str, new: str) -> set[str]:
        return set(self._git("diff-tree", "-r", "-z", "--no-renames", "--name-only", old, new).split("\0")) - {""}

    def _made(self, tree: str, *, on: str) -> str:
        """A commit of these files after that commit. It is the same object each time, so looks do not fill the repo."""
        who = "orch <orch@localhost> 0 +0000"
        files = self._git("rev-parse", "--verify", tree)
        parent = self._git("rev-parse", "--verify", f"{on}^{{commit}}")
        text = f"tree {files}\nparent {parent}\nauthor {who}\ncommitter {who}\n\ntried out\n"
        return self._git("hash-object", "-t", "commit", "-w", "--stdin", stdin=text)

    def _try(self, ours: str, theirs: str) -> _Tried | None:
        """What merging these two comes to; None with a git older than 2.38, which cannot tell."""
        asked = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs)
        done = question(self._git.common, f"--git-dir={self._git.common}", *asked, timeout_s=60.0)
        if done.returncode not in (0, _CONFLICTS):
            return None
        tree, *conflicts = done.stdout.rstrip("\0\n").split("\0")
        return _Tried(tree, frozenset(conflicts))
