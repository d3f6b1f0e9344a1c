"""What a merge will do, without doing it: for who may look and not touch.

It is read-only by construction: all it is given are two questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.errors import OrchestratorError, TrackerRefused
from orchestrator.merge_close.events import PullRequest
from orchestrator.merge_close.record import read_record
from orchestrator.merge_close.rules import NOT_MERGED, NoIssueNamed, Ruling, Trust, judge, merge_of
from orchestrator.models import branch_of


@dataclass(frozen=True)
class Audit:
    """What becomes of the issue that a pull request names, and why; `ruling` is None when it concerns no issue.

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
    show_issue: Callable[[str], Mapping[str, object]],
    on_base: Callable[[str], bool | None],
) -> Audit:
    """The rules of `merge_close`, in their order, as far as they can be checked.

    `show_issue` answers as the tracker does; TrackerRefused says that there is no such issue, any other
    OrchestratorError that the tracker cannot be read. `on_base` says whether the base holds a commit, None if nobody
    knows.
    """
    if pull.merged_at is None:
        return Audit(None, NOT_MERGED)
    held = on_base(pull.merge_sha)
    try:
        merge = merge_of(pull, trust, on_base=lambda _commit: held is not False, started_at=lambda _issue: None)
    except NoIssueNamed as silent:
        delivers = pull.branch.startswith(branch_of(""))
        return Audit(Ruling.REJECT if delivers else None, str(silent))
    except ValueError as wrong:
        return Audit(Ruling.REJECT, str(wrong))
    if merge.objection:
        return Audit(Ruling.REJECT, merge.objection, merge.issue_id)
    unchecked = [f"{merge.issue_id}'s last session began before the merge"]
    if held is None:
        unchecked.append(f"{trust.base} holds the merge commit")
    try:
        issue = read_record(merge.issue_id, show_issue(merge.issue_id))
    except TrackerRefused as unknown:
        ruling, reason = Ruling.REJECT, str(unknown)
    except OrchestratorError as unreadable:
        unchecked.append(f"{merge.issue_id} waits for a merge ({unreadable})")
        ruling, reason = Ruling.CLOSE, "nothing speaks against it"
    else:
        ruling, reason = judge(issue, merge)
    return Audit(ruling, reason, merge.issue_id, tuple(unchecked))
