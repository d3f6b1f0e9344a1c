"""Adapters that keep everything in this process: for the dry run, for tests, and to measure the rest against."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.errors import TrackerRefused
from orchestrator.models import Entry, IssueStatus, Report, Verdict

WAITS_FOR = {"blocks": "to_id", "depends-on": "from_id"}
BLOCKING = {IssueStatus.OPEN, IssueStatus.IN_PROGRESS, IssueStatus.BLOCKED}


class MemoryTracker:
    """A tracker in a dict, with the five MCP tools' names, arguments and answers. It keeps a log of status updates."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.issues: dict[str, dict[str, Any]] = {}
        self.status_updates: list[tuple[str, str]] = []
        self.links: list[dict[str, str]] = []
        self._now = now
        self._numbers = itertools.count(1)

    def file(self, title: str, *, content: str = "", priority: int = 2, issue_id: str | None = None) -> str:
        """File an issue and give its id."""
        issue_id = issue_id or f"i-m{next(self._numbers):03d}"
        self.issues[issue_id] = {
            "id": issue_id,
            "title": title,
            "content": content,
            "status": IssueStatus.OPEN.value,
            "priority": priority,
            "created_at": self._now().strftime("%Y-%m-%d %H:%M:%S"),
            "tags": [],
            "feedback": [],
        }
        return issue_id

    def ready(self) -> Mapping[str, object]:
        """Open issues without a blocker that is itself still to be done."""
        opened = (issue for issue in self.issues.values() if issue["status"] == IssueStatus.OPEN)
        rows = [issue for issue in opened if not self._blockers(issue["id"])]
        return {"ready": {"issues": [{k: v for k, v in row.items() if k != "content"} for row in rows]}}

    def list_issues(self, *, search: str = "", status: str = "") -> Sequence[Mapping[str, object]]:
        """Every issue whose title or content contains the text, of that status if one is given."""
        found = (row for row in self.issues.values() if search in row["title"] or search in row["content"])
        left_out = ("content", "feedback")
        return [{k: v for k, v in row.items() if k not in left_out} for row in found if status in ("", row["status"])]

    def show_issue(self, issue_id: str) -> Mapping[str, object]:
        """One issue, whole."""
        outgoing = [_edge(link) for link in self.links if link["from_id"] == issue_id]
        incoming = [_edge(link) for link in self.links if link["to_id"] == issue_id]
        return {**self._issue(issue_id), "relationships": {"outgoing": outgoing, "incoming": incoming}}

    def upsert_issue(
        self,
        *,
        issue_id: str | None = None,
        status: str | None = None,
        title: str | None = None,
        description: str = "",
    ) -> Mapping[str, object]:
        """Create without an id, else set the status."""
        if issue_id is None:
            return {"id": self.file(title or "", content=description), "title": title, "status": IssueStatus.OPEN.value}
        issue = self._issue(issue_id)
        if status:
            issue["status"] = status
            self.status_updates.append((issue_id, status))
        return issue

    def add_feedback(self, *, issue_id: str, to_id: str, content: str) -> Mapping[str, object]:
        """Append one feedback entry; newest first, as sudocode shows them."""
        self._issue(to_id)
        row = {"from_id": issue_id, "to_id": to_id, "content": content}
        self._issue(issue_id)["feedback"].insert(0, row)
        return row

    def link(self, *, from_id: str, to_id: str, type: str) -> Mapping[str, object]:
        """Link two issues once."""
        edge = {"from_id": from_id, "to_id": to_id, "type": type}
        if edge not in self.links:
            self.links.append(edge)
        return {**edge, "success": True}

    def _issue(self, issue_id: str) -> dict[str, Any]:
        if issue_id not in self.issues:
            raise TrackerRefused(f"Issue not found: {issue_id}")
        return self.issues[issue_id]

    def _blockers(self, issue_id: str) -> list[str]:
        waits = [link for link in self.links if link.get(WAITS_FOR.get(link["type"], "")) == issue_id]
        others = [link["from_id"] if link["type"] == "blocks" else link["to_id"] for link in waits]
        return [other for other in others if self.issues[other]["status"] in BLOCKING]


class MemoryHistory:
    """A session's history in a list; `told` is every entry in order."""

    def __init__(self, reports: Iterable[Report] = ()) -> None:
        self.reports = list(reports)
        self.told: list[Entry] = []
        self.verdict: Verdict | None = None
        self.reason = ""

    def recorded(self) -> Sequence[Report]:
        """All reports so far."""
        return tuple(self.reports)

    def record(self, report: Report, entries: Iterable[Entry]) -> None:
        """Keep a report and its entries, unless the step is recorded already."""
        if any((report.stage, report.attempt) == (known.stage, known.attempt) for known in self.reports):
            return
        self.reports.append(report)
        self.told += entries

    def close(self, verdict: Verdict, entries: Iterable[Entry], *, reason: str = "") -> str | None:
        """Keep the end, once."""
        if self.verdict is None:
            self.verdict, self.reason = verdict, reason
            self.told += entries
        return None


def _edge(link: Mapping[str, str]) -> dict[str, str]:
    return {"from_id": link["from_id"], "to_id": link["to_id"], "relationship_type": link["type"]}
