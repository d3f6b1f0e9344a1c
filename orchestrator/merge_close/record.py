"""An issue as the rules of closing need it, and the markers of merges in its feedback."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.issue import Issue
from orchestrator.merge_close.events import MergeClosePayload, merge_identity, pull_identity
from orchestrator.models import IssueStatus, IssueTracker, Stage, branch_of
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


_END_THE_WAIT = {
    Marker.MERGE_CLOSE_APPLIED,
    Marker.OVERFLOW_PARENT_CLOSED_BY_FIX,
    Marker.PULL_REQUEST_CLOSED_UNMERGED,
}

NAMED_BADLY = "it comes from the session's own branch, but its text does not name the issue"
"""How the reason begins for which a pull request closes nothing although nobody doubts whose it is."""


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

    def is_about(self, merge: MergeClosePayload) -> bool:
        """True when it tells of this merge, whoever saw that."""
        return merge_identity(self.pr_url, self.merge_sha) == merge.identity

    def turned_down(self, merge: MergeClosePayload) -> bool:
        """True when it says that what was merged after all had been turned down: the pull request, or its branch."""
        same_pull = pull_identity(self.pr_url) == pull_identity(merge.pr_url)
        same = same_pull or merge.pr_url.endswith(f"/{branch_of(self.issue_id)}")
        return self.marker is Marker.PULL_REQUEST_CLOSED_UNMERGED and same and merge.merged


@dataclass(frozen=True)
class MergeRecord:
    """An issue with the last event of its last session, and the markers since then and before."""

    issue: Issue
    last: Snapshot | None
    since: tuple[MergeMarker, ...] = ()
    before: tuple[MergeMarker, ...] = ()

    def finished(self, merge: MergeClosePayload) -> bool:
        """True when the last session ended and its issue waits since; what this merge itself did does not count."""
        others = (told for told in self.since if not told.is_about(merge) and not told.turned_down(merge))
        waits = not any(told.marker in _END_THE_WAIT for told in others)
        return self.last is not None and _is_end(self.last) and waits

    def ended_after(self, moment: datetime | None) -> bool:
        """True when the last event of the last session came after that, by the whole seconds that forges count in."""
        if self.last is None or moment is None:
            return False
        return moment < datetime.fromisoformat(self.last.timestamp).replace(microsecond=0)

    def overflowed(self) -> bool:
        """True when the last session ended in a [FIX] issue."""
        return self.last is not None and self.last.event_type is Event.OVERFLOW_FIX_CREATED

    def applied(self, merge: MergeClosePayload) -> bool:
        """True when this merge closed the issue, at any time."""
        told = self._told_of(merge, *self.since, *self.before)
        return any(it.marker is Marker.MERGE_CLOSE_APPLIED for it in told)

    def cut_off(self, merge: MergeClosePayload) -> bool:
        """True when closing by this merge was begun and did not come to its end."""
        begun = any(told.marker is Marker.MERGE_EVIDENCE_RECORDED for told in self._told_of(merge, *self.since))
        return begun and not self.applied(merge)

    def turned_down(self, merge: MergeClosePayload) -> bool:
        """True when the issue is open only because what was merged had been turned down before."""
        return self.issue.status is IssueStatus.OPEN and any(told.turned_down(merge) for told in self.since)

    def turned_down_before(self, merge: MergeClosePayload) -> bool:
        """True when what was merged had been turned down before the last session began."""
        return any(told.turned_down(merge) for told in self.before)

    def says(self, marker: Marker, merge: MergeClosePayload | None = None) -> bool:
        """True when the feedback has this marker since the last session; of this merge, or of any."""
        told = self.since if merge is None else self._told_of(merge, *self.since)
        return any(marker is known.marker for known in told)

    @staticmethod
    def _told_of(merge: MergeClosePayload, *told: MergeMarker) -> list[MergeMarker]:
        return [marker for marker in told if marker.is_about(merge)]


def read_record(issue: Issue) -> MergeRecord:
    """The record in an issue's feedback. What is neither event nor marker is skipped."""
    last: Snapshot | None = None
    since: list[MergeMarker] = []
    before: list[MergeMarker] = []
    for content in issue.feedback:
        if told := _read_marker(content):
            (before if last else since).append(told)
        elif last is None:
            last = read_snapshot(content)
    return MergeRecord(issue, last, tuple(since), tuple(before))


def tell_marker(
    tracker: IssueTracker, record: MergeRecord, marker: Marker, *, payload: MergeClosePayload, reason: str
) -> None:
    """Add the marker to the issue's feedback, unless the record has it since the last session."""
    if record.says(marker, payload):
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
