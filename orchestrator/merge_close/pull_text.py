"""The text of the pull request that a finished session hands over.

Issues, agents and commands wrote most of them. What users wrote is quoted and what agents and commands wrote is fenced,
so that none of it spoils what comes after it; and all of it is made `inert`, so that it mentions nobody and closes
nothing, here and in the commit that a squash makes of it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from orchestrator.merge_close.events import ISSUE_LINE, MENTION, PullText
from orchestrator.models import UNSAID, IssueContext, Progress, Report, SessionRecord, Stage, VerificationEvidence
from orchestrator.snapshot import utc_text
from orchestrator.text import bounded, bounded_text, inert, one_line, sendable

NEEDS_REVIEW = "needs-review"
"""The label of a pull request that a person has to approve; not the issue's status needs_review."""

# GitHub refuses a body of more than 65,536 characters and a title of more than 256.
MAX_TITLE = 256
MAX_ASKED_BYTES = 10_000
MAX_FACTS_BYTES = 4_000
MAX_CHECKLIST_BYTES = 20_000
MAX_FINDINGS_BYTES = 15_000
MAX_OUTPUT_BYTES = 10_000
OUTPUT_LINES = 30

_OPEN_BOX = re.compile(r"^(\s*[-*+]\s+)\[ \]", re.MULTILINE)
_REVIEWS = {Stage.SPEC_REVIEW: "spec review", Stage.QUALITY_REVIEW: "quality review"}


def pull_text(record: SessionRecord, reports: Sequence[Report]) -> PullText:
    """The pull request of a session that ended DONE, from its recorded reports.

    Its body has exactly one `Sudocode-Issue:` line, which names the session's issue, whatever the quoted texts say.
    """
    issue = record.issue
    progress = functools.reduce(Progress.after, reports, Progress())
    # A spec review that passes has found every box to be true.
    checklist = _OPEN_BOX.sub(r"\1[x]", issue.dod_checklist_full)
    parts = [
        "## What was asked",
        _quoted(issue.description or issue.title, MAX_ASKED_BYTES),
        _facts(issue),
        "## Checklist",
        _quoted(checklist, MAX_CHECKLIST_BYTES),
        f"The spec review passed at attempt {progress.spec} of {record.spec_limit}, "
        f"the quality review at attempt {progress.quality} of {record.quality_limit}.",
        _fenced(_first_bytes(sendable("\n".join(_findings(reports))), MAX_FINDINGS_BYTES)),
        "## Evidence",
        _evidence(progress.evidence),
        f"Session `{record.session_id}`.",
    ]
    body = MENTION.sub("Sudocode issue", inert("\n\n".join(filter(None, parts))))
    return PullText(
        title=inert(one_line(_title(issue)))[:MAX_TITLE] or issue.issue_id,
        body=f"{body}\n\n{ISSUE_LINE.format(issue.issue_id)}\n",
        labels=(NEEDS_REVIEW,) if issue.approval == "manual" else (),
    )


def _title(issue: IssueContext) -> str:
    """Titles usually start with the task's id."""
    named = issue.task_id == issue.issue_id or issue.title.startswith(issue.task_id)
    return sendable(issue.title if named else f"{issue.task_id}: {issue.title}")


def _facts(issue: IssueContext) -> str:
    said = {"Task": issue.task_id, "Gate": issue.gate_id, "Epic": issue.epic_id, "Source": issue.source_doc}
    facts = [f"{name}: {bounded_text(value)}" for name, value in said.items() if value != UNSAID]
    return _quoted(", ".join(facts), MAX_FACTS_BYTES)


def _findings(reports: Sequence[Report]) -> Iterator[str]:
    """The findings of each review, in order, and its notes when it passed."""
    for report in reports:
        if review := _REVIEWS.get(report.stage):
            yield f"{review} {report.attempt}: {'passed' if report.passed else 'not passed'}"
            found = bounded(report.failed_items) if not report.passed else bounded((report.notes,))
            yield from (f"  - {' '.join(item.split())}" for item in found if item.strip())
        for remark in bounded(report.remarks):
            yield f"{report.stage.words}: {remark}"


def _evidence(evidence: VerificationEvidence | None) -> str:
    if evidence is None:
        return "(none)"
    where = "in a clean checkout of" if evidence.clean else "on"
    remarks = "".join(f"! {bounded_text(one_line(remark))}\n" for remark in evidence.remarks)
    last_lines = "\n".join(evidence.output.splitlines()[-OUTPUT_LINES:]).encode(errors="replace")
    return _fenced(
        f"$ {bounded_text(evidence.command)}\n"
        f"exit code {evidence.exit_code} after {evidence.duration_s:.1f} s, "
        f"{utc_text(evidence.produced_at)}, {where} commit {evidence.commit}\n"
        f"{remarks}{last_lines[-MAX_OUTPUT_BYTES:].decode(errors='ignore')}"
    )


def _quoted(text: str, limit: int) -> str:
    """A Markdown quote: whatever block or comment the text leaves open ends with it."""
    return _first_bytes("\n".join(f"> {line}" for line in sendable(text).splitlines()), limit)


def _fenced(text: str) -> str:
    """A code block that nothing in the text can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{sendable(text).strip()}\n{fence}"


def _first_bytes(text: str, limit: int) -> str:
    """The text's beginning, in whole characters; that something was cut is said."""
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[:limit].decode(errors="ignore") + " ... (cut)"
