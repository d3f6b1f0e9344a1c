"""The workspace of an issue's agents, as a session asks for it: worktree, remote, verification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from orchestrator.models.facts import VerificationEvidence

NAMED = 20
"""So many of a kind are named in a line."""


@dataclass(frozen=True)
class Worktree:
    """One issue's checkout: `path` on `branch`, which grew out of commit `base`; prepared by the holder of `token`."""

    issue_id: str
    path: Path
    branch: str
    base: str
    token: int = 0


@dataclass(frozen=True)
class Committed:
    """A step's work as a commit, and a line for each thing in the worktree that could not be a part of it."""

    commit: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """Commits that the repo's remote has, now in this clone too; empty where it has none, or does not answer.

    `work` is the issue's own, `start_from` that of the branch it grows out of, `base` the base branch's.
    """

    work: str = ""
    start_from: str = ""
    base: str = ""


NOTHING_FETCHED = Fetched()


@dataclass(frozen=True)
class Outside:
    """One look at what is the user's and no agent's: refs, settings and hooks of the repo, and its main checkout.

    `base` is the ref that work starts from. `files` are the changed ones of the checkout, with what tells one change
    from the next; None where that could not be asked safely, as the settings say what git runs when it looks at files.
    """

    base: str
    refs: Mapping[str, str]
    settings: frozenset[tuple[str, str]]
    hooks: Mapping[str, object]
    files: Mapping[str, object] | None

    @property
    def base_commit(self) -> str:
        """The commit that work starts from."""
        return self.refs.get(self.base, "")

    def since(self, before: Self) -> list[str]:
        """A line for each kind of thing that is not as it was; none when all is."""
        kinds = {
            "refs": sorted(self._refs_since(before.refs)),
            "settings": sorted({name for name, _ in self.settings ^ before.settings}),
            "hooks and attributes": _differing(self.hooks, before.hooks),
            "main checkout": _differing(self.files, before.files),
        }
        return [f"{kind}: {', '.join(names[:NAMED])}" for kind, names in kinds.items() if names]

    def _refs_since(self, before: Mapping[str, str]) -> Iterator[str]:
        """Of branches that people work on only a deletion is told, for they move all the time; and the base, always."""
        for ref in before.keys() | self.refs.keys():
            was, now = before.get(ref, ""), self.refs.get(ref, "")
            told = ref == self.base or not ref.startswith("refs/heads/") or not now
            if was != now and told:
                yield f"{ref} {was[:12] or '(new)'} -> {now[:12] or '(deleted)'}"


def _differing(now: Mapping[str, object] | None, before: Mapping[str, object] | None) -> list[str]:
    if now is None or before is None:
        return []
    return sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))


class Remote(Protocol):
    """One holder's work on one issue, where other hosts find it. No method fails for a remote that is away."""

    def fetch(self) -> Fetched:
        """Fetch the issue's commits from the remote."""

    def push(self, commit: str) -> None:
        """Have the remote hold `commit` for the issue. Raises `LeaseLost` when a newer holder has pushed there."""


class Workspace(Protocol):
    """The worktrees of one repo, one per issue, each with a git repository of its own that agents may ruin.

    Every method raises `WorkspaceError` when git refuses, and `LeaseLost` for a holder that another one followed.
    """

    def prepare(
        self, issue_id: str, *, start_from: str = "", fetched: Fetched = NOTHING_FETCHED, token: int = 0
    ) -> Worktree:
        """The issue's worktree on `orch/<issue-id>`, made or made whole again; running it again changes nothing.

        A new branch grows out of the branch `start_from`, or of the base when that is empty or gone. Of each branch,
        what was `fetched` counts, unless our own is ahead of it.
        """

    def head(self, worktree: Worktree) -> str:
        """The commit the branch stands on."""

    def commit(self, worktree: Worktree, message: str) -> Committed:
        """All changes in the worktree as one commit on the branch; without changes, the commit it stands on."""

    def restore(self, worktree: Worktree, commit: str) -> list[str]:
        """Put tree and branch back to `commit` and give the paths whose changes were thrown away.

        Raises `CommitMissing` when it is not in this clone.
        """

    def outside(self, before: Outside | None = None) -> Outside:
        """A look at what is the user's and no agent's, to be compared with the one `before`."""

    def intrusion(
        self, worktree: Worktree, commit: str, *, base_was: str = "", fetched: Fetched = NOTHING_FETCHED
    ) -> str:
        """Why the base is not what people made it, as far as a session at work can tell; empty when nothing shows it.

        It has `commit`, which nobody could merge yet; or since it stood at `base_was` it got what nobody delivered.
        """

    def put_aside(self, issue_id: str) -> list[str]:
        """Put tree and branch back to where the running step started; the refs that keep what was done since.

        Nothing is done where there is no worktree. Running it again gives an empty list.
        """

    def change(self, worktree: Worktree, *, max_chars: int) -> str:
        """The difference from base to the branch, for a reviewer: a list of files, then the diff, cut at max_chars."""

    def adds(self, commit: str, *, grown_from: str = "") -> bool:
        """True if merging `commit` into the base branch would change anything, as far as that is known here.

        `grown_from` is the commit of the base that its branch left; found out where it is empty.
        """

    def changed(self, worktree: Worktree, commit: str) -> list[str]:
        """The paths that differ between the worktree's base and a commit, sorted."""

    def clean(self, issue_id: str, commit: str) -> AbstractContextManager[Worktree]:
        """A checkout of exactly `commit` in a repository of its own, with nothing else in it; gone when left.

        `issue_id` may also be BASE, for what is about no issue.
        """

    def drop(self, issue_id: str) -> None:
        """Remove the worktree; the branch stays. Running it again changes nothing."""


Verifier = Callable[[Sequence[str], Worktree, str], VerificationEvidence]
"""Runs a verification command on a commit, in a worktree that has it: (command, worktree, commit) to the evidence.

Over its time limit the command is killed with all its descendants: exit code 124.
"""

SetUp = Callable[[Worktree, str], VerificationEvidence | None]
"""Makes a checkout of a commit fit for work, as orch.toml says; evidence of the command that failed, None when all is
well. Running it again is harmless."""

BASE = "base"
"""Stands for the base branch where an issue's id is asked for: it is the name of a folder."""
