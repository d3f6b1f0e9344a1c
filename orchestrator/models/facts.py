"""The facts that travel: an issue, a step and its report, evidence, and entries for the tracker."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

FinalState = Literal["DONE", "OVERFLOW", "VERIFY_FAILED"]


class Stage(StrEnum):
    """The stages of a session, in the words of loop_snapshot.v1. REVIEW_GATE is read from old issues, never written."""

    RUNNING = "RUNNING"
    SPEC_REVIEW = "SPEC_REVIEW"
    SPEC_FIX = "SPEC_FIX"
    QUALITY_REVIEW = "QUALITY_REVIEW"
    QUALITY_FIX = "QUALITY_FIX"
    VERIFICATION = "VERIFICATION"
    OVERFLOW = "OVERFLOW"
    DONE = "DONE"
    REVIEW_GATE = "REVIEW_GATE"

    @property
    def words(self) -> str:
        """A step of it as people call it: `implement`, `spec review`."""
        return "implement" if self is Stage.RUNNING else self.lower().replace("_", " ")


class Role(StrEnum):
    """An agent's part in a session: the words that agents, playbooks and orch.toml know it by."""

    IMPLEMENTER = "implementer"
    SPEC_REVIEWER = "spec_reviewer"
    QUALITY_REVIEWER = "quality_reviewer"


class IssueStatus(StrEnum):
    """The status of an issue, in the tracker's own words, which stand nowhere else."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    BLOCKED = "blocked"
    NEEDS_REVIEW = "needs_review"
    CLOSED = "closed"


class Verdict(StrEnum):
    """The end that a session came to."""

    DONE = "DONE"
    OVERFLOW = "OVERFLOW"
    VERIFY_FAILED = "VERIFY_FAILED"
    ERROR = "ERROR"


@dataclass(frozen=True)
class IssueContext:
    """An issue as the roles need it. Every field is text; `-` stands for what the issue does not say.

    `verify_level` is L0, L1, L2 or `-`; `approval` is auto or manual; `description` is what the issue says around its
    checklist.
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
    description: str = ""


@dataclass(frozen=True)
class VerificationEvidence:
    """One run of a verification command.

    `output` is bounded (its end); `output_ref` names the whole of it. `commit` is empty when an implementer claims it.
    `clean`: it ran in a checkout of that commit and nothing else. `set_up`: this is the set-up before it, which failed.
    `red_before` has the exit codes of the runs on the same commit before this one; `touched` is what the work changed
    of the verification itself.
    """

    command: str
    output: str
    exit_code: int
    produced_at: datetime
    commit: str = ""
    output_ref: str = ""
    duration_s: float = 0.0
    clean: bool = False
    set_up: bool = False
    chosen_by_agent: bool = False
    red_before: tuple[int, ...] = ()
    touched: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know before trusting it, in words; most often nothing."""
        before = ", ".join(map(str, self.red_before))
        flaky = f"flaky: exited with {before} before, on the same commit"
        again = f"red again: exited with {before} before, on the same commit"
        return tuple(
            filter(
                None,
                (
                    "this is the set-up; the verification was not run" if self.set_up else "",
                    "chosen by the agent" if self.chosen_by_agent else "",
                    (again if self.exit_code else flaky) if before else "",
                    f"the work touched the verification itself: {_some(self.touched)}" if self.touched else "",
                ),
            )
        )


def _some(names: tuple[str, ...], most: int = 5) -> str:
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


@dataclass(frozen=True)
class ImplementerResult:
    """The implementer's account of its work; `commit` is what we made of it in git.

    `already_done`: nothing was changed, because all of the work is there already.
    """

    verification: VerificationEvidence | None
    code_changed_at: datetime
    notes: str
    commit: str = ""
    already_done: bool = False


@dataclass(frozen=True)
class ReviewResult:
    """One review: passed, or the checklist items that failed and what to do about them."""

    passed: bool
    failed_items: list[str]
    fix_list: list[str]
    notes: str


@dataclass(frozen=True)
class SessionOutcome:
    """The end of a session. `fix_issue_id` is set on OVERFLOW once the [FIX] issue exists."""

    final_state: FinalState
    fix_issue_id: str | None = None


@dataclass(frozen=True)
class Step:
    """One thing a session does next. Attempts count from 1."""

    stage: Stage
    attempt: int = 1
    fix_list: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The result of a step. `commit` is where the branch stood when the step ended; `at` is that moment.

    `remarks` are ours: what of the agent's doings is not in the commit, and what else changed while it was at work.
    `base` is the commit that the branch grew out of when it was prepared; empty where there is none.
    `already_done`: that commit adds nothing to the base, as the implementer says that all of the work is there already.
    """

    stage: Stage
    attempt: int
    at: datetime
    passed: bool = True
    failed_items: tuple[str, ...] = ()
    fix_list: tuple[str, ...] = ()
    notes: str = ""
    commit: str = ""
    code_changed_at: datetime | None = None
    evidence: VerificationEvidence | None = None
    remarks: tuple[str, ...] = ()
    base: str = ""
    already_done: bool = False


@dataclass(frozen=True)
class SnapshotEntry:
    """To be told: one snapshot, as feedback of the issue on itself."""

    issue_id: str
    content: str


@dataclass(frozen=True)
class StatusEntry:
    """To be told: the issue's status."""

    issue_id: str
    status: IssueStatus


@dataclass(frozen=True)
class FixIssueEntry:
    """To be told: a [FIX] issue, linked `related` from the original. The body names the session, so it is unique."""

    issue_id: str
    title: str
    body: str


Entry = SnapshotEntry | StatusEntry | FixIssueEntry


SPEC_MAX_ATTEMPTS = 3


QUALITY_MAX_ATTEMPTS = 2


@dataclass(frozen=True)
class Limits:
    """The number of reviews of each kind that a session may ask for. Pinned when the session starts."""

    spec: int = SPEC_MAX_ATTEMPTS
    quality: int = QUALITY_MAX_ATTEMPTS


DEFAULT_LIMITS = Limits()


def session_id_for(issue_id: str, run: str) -> str:
    """The id of one run of an issue: the same for the same run, in every process."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sudocode-orchestrator/{issue_id}/{run}"))


def utc_now() -> datetime:
    """The current time, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Progress:
    """The progress of a session: its reports, folded."""

    stage: Stage = Stage.RUNNING
    spec: int = 0
    quality: int = 0
    commit: str = ""
    implementer_result: ImplementerResult | None = None
    last: Report | None = None
    evidence: VerificationEvidence | None = None

    def after(self, report: Report) -> Progress:
        """The progress once this report is in."""
        step = replace(
            self,
            stage=report.stage,
            last=report,
            commit=report.commit or self.commit,
            evidence=report.evidence or self.evidence,
        )
        match report.stage:
            case Stage.SPEC_REVIEW:
                return replace(step, spec=report.attempt)
            case Stage.QUALITY_REVIEW:
                return replace(step, quality=report.attempt)
            case Stage.VERIFICATION:
                return replace(step, evidence=report.evidence)
            case _:
                changed = report.code_changed_at or report.at
                result = ImplementerResult(report.evidence, changed, report.notes, report.commit, report.already_done)
                return replace(step, implementer_result=result)

    def why(self, verdict: Verdict) -> str:
        """The reason of the verdict, in one line; empty when all is well and there is work to merge."""
        if verdict is Verdict.DONE:
            return self._nothing_to_merge()
        if self.last is None:
            return ""
        return self.last.notes if verdict is Verdict.VERIFY_FAILED else "; ".join(self.last.failed_items)

    def _nothing_to_merge(self) -> str:
        result = self.implementer_result
        if result is None or not result.already_done:
            return ""
        notes = " ".join(result.notes.split())
        return f"{NOTHING_TO_MERGE}: the implementer says that the work is there already: {notes}"


NOTHING_TO_MERGE = "nothing to merge"
"""The first words of the reason of a session whose branch adds nothing to its base, DONE or ended in an error."""

UNSAID = "-"

ISSUE_ID = re.compile(r"i-[a-z0-9]+")

BRANCH_PREFIX = "orch/"
"""The prefix of the branches that sessions deliver; an issue's id follows."""


def branch_of(issue_id: str) -> str:
    """The branch that a session of this issue delivers."""
    return f"{BRANCH_PREFIX}{issue_id}"


def issue_of(branch: str) -> str:
    """The issue whose sessions deliver this branch; empty for every other branch."""
    issue_id = branch.removeprefix(BRANCH_PREFIX)
    return issue_id if issue_id != branch and ISSUE_ID.fullmatch(issue_id) else ""
