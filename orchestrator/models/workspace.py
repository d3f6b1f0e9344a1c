"""The workspace of an issue's agents, as a session asks for it: worktree, remote, verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.models.facts import VerificationEvidence


@dataclass(frozen=True)
class Worktree:
    """One issue's checkout: `path` on `branch`, which grew out of commit `base`."""

    issue_id: str
    path: Path
    branch: str
    base: str


@dataclass(frozen=True)
class Fetched:
    """Commits that the repo's remote has, now in this clone too; empty where it has none, or does not answer.

    `work` is the issue's own, `start_from` that of the branch it grows out of, `base` the base branch's.
    """

    work: str = ""
    start_from: str = ""
    base: str = ""


NOTHING_FETCHED = Fetched()


class Remote(Protocol):
    """One holder's work on one issue, where other hosts find it. No method fails for a remote that is away."""

    def fetch(self) -> Fetched:
        """Fetch the issue's commits from the remote."""

    def push(self, commit: str) -> None:
        """Have the remote hold `commit` for the issue. Raises `LeaseLost` when a newer holder has pushed there."""


class Workspace(Protocol):
    """The worktrees of one repo, one per issue. Every method raises `WorkspaceError` when git refuses."""

    def prepare(self, issue_id: str, *, start_from: str = "", fetched: Fetched = NOTHING_FETCHED) -> Worktree:
        """The issue's worktree on `orch/<issue-id>`, made or made whole again; running it again changes nothing.

        A new branch grows out of the branch `start_from`, or of the base when that is empty or gone. Of each branch,
        what was `fetched` counts, unless our own is ahead of it.
        """

    def head(self, worktree: Worktree) -> str:
        """The commit the branch stands on."""

    def commit(self, worktree: Worktree, message: str) -> str:
        """All changes in the worktree as one commit on the branch; without changes, the commit it stands on."""

    def restore(self, worktree: Worktree, commit: str) -> list[str]:
        """Put tree and branch back to `commit` and give the paths whose changes were thrown away.

        Raises `CommitMissing` when it is not in this clone.
        """

    def put_aside(self, issue_id: str) -> list[str]:
        """Put tree and branch back to where the running step started; the refs that keep what was done since.

        Nothing is done where there is no worktree. Running it again gives an empty list.
        """

    def change(self, worktree: Worktree, *, max_chars: int) -> str:
        """The difference from base to the branch, for a reviewer: a list of files, then the diff, cut at max_chars."""

    def drop(self, issue_id: str) -> None:
        """Remove the worktree; the branch stays. Running it again changes nothing."""


Verifier = Callable[[Sequence[str], Worktree, str], VerificationEvidence]
"""Runs a verification command on a commit, in a worktree that has it: (command, worktree, commit) to the evidence.

Over its time limit the command is killed with all its descendants: exit code 124.
"""
