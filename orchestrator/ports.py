"""Every seam of claiming, running and telling, on one page: what the verbs ask of the outside world.

Those of delivering and closing are in `forge`. What an adapter must do is tested in tests/contract where there are
several, else in tests/integration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from orchestrator.models import (
    Entry,
    ImplementerResult,
    Report,
    ReviewResult,
    Verdict,
    VerificationEvidence,
)


class History(Protocol):
    """The recorded reports of one session, in order, and what they make the tracker be told."""

    def recorded(self) -> Sequence[Report]:
        """All reports so far."""

    def record(self, report: Report, entries: Iterable[Entry]) -> None:
        """Record a step's report and its entries together. The first record of a step holds. Raises `LeaseLost`."""

    def close(self, verdict: Verdict, entries: Iterable[Entry], *, reason: str = "") -> str | None:
        """Record the end, once, and why, for people; gives the [FIX] issue's id if known yet. Raises `LeaseLost`."""


class AgentTransport(Protocol):
    """Asks one agent once, for one role, and gives back everything it printed.

    Raises `AgentFailed`, `AgentTimedOut` or `AgentSilent`; and `SessionStopped` when the run was cut off.
    """

    def __call__(self, role: str, prompt: str, /) -> str:
        """Role is "implementer", "spec_reviewer" or "quality_reviewer"."""


class Implementer(Protocol):
    """The implementer's side of a session."""

    def __call__(self, prompt: str, fix_list: Sequence[str], /) -> ImplementerResult:
        """An empty fix_list asks for the implementation, anything else for those fixes."""


class Reviewer(Protocol):
    """A reviewer's side of a session."""

    def __call__(self, prompt: str, implementer_result: ImplementerResult, attempt: int, /) -> ReviewResult:
        """Attempt counts from 1."""


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
        """What the remote has for the issue."""

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


class LeftoverKind(StrEnum):
    """What an issue can leave behind, in the order in which it goes: a dropped worktree looks at its branch."""

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


class Verifier(Protocol):
    """Runs a verification command on a commit."""

    def __call__(self, command: Sequence[str], worktree: Worktree, commit: str) -> VerificationEvidence:
        """Evidence of one run. Over its time limit the command is killed with all its descendants: exit code 124."""
