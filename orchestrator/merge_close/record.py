"""An issue as the rules of closing need it, and the markers of merges in its feedback."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.issue import Issue
from orchestrator.merge_close.events import MergeClosePayload, merge_identity
from orchestrator.models import IssueTracker, Stage
from orchestrator.snapshot import Event, Snapshot, read_snapshot
from orchestrator.text import bounded_text, one_line


class Marker(StrEnum):
    """The kinds of entries about a merge in an issue's feedback."""

    MERGE_EVIDENCE_RECORDED = "MERGE_EVIDENCE_RECORDED"
    MERGE_CLOSE_APPLIED = "MERGE_CLOSE_APPLIED"
    MERGE_CLOSE_SKIPPED_ALREADY_CLOSED = "MERGE_CLOSE_SKIPPED_ALREADY_CLOSED"
    MERGE_CLOSE_REJECTED = "MERGE_CLOSE_REJECTED"
    OVERFLOW_PARENT_CLOSED_BY_FIX = "OVERFLOW_PARENT_CLOSED_BY_FIX"
    PULL_REQUEST_CLOSED_UNMERGED = "PULL_REQUEST_CLOSED_UNMERGED"


Key = tuple[Marker, str]
"""A marker and the identity of the merge that it is about."""

_END_THE_WAIT = {
    Marker.MERGE_CLOSE_APPLIED,
    Marker.OVERFLOW_PARENT_CLOSED_BY_FIX,
    Marker.PULL_REQUEST_CLOSED_UNMERGED,
}


class MergeMarker(BaseModel):
    """One marker, as users' tools read it."""

    model_config = ConfigDict(frozen=True)

    marker: Marker
    reason: str
    issue_id: str
    pr_url: str
    merge_sha: str
    merged_at: str | None
    merged: bool
    source: str

    @property
    def key(self) -> Key:
        """The marker and the merge that it is about."""
        return self.marker, merge_identity(self.pr_url, self.merge_sha)


@dataclass(frozen=True)
class MergeRecord:
    """An issue with the last event of its last session, and the markers since then and before."""

    issue: Issue
    last: Snapshot | None
    since: frozenset[Key]
    before: frozenset[Key]

    def finished(self, identity: str) -> bool:
        """True when the last session ended and its issue waits since; what this merge itself did does not count."""
        waits = not any(marker in _END_THE_WAIT and other != identity for marker, other in self.since)
        return self.last is not None and _is_end(self.last) and waits

    def overflowed(self) -> bool:
        """True when the last session ended in a [FIX] issue."""
        return self.last is not None and self.last.event_type is Event.OVERFLOW_FIX_CREATED

    def applied(self, identity: str) -> bool:
        """True when this merge closed the issue, at any time."""
        return (Marker.MERGE_CLOSE_APPLIED, identity) in self.since | self.before

    def cut_off(self, identity: str) -> bool:
        """True when closing by this merge was begun and did not come to its end."""
        return (Marker.MERGE_EVIDENCE_RECORDED, identity) in self.since and not self.applied(identity)

    def says(self, marker: Marker) -> bool:
        """True when the feedback has this marker since the last session, of any merge."""
        return any(marker is known for known, _ in self.since)


def read_record(issue: Issue) -> MergeRecord:
    """The record in an issue's feedback. What is neither event nor marker is skipped."""
    last: Snapshot | None = None
    since: set[Key] = set()
    before: set[Key] = set()
    for content in issue.feedback:
        if told := _read_marker(content):
            (before if last else since).add(told.key)
        elif last is None:
            last = read_snapshot(content)
    return MergeRecord(issue, last, frozenset(since), frozenset(before))


def tell_marker(
    tracker: IssueTracker, record: MergeRecord, marker: Marker, *, payload: MergeClosePayload, reason: str
) -> None:
    """Add the marker to the issue's feedback, unless the record has it since the last session."""
    if (marker, payload.identity) in record.since:
        return
    told = MergeMarker(
        marker=marker,
        reason=bounded_text(one_line(reason)),
        issue_id=record.issue.id,
        pr_url=payload.pr_url,
        merge_sha=payload.merge_sha,
        merged_at=payload.merged_at.isoformat() if payload.merged_at else None,
        merged=payload.merged,
        source=payload.source,
    )
    # ASCII, because sudocode corrupts long non-ASCII text on its way out.
    tracker.add_feedback(record.issue.id, json.dumps(told.model_dump(mode="json"), sort_keys=True))


def markers_of(feedback: Iterable[str]) -> list[MergeMarker]:
    """The markers in an issue's feedback, which comes newest first; oldest first."""
    told = map(_read_marker, feedback)
    return [marker for marker in told if marker][::-1]


def _read_marker(content: str) -> MergeMarker | None:
    try:
        return MergeMarker.model_validate_json(content)
    except ValidationError:
        return None


def _is_end(snapshot: Snapshot) -> bool:
    """True when a session ended with this and its issue waits for a merge. Old sessions said so with a stage."""
    ends = {Event.SESSION_DONE, Event.OVERFLOW_FIX_CREATED}
    return snapshot.event_type in ends or snapshot.stage is Stage.REVIEW_GATE
