"""The facts that travel: an issue, what a role answered, what we measured, how a session ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

FinalState = Literal["DONE", "OVERFLOW", "VERIFY_FAILED"]


@dataclass(frozen=True)
class IssueContext:
    """An issue as the roles need it. Every field is text; `-` stands for what the issue does not say.

    `verify_level` is L0, L1, L2 or `-`; `approval` is auto or manual.
    """

    issue_id: str
    manifest_id: str
    task_id: str
    gate_id: str
    epic_id: str
    title: str
    depends_on: str
    dod_checklist_full: str
    verify_level: str = "-"
    approval: str = "manual"
    source_doc: str = "-"


@dataclass(frozen=True)
class VerificationEvidence:
    """One run of a verification command.

    `output` is bounded (its end); `output_ref` names the whole of it. `commit` is empty when an implementer claims it.
    """

    command: str
    output: str
    exit_code: int
    produced_at: datetime
    commit: str = ""
    output_ref: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True)
class ImplementerResult:
    """What the implementer says it did; `commit` is what we made of it in git."""

    verification: VerificationEvidence | None
    code_changed_at: datetime
    notes: str
    commit: str = ""


@dataclass(frozen=True)
class ReviewResult:
    """One review: passed, or the checklist items that failed and what to do about them."""

    passed: bool
    failed_items: list[str]
    fix_list: list[str]
    notes: str


@dataclass(frozen=True)
class SessionOutcome:
    """How a session ended. `fix_issue_id` is set on OVERFLOW once the [FIX] issue exists."""

    final_state: FinalState
    fix_issue_id: str | None = None
