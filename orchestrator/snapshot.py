"""loop_snapshot.v1, the public event for a step: build, validate, read back.

Users' tools read these from issue feedback, so the fields below are all there is, and all of them are required.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from orchestrator.models import Stage, Verdict, VerificationEvidence
from orchestrator.text import bounded_text

SCHEMA_VERSION = "loop_snapshot.v1"


class Event(StrEnum):
    """The event of a snapshot."""

    SESSION_START = "SESSION_START"
    IMPLEMENT_DONE = "IMPLEMENT_DONE"
    SPEC_REVIEW_PASS = "SPEC_REVIEW_PASS"  # noqa: S105 - a review's outcome, not a password
    SPEC_REVIEW_FAIL = "SPEC_REVIEW_FAIL"
    SPEC_FIX_APPLIED = "SPEC_FIX_APPLIED"
    QUALITY_REVIEW_PASS = "QUALITY_REVIEW_PASS"  # noqa: S105 - as above
    QUALITY_REVIEW_FAIL = "QUALITY_REVIEW_FAIL"
    QUALITY_FIX_APPLIED = "QUALITY_FIX_APPLIED"
    VERIFY_FAILED = "VERIFY_FAILED"
    OVERFLOW_FIX_CREATED = "OVERFLOW_FIX_CREATED"
    SESSION_DONE = "SESSION_DONE"
    SESSION_ERROR = "SESSION_ERROR"


ENDS = {
    Event.SESSION_DONE: Verdict.DONE,
    Event.OVERFLOW_FIX_CREATED: Verdict.OVERFLOW,
    Event.VERIFY_FAILED: Verdict.VERIFY_FAILED,
    Event.SESSION_ERROR: Verdict.ERROR,
}
"""The events that end a session, and the verdict that each of them tells."""


class Status(StrEnum):
    """The outcome of an event. NEEDS_REVIEW is read from old issues, never written."""

    START = "START"
    PASS = "PASS"  # noqa: S105 - as above
    FAIL = "FAIL"
    FIX_CREATED = "FIX_CREATED"
    VERIFY_FAILED = "VERIFY_FAILED"
    NEEDS_REVIEW = "NEEDS_REVIEW"


def _text_in_utc(value: object) -> object:
    """An ISO-8601 text with `Z` or `+00:00`, kept as it was written."""
    if not isinstance(value, str):
        raise ValueError("must be ISO-8601 text")
    moment = datetime.fromisoformat(value)
    if moment.utcoffset() != timedelta(0):
        raise ValueError("must be in UTC (`Z` or `+00:00`)")
    return value


UtcText = Annotated[str, BeforeValidator(_text_in_utc)]
Count = Annotated[int, Field(ge=0, strict=True)]


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Attempts(_Exact):
    """Reviews so far; they count from 0."""

    spec: Count
    quality: Count


class VerifyBlock(_Exact):
    """The latest verification; `output_ref` names the whole of its output."""

    command: str
    exit_code: Count
    produced_at: UtcText
    output_ref: str | None = None


class Snapshot(_Exact):
    """One event of a session."""

    schema_version: Literal["loop_snapshot.v1"]
    session_id: str
    orchestrator_id: str
    issue_id: str
    task_id: str
    event_type: Event
    stage: Stage
    status: Status
    attempts: Attempts
    failed_items: list[str]
    fix_list: list[str]
    verify: VerifyBlock | None
    timestamp: UtcText

    @property
    def reasons(self) -> list[str]:
        """The reasons of its outcome: what failed, or why a session that is done has nothing to merge."""
        return self.fix_list if self.event_type is Event.SESSION_DONE else self.failed_items


def validate_snapshot(snapshot: Mapping[str, object]) -> dict[str, object]:
    """The snapshot as plain JSON values. ValueError names each field that is missing, unknown or wrong."""
    try:
        return Snapshot.model_validate(dict(snapshot)).model_dump(mode="json", exclude_unset=True)
    except ValidationError as invalid:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors())
        raise ValueError(f"not a {SCHEMA_VERSION}: {problems}") from invalid


def emit_snapshot_json(snapshot: Mapping[str, object]) -> str:
    """One line of JSON, keys sorted. ASCII, because sudocode corrupts long non-ASCII text on its way out."""
    return json.dumps(validate_snapshot(snapshot), sort_keys=True)


def read_snapshot(content: str) -> Snapshot | None:
    """The snapshot in a feedback's content, or None when the feedback is something else."""
    if SCHEMA_VERSION not in content:
        return None
    try:
        return Snapshot.model_validate_json(content)
    except ValidationError:
        return None


def verify_block(evidence: VerificationEvidence | None) -> dict[str, object] | None:
    """The `verify` field for a piece of evidence. Death by signal n reads 128 + n, as in a shell.

    Its remarks follow the command as a shell's comment: the schema has no other field, and it can still be pasted.
    """
    if evidence is None:
        return None
    remarks = f"  # {'; '.join(evidence.remarks)}" if evidence.remarks else ""
    block: dict[str, object] = {
        "command": bounded_text(evidence.command) + bounded_text(remarks),
        "exit_code": evidence.exit_code if evidence.exit_code >= 0 else 128 - evidence.exit_code,
        "produced_at": utc_text(evidence.produced_at),
    }
    return block | ({"output_ref": evidence.output_ref} if evidence.output_ref else {})


def utc_text(moment: datetime) -> str:
    """An aware time as the snapshot writes it: in UTC."""
    return moment.astimezone(UTC).isoformat()
