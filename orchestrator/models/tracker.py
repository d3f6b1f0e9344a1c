"""The tracker, as the control side asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.models.facts import IssueStatus


class IssueTracker(Protocol):
    """The tracker as the orchestrator asks it. `SudocodeGateway` is ours; a host may bring its own.

    Every method raises `TrackerUnavailable` (try later), `TrackerRefused` (it said no) or `InvalidMCPResponseError`.
    """

    def get_ready_issues(self) -> Sequence[object]:
        """Records of issues that the tracker holds ready, unsorted and not yet validated."""

    def show_issue(self, issue_id: str) -> Mapping[str, object]:
        """One issue with content, relationships, tags and the feedback it gave, newest first."""

    def set_issue_status(self, issue_id: str, status: IssueStatus) -> None:
        """Set, not toggle: running it again changes nothing."""

    def add_feedback(self, issue_id: str, content: str, *, look_first: bool = False) -> None:
        """Append one feedback entry of the issue on itself. With look_first, not if it is there already."""

    def create_fix_issue(self, title: str, body: str, *, look_first: bool = False) -> str:
        """Create an issue and give its id. With look_first, the id of one with the very same title and body."""

    def link_issues(self, from_id: str, to_id: str, relation: str) -> None:
        """Link two issues; a second time changes nothing."""
