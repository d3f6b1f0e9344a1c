"""Leftovers of issues in a repo, its worktrees and its remote: found, judged by what would be lost, removed."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from orchestrator.adapters.git.refs import ASIDE, BRANCHES, REMOTE, STARTS
from orchestrator.adapters.git.remote import RemoteAway, RemoteRefs, work_of
from orchestrator.errors import WorkspaceError
from orchestrator.models import ISSUE_ID, branch_of


class LeftoverKind(StrEnum):
    """The kinds of leftovers, in the order of removal: dropping a worktree reads its branch."""

    WORKTREE = "worktree"
    BRANCH = "branch"
    ASIDE = "put-aside work"
    REMOTE = "remote ref"


@dataclass(frozen=True)
class Leftover:
    """Something of an issue in git: a folder, or a ref and where it stands. `why` it may go, or what would be lost."""

    issue_id: str
    kind: LeftoverKind
    name: str
    commit: str = ""
    may_go: bool = False
    why: str = ""

    def judged(self, why: str, *, may_go: bool) -> Leftover:
        """The same, judged."""
        return replace(self, may_go=may_go, why=why)


class GitLeftovers:
    """The leftovers under `worktrees`, in the repo, and on the remote of `refs`; `drop` removes an issue's worktree.

    Work is safe when base has it, here or on the remote, also squashed: merging it once more would change nothing. And
    it is safe on a branch of the remote, as this clone last saw it.
    """

    def __init__(self, refs: RemoteRefs, *, worktrees: Path, base: str, drop: Callable[[str], None]) -> None:
        self._refs = refs
        self._git = refs.git
        self._worktrees = worktrees
        self._base = base
        self._drop = drop

    def find(self, closed: Container[str]) -> tuple[list[Leftover], list[str]]:
        """All leftovers, those of `closed` issues judged; and a line for what could not be looked at."""
        problems: list[str] = []
        theirs: dict[str, str] = {}
        try:
            theirs = self._on_remote(closed)
        except RemoteAway as away:
            problems.append(f"{self._refs.name} does not answer, so what is there stays: {away}")
        here, tracked = f"refs/heads/{self._base}", f"refs/remotes/{self._refs.name}/{self._base}"
        known = (theirs.pop(here, None), self._git.commit_of(here), self._git.commit_of(tracked))
        bases = {base for base in known if base}
        refs = [
            *self._local(),
            *(Leftover(ref.removeprefix(REMOTE), LeftoverKind.REMOTE, ref, commit) for ref, commit in theirs.items()),
        ]
        found = [*self._folders(), *(ref for ref in refs if ISSUE_ID.fullmatch(ref.issue_id))]
        judged = [self._judged(leftover, bases) if leftover.issue_id in closed else leftover for leftover in found]
        return judged, problems

    def remove(self, leftover: Leftover) -> None:
        """Remove one that was found, if it has not moved since. Raises WorkspaceError."""
        match leftover.kind:
            case LeftoverKind.WORKTREE:
                self._drop(leftover.issue_id)
            case LeftoverKind.REMOTE:
                try:
                    self._refs.swap(leftover.name, leftover.commit, "")
                except RemoteAway as away:
                    raise WorkspaceError(f"{self._refs.name} did not remove it: {away}; try again later") from away
            case LeftoverKind.BRANCH | LeftoverKind.ASIDE:
                self._git("update-ref", "-d", leftover.name, leftover.commit)

    def _on_remote(self, closed: Container[str]) -> dict[str, str]:
        """The refs of issues on the remote, and its base. Base and the work of closed issues are in this clone then."""
        if not self._refs.exists():
            return {}
        base = f"refs/heads/{self._base}"
        listed = self._refs.list(f"{REMOTE}*", base)
        wanted = [ref for ref in listed if ref == base or ref.removeprefix(REMOTE) in closed]
        return listed | (self._refs.read(*wanted) if wanted else {})

    def _folders(self) -> Iterator[Leftover]:
        """Worktrees; the ref of a step's start is as much as one, and goes with it."""
        starts = self._git("for-each-ref", "--format=%(refname)", STARTS).split()
        issues = {path.name for path in self._worktrees.glob("i-*")} | {ref.removeprefix(STARTS) for ref in starts}
        for issue_id in filter(ISSUE_ID.fullmatch, issues):
            yield Leftover(issue_id, LeftoverKind.WORKTREE, str(self._worktrees / issue_id))

    def _local(self) -> Iterator[Leftover]:
        for line in self._git("for-each-ref", "--format=%(refname) %(objectname)", BRANCHES, ASIDE).splitlines():
            ref, commit = line.split()
            if ref.startswith(ASIDE):
                yield Leftover(ref.removeprefix(ASIDE).partition("/")[0], LeftoverKind.ASIDE, ref, commit)
            else:
                yield Leftover(ref.removeprefix(BRANCHES), LeftoverKind.BRANCH, ref, commit)

    def _judged(self, leftover: Leftover, bases: Iterable[str]) -> Leftover:
        if leftover.kind is LeftoverKind.WORKTREE:
            return leftover.judged("work not committed is put aside in git", may_go=True)
        folder = self._git("for-each-ref", "--format=%(worktreepath)", leftover.name)
        if folder and Path(folder) != self._worktrees / leftover.issue_id:
            return leftover.judged(f"it is checked out in {folder}; switch that to another branch", may_go=False)
        if safe := self._safe(work_of(self._git, leftover.commit), bases):
            return leftover.judged(safe, may_go=True)
        drop = {
            LeftoverKind.BRANCH: f"git branch -D {branch_of(leftover.issue_id)}",
            LeftoverKind.REMOTE: f"git push {self._refs.name} :{leftover.name}",
        }.get(leftover.kind, f"git update-ref -d {leftover.name}")
        why = f"not merged into {self._base}, nor on a branch of a remote; merge it, push it, or end it with `{drop}`"
        return leftover.judged(why, may_go=False)

    def _safe(self, work: str, bases: Iterable[str]) -> str:
        """The reason that nothing is lost without this commit; empty when something would be."""
        for base in bases:
            if self._git.holds(base, work) or self._git.has_work(base, work):
                return f"merged into {self._base}"
        on_remote = self._refs.name and not self._git.beyond(work, f"--remotes={self._refs.name}")
        return f"on a branch of {self._refs.name}" if on_remote else ""
