"""Every seam of the system, on one page: what the verbs ask of the outside world.

Each port has a contract suite in tests/contract that every adapter passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.models import Entry, ImplementerResult, Report, ReviewResult, Verdict, VerificationEvidence


class IssueTracker(Protocol):
    """What the control side asks of the tracker. `SudocodeGateway` is the one adapter; below it are five MCP tools.

    Every method raises `TrackerUnavailable` (try later), `TrackerRefused` (it said no) or `InvalidMCPResponseError`.
    """

    def get_ready_issues(self) -> Sequence[object]:
        """Records of issues that the tracker holds ready, unsorted and not yet validated."""

    def show_issue(self, issue_id: str) -> Mapping[str, object]:
        """One issue with content, relationships, tags and the feedback it gave (newest first)."""

    def set_issue_status(self, issue_id: str, status: str) -> None:
        """Set, not toggle: running it again changes nothing."""

    def add_feedback(self, issue_id: str, content: str, *, look_first: bool = False) -> None:
        """Append one feedback entry of the issue on itself. With look_first, not if it is there already."""

    def create_fix_issue(self, title: str, body: str, *, look_first: bool = False) -> str:
        """Create an issue and give its id. With look_first, the id of one with the very same title and body."""

    def link_issues(self, from_id: str, to_id: str, relation: str) -> None:
        """Link two issues; a second time changes nothing."""


class History(Protocol):
    """The recorded reports of one session, in order, and what they make the tracker be told."""

    def recorded(self) -> Sequence[Report]:
        """All reports so far."""

    def record(self, report: Report, entries: Iterable[Entry]) -> None:
        """Record a step's report and its entries together. The first record of a step holds. Raises `LeaseLost`."""

    def close(self, verdict: Verdict, entries: Iterable[Entry]) -> str | None:
        """Record the end, once; gives the [FIX] issue's id where it is known already. Raises `LeaseLost`."""


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


class Workspace(Protocol):
    """The worktrees of one repo, one per issue. Every method raises `WorkspaceError` when git refuses."""

    def prepare(self, issue_id: str) -> Worktree:
        """The issue's worktree on `orch/<issue-id>`, made or made whole again; running it again changes nothing."""

    def head(self, worktree: Worktree) -> str:
        """The commit the branch stands on."""

    def commit(self, worktree: Worktree, message: str) -> str:
        """All changes in the worktree as one commit on the branch; the branch's commit as it is when nothing changed."""

    def restore(self, worktree: Worktree, commit: str) -> list[str]:
        """Put tree and branch back to `commit` and give the paths whose changes were thrown away."""

    def change(self, worktree: Worktree, *, max_chars: int) -> str:
        """The difference from base to the branch, for a reviewer: a list of files, then the diff, cut at max_chars."""

    def drop(self, issue_id: str) -> None:
        """Remove the worktree; the branch stays. Running it again changes nothing."""


class Verifier(Protocol):
    """Runs a verification command on a commit."""

    def __call__(self, command: Sequence[str], worktree: Worktree, commit: str) -> VerificationEvidence:
        """Evidence of one run. Over its time limit the command is killed with all its descendants: exit code 124."""
