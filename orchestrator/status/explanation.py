"""The explanation of an issue: a closed set of states, and the words about one of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class Kind(StrEnum):
    """The first word about an issue."""

    RUNS = "runs"
    WAITS = "waits"
    STOPPED = "stopped"
    DONE = "done"
    NOT_PICKED = "is not picked"
    UNKNOWN = "is not known"


class State(StrEnum):
    """Every state that an issue can be in, as seen from here."""

    RUNNING = "RUNNING"
    STARTING = "STARTING"  # claimed, and no worker has it yet
    HANDED_ON = "HANDED_ON"  # its worker gave it back or was lost; the next one takes it up
    STOPPING = "STOPPING"  # a person ends it
    WORKER_SILENT = "WORKER_SILENT"  # its lease is not renewed, and not over yet
    RESCUE = "RESCUE"  # its lease is over
    TRACKER_AWAY = "TRACKER_AWAY"
    UNKNOWN_ISSUE = "UNKNOWN_ISSUE"
    MERGED = "MERGED"
    CLOSED = "CLOSED"
    CLOSED_BY_FIX = "CLOSED_BY_FIX"
    UNTOLD = "UNTOLD"  # the tracker is still to be told the end of its last session
    OVERFLOW = "OVERFLOW"
    MERGE_REJECTED = "MERGE_REJECTED"
    UNDELIVERED = "UNDELIVERED"
    TO_REVIEW = "TO_REVIEW"
    NOTHING_TO_MERGE = "NOTHING_TO_MERGE"  # verified, and the base has all of it
    REVIEW_BY_HAND = "REVIEW_BY_HAND"  # in review, and not by a session of ours
    VERIFY_FAILED = "VERIFY_FAILED"
    NO_VERIFICATION = "NO_VERIFICATION"
    LOST = "LOST"  # in progress under our name, and Redis knows of no session
    SOMEBODY_ELSE = "SOMEBODY_ELSE"  # in progress under another name
    MALFORMED = "MALFORMED"
    BLOCKER_CYCLE = "BLOCKER_CYCLE"
    BLOCKER_IN_REVIEW = "BLOCKER_IN_REVIEW"
    BLOCKED = "BLOCKED"
    STATUS_BLOCKED = "STATUS_BLOCKED"  # so its status says, and no open issue is the reason
    STOPPED = "STOPPED"  # a person ended it
    RESCUED_TOO_OFTEN = "RESCUED_TOO_OFTEN"
    HELD = "HELD"  # too many errors, or [FIX] issues, in a row
    BACKOFF = "BACKOFF"
    STACK_DOWN = "STACK_DOWN"
    REDIS_AWAY = "REDIS_AWAY"
    REDIS_TAKES_NO_WRITES = "REDIS_TAKES_NO_WRITES"
    PAUSED = "PAUSED"
    BASE_RED = "BASE_RED"
    BASE_UNDER_WAY = "BASE_UNDER_WAY"  # it is being verified
    NO_WORKER = "NO_WORKER"
    NO_SLOT = "NO_SLOT"
    WANTED = "WANTED"
    NOT_READY = "NOT_READY"
    READY = "READY"


@dataclass(frozen=True)
class Explanation:
    """One issue explained: what it does and why, in a line; then what is known of it, and what a person may do.

    `next` is what happens without a person; `do` are commands to paste, the best one first; `also` is what else is
    wrong, and what could not be asked.
    """

    kind: Kind
    state: State
    cause: str
    why: str = ""
    since: datetime | None = None
    next: str = ""
    evidence: tuple[str, ...] = ()
    do: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def row(self) -> str:
        """The words for a table's row: the cause, and until when it holds the issue back."""
        return f"{self.cause}; {self.next}" if self.state in _HELD_BACK else self.cause

    @property
    def trouble(self) -> bool:
        """True if a person should see to it."""
        return self.state in _TROUBLE or (self.kind is Kind.STOPPED and self.state not in _GO_ON)


_HELD_BACK = {State.STOPPED, State.HELD, State.BACKOFF, State.RESCUED_TOO_OFTEN}
_GO_ON = {State.STOPPING, State.OVERFLOW}
_TROUBLE = {
    State.RESCUE,
    State.UNDELIVERED,
    State.MERGE_REJECTED,
    State.NOTHING_TO_MERGE,
    State.LOST,
    State.MALFORMED,
    State.BLOCKER_CYCLE,
    State.BASE_RED,
}


def at(ms: float) -> datetime | None:
    """The moment of a time in Redis; None for one that never was."""
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None
