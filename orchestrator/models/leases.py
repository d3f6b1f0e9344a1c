"""Claims, leases and sessions as Redis knows them, and how long an issue waits after an error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.models.facts import Entry, IssueContext


@dataclass(frozen=True)
class SessionRecord:
    """All that a session worker knows of its session, fixed at the start: it has no tracker to ask.

    `start_from` is the branch a [FIX] issue grows out of, or empty for the base branch.
    """

    session_id: str
    orchestrator_id: str
    issue: IssueContext
    spec_limit: int
    quality_limit: int
    start_from: str = ""


FIRST_WAIT_S = 30.0
LONGEST_WAIT_S = 3600.0


def wait_after_error(errors: int, *, limit: int) -> float:
    """Seconds that an issue waits after so many sessions in a row ended in an error.

    Twice as long after each, up to an hour. From the limit on it is `math.inf`: held until a person asks for it.
    """
    if errors >= limit:
        return math.inf
    return min(FIRST_WAIT_S * 2.0 ** (errors - 1), LONGEST_WAIT_S)


class SessionState(StrEnum):
    """The state of a session. The values are stored in Redis."""

    CLAIMED = "claimed"  # its issue is taken, and no worker runs it yet
    RUNNING = "running"  # a worker runs it
    ENDED = "ended"  # it has a verdict, or its claim was given back


LIVE = (SessionState.CLAIMED, SessionState.RUNNING)
"""The states in which an issue is taken."""


class Refusal(StrEnum):
    """The reason why an issue was not claimed."""

    TAKEN = "TAKEN"  # it has a session, claimed or running
    STOPPING = "STOPPING"  # its session was told to stop and has not ended yet
    PAUSED = "PAUSED"  # nothing is claimed until `orch resume`
    FULL = "FULL"  # no session worker has a free slot
    UNTOLD = "UNTOLD"  # the tracker has still to be told the end of its last session
    WAITING = "WAITING"  # its last session ended in an error; it is tried again later


@dataclass(frozen=True)
class Paused:
    """A pause, during which nothing new is claimed: by whom, why (or empty), and since when."""

    by: str
    reason: str
    at_ms: int


@dataclass(frozen=True)
class BaseVerified:
    """The last verification of the base branch: of which commit, by which commands, and when.

    `says` tells how it went; `failed` tells that it was red, where, and where its log is, else it is empty.
    `waived_by` is the person who lets sessions start all the same.
    """

    commit: str
    commands: str
    says: str
    at_ms: int
    failed: str = ""
    waived_by: str = ""

    @property
    def red(self) -> bool:
        """True while it keeps everything from being claimed."""
        return bool(self.failed) and not self.waived_by


@dataclass(frozen=True)
class BaseTrouble:
    """The reason why the base branch keeps everything from being claimed; if it is red, a person has to see to it."""

    says: str
    red: bool
    since_ms: int = 0


class Stop(StrEnum):
    """The thing that a stop found."""

    ASKED = "ASKED"  # a session, which ends now
    HELD = "HELD"  # none, but the issue was asked for or held back: it is not claimed until it is asked for again
    IDLE = "IDLE"  # none, and the issue was not asked for


@dataclass(frozen=True)
class Claim:
    """A lease won for an issue whose session is not started yet, or an expired one to be seen to.

    `stop` says who asked to end the session and why, or is empty.
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

    `taken_from` is the worker that ran the issue before, `stop` says who asked to end it and why; both may be empty.
    """

    issue_id: str
    token: int
    record: SessionRecord
    taken_from: str = ""
    stop: str = ""


@dataclass(frozen=True)
class Holding:
    """An issue's last session as Redis knows it: its worker, its step, its end. Times are Unix milliseconds.

    `delivered_to` is where its work waits to be merged, `undelivered` why it could not be brought there yet.
    `opened`: the claim became a session; `rescues` counts the workers that its step under way has outlived.
    `stop` says who asked to end it and why; it may have ended since.
    """

    issue_id: str
    state: SessionState
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
        """True while it is claimed or running."""
        return self.state in LIVE

    @property
    def held_because(self) -> str:
        """The reason of its last end, or the stop of its claim if that came later."""
        if self.reason and self.ended_at_ms >= self.claimed_at_ms:
            return self.reason
        return f"{self.stop or 'stopped by hand'}, before its session began"


@dataclass(frozen=True)
class Untold:
    """An outbox entry. `begun`: a publisher began with it before and may have told the tracker."""

    entry_id: str
    issue_id: str
    session_id: str
    entry: Entry
    begun: bool
