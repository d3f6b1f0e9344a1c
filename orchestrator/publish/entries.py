"""The entries that a session makes for the tracker, and how one entry is told.

The first half is pure: an opening, a step or a verdict becomes entries. `tell` performs one entry against a tracker.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from orchestrator.issue import FIX_TITLE, ORIGINAL_LINE
from orchestrator.models import (
    Entry,
    FixIssueEntry,
    IssueContext,
    IssueStatus,
    IssueTracker,
    Progress,
    Report,
    SnapshotEntry,
    Stage,
    StatusEntry,
    Verdict,
    VerificationEvidence,
)
from orchestrator.snapshot import SCHEMA_VERSION, Event, Status, emit_snapshot_json, utc_text, verify_block
from orchestrator.text import bounded, bounded_text, sendable

RELATION_OF_FIX = "related"

# sudocode refuses longer titles and arguments (measured: 500 characters, 131,071 bytes).
MAX_TITLE = 500
MAX_CHECKLIST_BYTES = 60_000
MAX_EVIDENCE_BYTES = 40_000

_STEP_EVENTS: dict[tuple[Stage, bool], Event] = {
    (Stage.RUNNING, True): Event.IMPLEMENT_DONE,
    (Stage.SPEC_REVIEW, True): Event.SPEC_REVIEW_PASS,
    (Stage.SPEC_REVIEW, False): Event.SPEC_REVIEW_FAIL,
    (Stage.SPEC_FIX, True): Event.SPEC_FIX_APPLIED,
    (Stage.QUALITY_REVIEW, True): Event.QUALITY_REVIEW_PASS,
    (Stage.QUALITY_REVIEW, False): Event.QUALITY_REVIEW_FAIL,
    (Stage.QUALITY_FIX, True): Event.QUALITY_FIX_APPLIED,
}


@dataclass(frozen=True)
class About:
    """The session and the issue that an entry is about."""

    issue: IssueContext
    session_id: str
    orchestrator_id: str


def reason_of(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def opening_entries(about: About, *, at: datetime) -> list[Entry]:
    """The session starts."""
    start = _snapshot(about, Progress(), Event.SESSION_START, Stage.RUNNING, Status.START, at)
    return [StatusEntry(about.issue.issue_id, IssueStatus.IN_PROGRESS), start]


def step_entries(about: About, progress: Progress, report: Report) -> list[Entry]:
    """A step was done. The verification has no event of its own: the verdict tells it."""
    event = _STEP_EVENTS.get((report.stage, report.passed))
    if event is None:
        return []
    status = Status.PASS if report.passed else Status.FAIL
    return [_snapshot(about, progress, event, report.stage, status, report.at, report.failed_items, report.fix_list)]


def verdict_entries(about: About, progress: Progress, verdict: Verdict, *, at: datetime) -> list[Entry]:
    """The session ended by itself: DONE, OVERFLOW or VERIFY_FAILED."""
    issue_id = about.issue.issue_id
    match verdict:
        case Verdict.DONE:
            todo = _to_close(issue_id, progress.why(verdict))
            done = _snapshot(about, progress, Event.SESSION_DONE, Stage.DONE, Status.PASS, at, fix_list=todo)
            return [StatusEntry(issue_id, IssueStatus.NEEDS_REVIEW), done]
        case Verdict.OVERFLOW:
            failed = progress.last.failed_items if progress.last else ()
            fixes = progress.last.fix_list if progress.last else ()
            made = _snapshot(
                about, progress, Event.OVERFLOW_FIX_CREATED, Stage.OVERFLOW, Status.FIX_CREATED, at, failed, fixes
            )
            return [_fix_issue(about, progress), StatusEntry(issue_id, IssueStatus.NEEDS_REVIEW), made]
        case Verdict.VERIFY_FAILED:
            why = (progress.why(verdict),)
            return [_snapshot(about, progress, Event.VERIFY_FAILED, Stage.VERIFICATION, Status.VERIFY_FAILED, at, why)]
        case Verdict.ERROR:
            raise ValueError("a session that ended in an error is told with error_entries")
        case _:
            assert_never(verdict)


def _to_close(issue_id: str, nothing_to_merge: str) -> tuple[str, ...]:
    """The things a person has to do so that an issue without anything to merge is closed."""
    return (nothing_to_merge, f"close it with `orch issue close {issue_id}`") if nothing_to_merge else ()


def error_entries(about: About, progress: Progress, error: Exception, *, at: datetime) -> list[Entry]:
    """The session was ended by an error: the reason as SESSION_ERROR's failed item, and the issue is open again."""
    failed = _snapshot(about, progress, Event.SESSION_ERROR, progress.stage, Status.FAIL, at, (reason_of(error),))
    return [failed, StatusEntry(about.issue.issue_id, IssueStatus.OPEN)]


def tell(entry: Entry, tracker: IssueTracker, *, look_first: bool = False) -> str | None:
    """Tell one entry; gives the id of the [FIX] issue if it made one.

    With look_first, telling it again is harmless: a snapshot or [FIX] issue that is there already is left alone.
    Statuses are set and links are sets, so those are harmless as they are.
    """
    match entry:
        case SnapshotEntry(issue_id, content):
            tracker.add_feedback(issue_id, content, look_first=look_first)
            return None
        case StatusEntry(issue_id, status):
            tracker.set_issue_status(issue_id, status)
            return None
        case FixIssueEntry(issue_id, title, body):
            fix_id = tracker.create_fix_issue(title, body, look_first=look_first)
            tracker.link_issues(issue_id, fix_id, RELATION_OF_FIX)
            return fix_id
        case _:
            assert_never(entry)


def _snapshot(
    about: About,
    progress: Progress,
    event: Event,
    stage: Stage,
    status: Status,
    at: datetime,
    failed_items: tuple[str, ...] = (),
    fix_list: tuple[str, ...] = (),
) -> SnapshotEntry:
    content = emit_snapshot_json(
        {
            "schema_version": SCHEMA_VERSION,
            "session_id": about.session_id,
            "orchestrator_id": about.orchestrator_id,
            "issue_id": about.issue.issue_id,
            "task_id": bounded_text(about.issue.task_id),
            "event_type": event,
            "stage": stage,
            "status": status,
            "attempts": {"spec": progress.spec, "quality": progress.quality},
            "failed_items": bounded(failed_items),
            "fix_list": bounded(fix_list),
            "verify": verify_block(progress.evidence),
            "timestamp": utc_text(at),
        }
    )
    return SnapshotEntry(about.issue.issue_id, content)


def _fix_issue(about: About, progress: Progress) -> FixIssueEntry:
    """A [FIX] issue with all that the next session needs, so that it need not read the original."""
    issue = about.issue
    review = "spec" if progress.stage is Stage.SPEC_REVIEW else "quality"
    attempts = progress.spec if review == "spec" else progress.quality
    failed = (progress.last.failed_items if progress.last else ()) or ("(the reviewer named none)",)
    body = "\n".join(
        [
            ORIGINAL_LINE.format(issue.issue_id),
            f"Overflow reason: the {review} review failed {attempts} of {attempts} times",
            f"Session: {about.session_id}",
            # All facts, said or not, and first: of two lines the first one holds, so no agent's text below changes one.
            *(f"{name}: {bounded_text(value)}" for name, value in _facts(issue).items()),
            "",
            "DoD Checklist:",
            _last_bytes(sendable(issue.dod_checklist_full), MAX_CHECKLIST_BYTES),
            "",
            "Failed items:",
            *(_quoted(f"- {item}") for item in bounded(failed)),
            "",
            "Latest evidence:",
            _last_bytes(_quoted(_run(progress.evidence)), MAX_EVIDENCE_BYTES),
        ]
    )
    return FixIssueEntry(issue.issue_id, sendable(f"{FIX_TITLE}{issue.task_id}: {issue.title}")[:MAX_TITLE], body)


def _facts(issue: IssueContext) -> dict[str, str]:
    """The facts of an issue, by the names that its body's lines have."""
    return {
        "Roadmap Task ID": issue.task_id,
        "Manifest": issue.manifest_id,
        "Gate": issue.gate_id,
        "Epic": issue.epic_id,
        "Verify": issue.verify_level,
        "Approval": issue.approval,
        "Source Doc": issue.source_doc,
        "Depends On": issue.depends_on,
    }


def _run(evidence: VerificationEvidence | None) -> str:
    """A verification's command, exit code, time and output."""
    if evidence is None:
        return "(none)"
    ran = f"$ {evidence.command}\nexit code {evidence.exit_code}, {evidence.produced_at.isoformat()}"
    return f"{ran}\n{evidence.output}"


def _quoted(text: str) -> str:
    """Text of an agent or a command as a Markdown quote: no line of it reads as a box of the checklist."""
    return "\n".join(f"> {line}" for line in sendable(text).splitlines())


def _last_bytes(text: str, limit: int) -> str:
    """The end of a text, where an output says what went wrong."""
    encoded = text.encode()
    return text if len(encoded) <= limit else "... (cut) " + encoded[-limit:].decode(errors="ignore")
