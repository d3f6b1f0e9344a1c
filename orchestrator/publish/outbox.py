"""Telling the tracker what the outbox holds, in order, once."""

from __future__ import annotations

from typing import Protocol

import structlog

from orchestrator.errors import InvalidMCPResponseError, TrackerRefused, TrackerUnavailable
from orchestrator.models import IssueTracker, Untold
from orchestrator.publish.entries import tell

log = structlog.get_logger(__name__)


def publish(outbox: Outbox, tracker: IssueTracker) -> int:
    """Tell every entry that waits; gives how many were told.

    Only one publisher may run at a time (the caller holds a lock). Being killed anywhere is harmless: an entry is
    taken off after it was told, and one that was begun before is looked for first. TrackerUnavailable leaves the entry
    where it is; what the tracker refuses is put aside for a person, so that it stops nothing else.
    """
    outbox.clear_wake()
    told = 0
    while (untold := outbox.next()) is not None:
        try:
            fix_issue_id = tell(untold.entry, tracker, look_first=untold.begun)
            outbox.told(untold, fix_issue_id=fix_issue_id)
            told += 1
        except TrackerUnavailable as away:
            raise TrackerUnavailable(f"{untold.issue_id} and what waits behind it is told later: {away}") from away
        except (TrackerRefused, InvalidMCPResponseError) as refusal:
            log.warning("tracker_refused", issue=untold.issue_id, session=untold.session_id, reason=str(refusal))
            outbox.told(untold, refusal=f"{untold.issue_id}: {refusal}")
    return told


class Outbox(Protocol):
    """The entries that the tracker has still to be told."""

    def clear_wake(self) -> None:
        """Let the next entry that is added wake a publisher again."""

    def next(self) -> Untold | None:
        """The first entry, marked as begun."""

    def told(self, untold: Untold, *, fix_issue_id: str | None = None, refusal: str = "") -> None:
        """Take an entry off."""
