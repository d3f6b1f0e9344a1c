"""The issues that could run, in claiming order: priority 0 first, oldest first, then id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError

from orchestrator.issue import FIX_TITLE, Issue, shown
from orchestrator.models import ISSUE_ID, IssueStatus, IssueTracker

FIXES_IN_A_ROW = 3
"""The number of [FIX] issues in a row that run by themselves. After that the reviewers may never say yes."""


@dataclass(frozen=True, order=True)
class Candidate:
    """A ready issue. Its natural order is the order in which issues are claimed."""

    priority: int
    ready_at: datetime
    issue_id: str


def _moment(value: object) -> datetime:
    """An aware datetime. sudocode writes UTC without a zone (`2026-11-22 20:51:07`), so text without one is UTC."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("must say its time zone")
        return value
    if not isinstance(value, str):
        raise ValueError("must be a time")
    moment = datetime.fromisoformat(value)
    return moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)


class _Ready(BaseModel):
    """A ready record, as sudocode writes it (id, created_at) or as a host does (issue_id, ready_at)."""

    model_config = ConfigDict(from_attributes=True, extra="ignore")

    issue_id: Annotated[str, Field(validation_alias=AliasChoices("issue_id", "id"), pattern=f"^{ISSUE_ID.pattern}$")]
    priority: Annotated[StrictInt, Field(ge=0, le=4)]
    ready_at: Annotated[
        datetime, BeforeValidator(_moment), Field(validation_alias=AliasChoices("ready_at", "created_at"))
    ]


def candidates(records: Iterable[object]) -> tuple[list[Candidate], list[str]]:
    """The valid records in claiming order, and one line for each malformed one, which stops none of the others."""
    valid: dict[str, Candidate] = {}
    problems: list[str] = []
    for record in records:
        try:
            ready = _Ready.model_validate(record)
        except ValidationError as invalid:
            problems.append(_problem(record, invalid))
            continue
        valid.setdefault(ready.issue_id, Candidate(ready.priority, ready.ready_at, ready.issue_id))
    return sorted(valid.values()), problems


def _problem(record: object, invalid: ValidationError) -> str:
    if isinstance(record, Mapping):
        name = record.get("id") or record.get("issue_id")
    else:
        name = getattr(record, "issue_id", None) or getattr(record, "id", None)
    wrong = "; ".join(f"{_path(error['loc'])}: {error['msg']}" for error in invalid.errors())
    name = name or repr(str(record)[:80])
    return f"ready record {name} is malformed and skipped: {wrong}. Correct the issue in the tracker."


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def too_many_fixes(title: str) -> str:
    """The reason for which only a person may have this issue run; empty unless it is one [FIX] too many."""
    row = title.count(FIX_TITLE)
    return f"the reviews said no to {row} sessions in a row" if row > FIXES_IN_A_ROW else ""


def open_blockers(issue: Issue, tracker: IssueTracker) -> list[str]:
    """The blockers of an issue that are not closed. The tracker's own ready list lets needs_review through."""
    return [other for other in issue.blockers if shown(tracker.show_issue, other).status is not IssueStatus.CLOSED]
