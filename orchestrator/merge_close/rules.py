"""The rules by which a merge closes an issue, in their order, and what closing does.

Deciding is pure: `merge_of` turns a pull request into a payload, `judge` says what a payload does to the issue it
names. `apply_merge_close` does it. What was done is read back from markers in the issue's own feedback, so the same
merge may come any number of times, from any source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.errors import TrackerRefused
from orchestrator.issue import Issue, shown
from orchestrator.merge_close.events import ISSUE_LINE, Delivered, MergeClosePayload, PullRequest, naming_lines
from orchestrator.merge_close.record import NAMED_BADLY, Marker, MergeRecord, read_record, tell_marker
from orchestrator.models import ISSUE_ID, IssueStatus, IssueTracker, branch_of, issue_of
from orchestrator.text import bounded_text, one_line

__all__ = ["MergeClosePayload", "MergeCloseResult", "apply_merge_close", "parse_issue_line"]

_ONE_ISSUE = re.compile(ISSUE_LINE.format(rf"({ISSUE_ID.pattern})\s*"))

NOT_MERGED = "the pull request is not merged"
NOT_IN_REVIEW = "close allowed only from needs_review"
NOT_FINISHED = "no finished session on record since the last reopening"
RUNS_AGAIN = f"{NOT_IN_REVIEW}: a session began since this pull request was turned down; merge what that delivers"
TOO_EARLY = "it was merged before the last session ended, so it cannot hold what that delivered"
CLOSED_BEFORE = "this merge closed the issue before, and it was reopened since"
CLOSED_ALREADY = "the issue is closed already"


class NoIssueNamed(ValueError):
    """A pull request names no issue at all."""


class Ruling(StrEnum):
    """The effect of a merge on the issue that it names."""

    CLOSE = "CLOSE"
    SKIP = "SKIP"
    REJECT = "REJECT"


@dataclass(frozen=True)
class MergeCloseResult:
    """The result of a merge. `feedback_marker` is the marker in the issue's feedback, None when there is none.

    `closed` are the issues that are closed now because of it: its own, and with a [FIX] those that overflowed into it.
    """

    applied: bool
    reason: str
    feedback_marker: Marker | None = None
    closed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trust:
    """The merges that count: in `repo`, into `base`, from a session's own branch or by one of `authors`."""

    repo: str
    base: str
    authors: frozenset[str] = frozenset()

    def delivered(self, pull: PullRequest, issue_id: str) -> bool:
        """True when it comes from the branch that a session of this issue delivers; a fork's namesake is another."""
        return pull.head_repo.lower() == self.repo.lower() and pull.branch == branch_of(issue_id)

    def objection(self, pull: PullRequest, issue_id: str) -> str:
        """The reason for which this pull request may not speak for that issue; empty when it may."""
        if pull.repo.lower() != self.repo.lower():
            return f"it is a pull request of {pull.repo}, not of {self.repo}"
        if pull.base != self.base:
            return f"its base is {pull.base}, not {self.base}"
        # Logins are the same in any case.
        if self.delivered(pull, issue_id) or pull.author.lower() in {author.lower() for author in self.authors}:
            return ""
        came_from = f"{pull.head_repo or 'a deleted fork'}:{pull.branch}"
        return f"it comes from {came_from}, not from {branch_of(issue_id)}, and its author is not on the allow-list"


def parse_issue_line(body: str) -> str:
    """The id of the one issue that a pull request's body names. ValueError says why there is none.

    A line that begins like one, even quoted or malformed, counts as one: of two claims neither is believed.
    """
    lines = naming_lines(body)
    if not lines:
        raise NoIssueNamed("no line `Sudocode-Issue: i-xxxx`")
    if len(lines) > 1:
        raise ValueError(f"{len(lines)} lines begin with `Sudocode-Issue:`; exactly one may")
    named = _ONE_ISSUE.fullmatch(lines[0])
    if named is None:
        raise ValueError(f"malformed line {bounded_text(one_line(lines[0]))!r}; it must be `Sudocode-Issue: i-xxxx`")
    return named[1]


def merge_of(
    pull: PullRequest,
    trust: Trust,
    *,
    delivered: Callable[[str], Delivered | None],
    on_base: Callable[[str], bool],
    undone: Callable[[PullRequest], str],
) -> MergeClosePayload:
    """The merge that a pull request is, with what speaks against it. ValueError when it names not exactly one issue.

    One from a session's own branch that names its issue badly is a merge of that issue that may not close it.
    `delivered` gives an issue's last session, if that is known; `on_base` says whether the base holds a commit,
    `undone` why it has nothing of the pull request all the same, or is empty.
    """
    try:
        issue_id, wrong = parse_issue_line(pull.body), ""
    except ValueError as badly:
        issue_id, wrong = issue_of(pull.branch), f"{NAMED_BADLY}: {badly}"
        if pull.merged_at is None or not issue_id or trust.objection(pull, issue_id):
            raise
    merge = MergeClosePayload(
        issue_id, pull.url, pull.merge_sha, pull.merged_at, pull.merged_at is not None, "daemon", wrong, on_forge=True
    )
    if pull.merged_at is None or wrong:
        return merge
    if objection := trust.objection(pull, issue_id):
        return replace(merge, objection=objection)
    session = delivered(issue_id)
    if session and session.empty:
        return replace(merge, objection=f"the last session of {issue_id} changed nothing, so none of it can be merged")
    if not on_base(pull.merge_sha):
        return replace(merge, objection=f"{trust.base} does not hold its merge commit")
    return replace(merge, objection=undone(pull))


def judge(record: MergeRecord, payload: MergeClosePayload) -> tuple[Ruling, str]:
    """The ruling on the issue that a merge names, and the reason: the rules, in their order."""
    if payload.objection:
        return Ruling.REJECT, payload.objection
    if record.issue.status is IssueStatus.CLOSED:
        # Only what we began ourselves is brought to its end; an issue that others closed is left as it is.
        return (Ruling.CLOSE, "merged") if record.cut_off(payload) else (Ruling.SKIP, CLOSED_ALREADY)
    if record.issue.status is not IssueStatus.NEEDS_REVIEW and not record.turned_down(payload):
        return Ruling.REJECT, RUNS_AGAIN if record.turned_down_before(payload) else NOT_IN_REVIEW
    if record.applied(payload):
        return Ruling.REJECT, CLOSED_BEFORE
    if not record.finished(payload):
        return Ruling.REJECT, NOT_FINISHED
    # Git proves what it says, and an operator is believed; a pull request may hold the work of a session before.
    if payload.on_forge and record.ended_after(payload.merged_at):
        return Ruling.REJECT, TOO_EARLY
    return Ruling.CLOSE, "merged"


def foresee(show: Callable[[str], Issue], payload: MergeClosePayload) -> tuple[Ruling, str]:
    """The ruling that `apply_merge_close` would follow, and the reason; read-only by its arguments."""
    if objection := _no_event(payload):
        return Ruling.REJECT, objection
    return judge(read_record(show(payload.issue_id)), payload)


def apply_merge_close(*, gateway: IssueTracker, payload: MergeClosePayload) -> MergeCloseResult:
    """Close the issue that a merge names, if the rules allow it, and say in its feedback what was done and why.

    Doing it again is harmless: each marker is looked for by its merge, statuses are set, and MERGE_CLOSE_APPLIED comes
    last, so without it what was cut off is done once more. Callers take turns; the tracker has no compare-and-set.
    """
    if objection := _no_event(payload):
        return MergeCloseResult(False, objection)
    try:
        record = read_record(shown(gateway.show_issue, payload.issue_id))
    except TrackerRefused as unknown:
        return MergeCloseResult(False, str(unknown))
    ruling, reason = judge(record, payload)
    issue_id = record.issue.id
    closed: tuple[str, ...] = ()
    match ruling:
        case Ruling.CLOSE:
            tell_marker(gateway, record, Marker.MERGE_EVIDENCE_RECORDED, payload=payload, reason=reason)
            gateway.set_issue_status(issue_id, IssueStatus.CLOSED)
            closed = (issue_id, *_close_originals(gateway, record.issue, payload))
            marker = Marker.MERGE_CLOSE_APPLIED
        case Ruling.SKIP:
            if not record.says(Marker.MERGE_CLOSE_APPLIED):
                tell_marker(gateway, record, Marker.MERGE_CLOSE_APPLIED, payload=payload, reason=reason)
            closed = (issue_id,)
            marker = Marker.MERGE_CLOSE_SKIPPED_ALREADY_CLOSED
        case Ruling.REJECT:
            marker = Marker.MERGE_CLOSE_REJECTED
    tell_marker(gateway, record, marker, payload=payload, reason=reason)
    return MergeCloseResult(ruling is Ruling.CLOSE, reason, marker, closed)


def apply_closed_unmerged(*, gateway: IssueTracker, pull: PullRequest, trust: Trust) -> MergeCloseResult:
    """Reopen the issue whose delivered pull request was turned down; its feedback says first why.

    A pull request that no session delivered changes nothing. Doing it again is harmless: the issue waits no more.
    """
    issue_id = issue_of(pull.branch)
    if not issue_id or not trust.delivered(pull, issue_id) or trust.objection(pull, issue_id):
        return MergeCloseResult(False, NOT_MERGED)
    payload = MergeClosePayload(issue_id, pull.url, "", None, False, "daemon")
    record = read_record(shown(gateway.show_issue, issue_id))
    waits = record.issue.status is IssueStatus.NEEDS_REVIEW and record.finished(payload)
    if not waits or record.ended_after(pull.closed_at):
        return MergeCloseResult(False, f"{NOT_MERGED}, and {issue_id} does not wait for it")
    reason = f"pull request #{pull.number} was closed without being merged; the issue is open again"
    tell_marker(gateway, record, Marker.PULL_REQUEST_CLOSED_UNMERGED, payload=payload, reason=reason)
    gateway.set_issue_status(issue_id, IssueStatus.OPEN)
    return MergeCloseResult(False, reason, Marker.PULL_REQUEST_CLOSED_UNMERGED)


def _no_event(payload: MergeClosePayload) -> str:
    """The reason for which this is no merge of an issue; empty when it is one."""
    if not payload.merged:
        return NOT_MERGED
    return "" if ISSUE_ID.fullmatch(payload.issue_id) else f"{payload.issue_id!r} is no issue id"


def _close_originals(gateway: IssueTracker, fix: Issue, payload: MergeClosePayload) -> list[str]:
    """Close the issues that overflowed into this [FIX] issue, and those that overflowed into them; gives their ids."""
    seen = {fix.id}
    fixes = [fix]
    closed = []
    while fixes:
        issue = fixes.pop()
        for original_id in issue.linked_from if issue.is_fix else ():
            if original_id in seen:
                continue
            seen.add(original_id)
            original = read_record(shown(gateway.show_issue, original_id))
            fixes.append(original.issue)
            if original.issue.status is IssueStatus.NEEDS_REVIEW and original.overflowed():
                reason = f"closed by the merge of {issue.id}"
                tell_marker(gateway, original, Marker.OVERFLOW_PARENT_CLOSED_BY_FIX, payload=payload, reason=reason)
                gateway.set_issue_status(original_id, IssueStatus.CLOSED)
                closed.append(original_id)
    return closed
