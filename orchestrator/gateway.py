"""SudocodeGateway: the tracker as five callables, retried where that is safe, its answers checked.

A host may bring its own callables; ours come from `adapters.mcp`. What a create or a feedback did is read back before
a retry, because sudocode reports errors of calls that it has applied (measured: every one of eleven failed writes).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from orchestrator.errors import InvalidMCPResponseError, TrackerRefused, TrackerUnavailable, TransientMCPError
from orchestrator.issue import listed, shown
from orchestrator.models import IssueStatus

__all__ = ["InvalidMCPResponseError", "SudocodeGateway", "TransientMCPError"]

WAITS_S = (1.0, 2.0)

T = TypeVar("T")


class SudocodeGateway:
    """The tracker, over callables named as sudocode's MCP tools and called with the tools' keyword arguments.

    A callable raises TransientMCPError when trying again may help: it is called three times in all, with 1 s and 2 s
    between, and then TrackerUnavailable is raised. Anything else it raises is passed on at once. An answer that is not
    in the contract is InvalidMCPResponseError. Without `mcp_list_issues`, a [FIX] issue that may have been made already
    is looked for among the ready ones only. What is written passes through `redact`.
    """

    def __init__(
        self,
        *,
        mcp_ready: Callable[[], object],
        mcp_show_issue: Callable[[str], object],
        mcp_upsert_issue: Callable[..., object],
        mcp_add_feedback: Callable[..., object],
        mcp_link: Callable[..., object],
        mcp_list_issues: Callable[..., object] | None = None,
        sleep: Callable[[float], object] = time.sleep,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._ready = mcp_ready
        self._show = mcp_show_issue
        self._upsert = mcp_upsert_issue
        self._feedback = mcp_add_feedback
        self._link = mcp_link
        self._list = mcp_list_issues
        self._sleep = sleep
        self._redact = redact

    def get_ready_issues(self) -> list[object]:
        """The records the tracker holds ready, as they came: unsorted, each still to be validated."""
        answer = self._try("ready", self._ready)
        inner = answer.get("ready", answer) if isinstance(answer, Mapping) else None
        issues = inner.get("issues") if isinstance(inner, Mapping) else None
        if not isinstance(issues, list | tuple):
            raise InvalidMCPResponseError(f"ready: expected {{'ready': {{'issues': [...]}}}}, got {_repr(answer)}")
        return list(issues)

    def show_issue(self, issue_id: str) -> Mapping[str, object]:
        """One issue as the tracker shows it."""
        answer = self._try(f"show_issue {issue_id}", lambda: self._show(issue_id))
        if not isinstance(answer, Mapping):
            raise InvalidMCPResponseError(f"show_issue {issue_id}: expected an object, got {_repr(answer)}")
        return answer

    def set_issue_status(self, issue_id: str, status: IssueStatus | str) -> None:
        """Set the status; a second time changes nothing. TrackerRefused when the answered row has another one."""
        answer = self._try(f"{issue_id} to {status}", lambda: self._upsert(issue_id=issue_id, status=str(status)))
        there = answer.get("status", status) if isinstance(answer, Mapping) else status
        if there != status:
            raise TrackerRefused(f"{issue_id} to {status}: the tracker said yes, but its status is {_repr(there)}")

    def add_feedback(self, issue_id: str, content: str, *, look_first: bool = False) -> None:
        """Append one feedback entry of the issue on itself, once: it is looked for before a retry."""
        content = self._redact(content)
        self._once(
            f"feedback on {issue_id}",
            make=lambda: self._feedback(issue_id=issue_id, to_id=issue_id, content=content),
            look=lambda: True if content in shown(self.show_issue, issue_id).feedback else None,
            look_first=look_first,
        )

    def create_fix_issue(self, title: str, body: str, *, look_first: bool = False) -> str:
        """Create an issue and give its id, once: one like it is looked for before a retry."""
        title, body = self._redact(title), self._redact(body)

        def make() -> str:
            answer = self._upsert(title=title, description=body)
            made = (answer.get("id") or answer.get("issue_id")) if isinstance(answer, Mapping) else None
            if not isinstance(made, str) or not made:
                raise InvalidMCPResponseError(f"upsert_issue: expected the new issue's id, got {_repr(answer)}")
            return made

        return self._once(
            f"creating {title!r}", make=make, look=lambda: self._issue_like(title, body), look_first=look_first
        )

    def link_issues(self, from_id: str, to_id: str, relation: str) -> None:
        """Link two issues; a second time changes nothing."""
        self._try(f"link {from_id} {relation} {to_id}", lambda: self._link(from_id=from_id, to_id=to_id, type=relation))

    def _issue_like(self, title: str, body: str) -> str | None:
        find = self._list
        rows = self._try("list_issues", lambda: find(search=title)) if find else self.get_ready_issues()
        alike = (issue.id for issue in listed(rows if isinstance(rows, list) else ()) if issue.title == title)
        return next((issue_id for issue_id in alike if shown(self.show_issue, issue_id).body == body), None)

    def _try(self, what: str, call: Callable[[], T]) -> T:
        for wait in (*WAITS_S, None):
            try:
                return call()
            except TransientMCPError as error:
                if wait is None:
                    raise _gave_up(what, error) from error
                self._sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _once(self, what: str, *, make: Callable[[], object], look: Callable[[], T | None], look_first: bool) -> T:
        """Make what must not be made twice. A failed try may have been applied all the same: look, then retry."""
        for wait in (*WAITS_S, None):
            if look_first and (there := look()) is not None:
                return there
            try:
                made: T = make()  # type: ignore[assignment] # for feedback T is bool and is not read
                return made
            except TransientMCPError as error:
                if wait is None:
                    raise _gave_up(what, error) from error
                look_first = error.maybe_applied
                self._sleep(wait)
        raise AssertionError("the last try returns or raises")


def _gave_up(what: str, error: TransientMCPError) -> TrackerUnavailable:
    return TrackerUnavailable(f"{what}: the tracker did not answer in {len(WAITS_S) + 1} tries, last: {error}")


def _repr(answer: object) -> str:
    return repr(answer)[:200]
