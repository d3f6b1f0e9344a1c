"""Every seam of claiming, running and telling, on one page: what the verbs ask of the outside world.

Those of delivering and closing are in `forge`. What an adapter must do is tested in tests/contract where there are
several, else in tests/integration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from orchestrator.models import (
    Entry,
    ImplementerResult,
    IssueContext,
    Report,
    ReviewResult,
    Verdict,
    VerificationEvidence,
)


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


@dataclass(frozen=True)
class SessionRecord:
    """What a session worker needs to know, fixed when the session starts; it has no tracker to ask.

    `start_from` is the branch a [FIX] issue grows out of, or empty for the base branch.
    """

    session_id: str
    orchestrator_id: str
    issue: IssueContext
    spec_limit: int
    quality_limit: int
    start_from: str = ""


class Refusal(StrEnum):
    """Why an issue was not claimed."""

    HELD = "HELD"  # somebody runs it
    STOPPING = "STOPPING"  # somebody runs it and was told to stop
    PAUSED = "PAUSED"  # nothing is claimed until `orch resume`
    FULL = "FULL"  # no session worker has a free slot
    UNTOLD = "UNTOLD"  # the tracker has still to be told the end of its last session
    WAITING = "WAITING"  # its last session ended in an error; it is tried again later


@dataclass(frozen=True)
class Paused:
    """Nothing new is claimed: who asked for that, why (or empty), and since when."""

    by: str
    reason: str
    at_ms: int


class Stop(StrEnum):
    """What a stop met."""

    ASKED = "ASKED"  # a session, which ends now
    HELD = "HELD"  # none, but the issue was asked for or held back: it is not claimed until it is asked for again
    IDLE = "IDLE"  # none, and nobody had asked for it


@dataclass(frozen=True)
class Claim:
    """A lease won for an issue whose session is not started yet, or an expired one to be seen to.

    `stop` is by whom and why the session is to be ended, or empty.
    """

    issue_id: str
    token: int
    claimed_at_ms: int
    opened: bool = False
    rescues: int = 0
    stop: str = ""


@dataclass(frozen=True)
class Lease:
    """A session that is ours to run. `token` only grows; Redis refuses writes that bear an older one.

    `taken_from` is the worker that ran the issue before, `stop` by whom and why it is to be ended; both may be empty.
    """

    issue_id: str
    token: int
    record: SessionRecord
    taken_from: str = ""
    stop: str = ""


LIVE = frozenset({"claimed", "running"})
"""The states of an issue that somebody has."""


@dataclass(frozen=True)
class Holding:
    """An issue as Redis knows it: who runs it, how far it is, how it ended. Times are Unix milliseconds.

    `delivered_to` is where its work is for whoever merges it, `undelivered` why it could not be brought there yet.
    `opened`: the claim became a session; `rescues` counts the workers that its step under way has outlived.
    `stop` is by whom and why it is being stopped, or was.
    """

    issue_id: str
    state: str
    record: SessionRecord | None
    owner: str
    stage: str
    attempt: int
    verdict: str
    reason: str
    claimed_at_ms: int
    started_at_ms: int
    ended_at_ms: int
    deadline_ms: float | None
    held_until_ms: float | None
    fix_issue_id: str | None
    delivered_to: str = ""
    undelivered: str = ""
    opened: bool = False
    rescues: int = 0
    stop: str = ""

    @property
    def live(self) -> bool:
        """Whether somebody has it: it is claimed, or runs."""
        return self.state in LIVE

    @property
    def held_because(self) -> str:
        """Why it is held back: how its last session ended, if the stop of a claim did not come after that."""
        if self.reason and self.ended_at_ms >= self.claimed_at_ms:
            return self.reason
        return f"{self.stop or 'stopped by somebody'}, before its session began"


@dataclass(frozen=True)
class Untold:
    """An outbox entry. `begun`: somebody began telling it before and may have told it."""

    entry_id: str
    issue_id: str
    session_id: str
    entry: Entry
    begun: bool


class Claims(Protocol):
    """What the poll asks of the leases."""

    def free(self) -> int:
        """How many more sessions could run now; none while orch is paused."""

    def expired(self, *, opened_only: bool = False) -> list[Claim]:
        """Sessions whose holder fell silent and, unless `opened_only`, claims too."""

    def wanted(self) -> list[str]:
        """Issues that somebody asked to run next."""

    def answer(self, issue_id: str, answer: str, *, done: bool) -> None:
        """What became of a wanted issue."""

    def claim(self, issue_id: str, *, forced: bool = False) -> Claim | Refusal:
        """Win an issue, if nobody has it and a slot is free."""

    def open(self, claim: Claim, record: SessionRecord, entries: Iterable[Entry]) -> None:
        """Make the claim a session. Raises `LeaseLost`, or `StoppedByHand` when it was stopped meanwhile."""

    def abandon(self, claim: Claim) -> None:
        """Give a claim back."""

    def acquire(self, issue_id: str, owner: str) -> Lease | None:
        """Take an opened session over."""


class Outbox(Protocol):
    """What the tracker has still to be told."""

    def clear_wake(self) -> None:
        """From now on whoever adds an entry wakes a publisher again."""

    def next(self) -> Untold | None:
        """The first entry, marked as begun."""

    def told(self, untold: Untold, *, fix_issue_id: str | None = None, refusal: str = "") -> None:
        """Take an entry off."""


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
