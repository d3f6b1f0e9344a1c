"""Dry run of the rules of closing; read-only, because all it is given are two questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.errors import OrchestratorError, TrackerRefused
from orchestrator.issue import Issue
from orchestrator.merge_close.events import PullRequest
from orchestrator.merge_close.record import read_record
from orchestrator.merge_close.rules import NOT_MERGED, NoIssueNamed, Ruling, Trust, judge, merge_of


@dataclass(frozen=True)
class Audit:
    """The ruling on the issue that a pull request names, and the reason; None when it concerns no issue.

    `unchecked` are the rules that could not be checked: they were taken to be kept.
    """

    ruling: Ruling | None
    reason: str
    issue_id: str | None = None
    unchecked: tuple[str, ...] = ()


def audit_merge(
    pull: PullRequest,
    trust: Trust,
    *,
    show: Callable[[str], Issue],
    on_base: Callable[[str], bool | None],
) -> Audit:
    """The rules of `merge_close`, in their order, as far as they can be checked.

    `show` gives the issue; TrackerRefused says that there is no such issue, any other OrchestratorError that the
    tracker cannot be read. `on_base` is True when the base holds a commit, None when that is not known.
    """
    if pull.merged_at is None:
        return Audit(None, NOT_MERGED)
    held = on_base(pull.merge_sha)
    try:
        merge = merge_of(
            pull,
            trust,
            delivered=lambda _issue: None,
            on_base=lambda _commit: held is not False,
            undone=lambda _pull: "",
        )
    except NoIssueNamed as silent:
        return Audit(None, str(silent))
    except ValueError as wrong:
        return Audit(Ruling.REJECT, str(wrong))
    if merge.objection:
        return Audit(Ruling.REJECT, merge.objection, merge.issue_id)
    unchecked = [f"{merge.issue_id}'s last session changed something, which the merge took and nobody took back"]
    if held is None:
        unchecked.append(f"{trust.base} holds the merge commit")
    try:
        record = read_record(show(merge.issue_id))
    except TrackerRefused as unknown:
        ruling, reason = Ruling.REJECT, str(unknown)
    except OrchestratorError as unreadable:
        unchecked.append(f"{merge.issue_id} waits for a merge ({unreadable})")
        ruling, reason = Ruling.CLOSE, "nothing speaks against it"
    else:
        ruling, reason = judge(record, merge)
    return Audit(ruling, reason, merge.issue_id, tuple(unchecked))
