"""What an audit says of a merge: what closing would do, as far as it can see."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from orchestrator.errors import TrackerUnavailable
from orchestrator.issue import Issue, shown
from orchestrator.merge_close.audit import Audit, audit_merge
from orchestrator.merge_close.events import PullRequest
from orchestrator.merge_close.rules import (
    CLOSED_ALREADY,
    NOT_FINISHED,
    NOT_IN_REVIEW,
    NOT_MERGED,
    Ruling,
    apply_merge_close,
    merge_of,
)
from orchestrator.models import Verdict
from tests.merges import TRUST, Tracked, pull
from tests.support import gateway_to

CHANGED = "i-a1b2's last session changed something, which the merge took and nobody took back"


def audited(event: PullRequest, tracker: Tracked, *, on_base: bool | None = True) -> Audit:
    return audit_merge(event, TRUST, show=partial(shown, tracker.show_issue), on_base=lambda _commit: on_base)


def finished(verdict: Verdict | None = Verdict.DONE, *, status: str = "") -> Tracked:
    tracker = Tracked()
    tracker.session(verdict)
    if status:
        tracker.issues["i-a1b2"]["status"] = status
    return tracker


def test_a_merge_that_closes_its_issue() -> None:
    """It says which issue, why, and what it cannot know without Redis."""
    assert Audit(Ruling.CLOSE, "merged", "i-a1b2", (CHANGED,)) == audited(pull(), finished())


@pytest.mark.parametrize(
    ("event", "tracker", "ruling", "reason"),
    [
        (pull(), finished(), Ruling.CLOSE, "merged"),
        (pull(), finished(status="closed"), Ruling.SKIP, CLOSED_ALREADY),
        (pull(), finished(None), Ruling.REJECT, NOT_IN_REVIEW),
        (pull(), finished(Verdict.ERROR, status="needs_review"), Ruling.REJECT, NOT_FINISHED),
        (pull("i-zzzz"), finished(), Ruling.REJECT, "Issue not found: i-zzzz"),
        (pull(base="release"), finished(), Ruling.REJECT, "its base is release, not main"),
        (pull(branch="fix-typo"), finished(), Ruling.REJECT, "not from orch/i-a1b2"),
        (pull(head_repo="eve/shop"), finished(), Ruling.REJECT, "from eve/shop:orch/i-a1b2"),
        (pull(branch="fix-typo", author="lead"), finished(), Ruling.CLOSE, "merged"),
    ],
)
def test_it_says_what_closing_would_do(event: PullRequest, tracker: Tracked, ruling: Ruling, reason: str) -> None:
    """The same merge, applied, is applied or not for the same reason."""
    said = audited(event, tracker)
    merge = merge_of(event, TRUST, delivered=lambda _issue: None, on_base=lambda _commit: True, undone=lambda _pull: "")
    done = apply_merge_close(gateway=gateway_to(tracker), payload=merge)

    assert (ruling, ruling is Ruling.CLOSE) == (said.ruling, done.applied)
    assert reason in said.reason
    assert said.reason == done.reason


@pytest.mark.parametrize(
    ("changes", "ruling", "reason"),
    [
        ({"merged_at": None}, None, NOT_MERGED),
        ({"merged_at": None, "body": "Sudocode-Issue: 17"}, None, NOT_MERGED),
        ({"body": "A typo.", "branch": "fix-typo"}, None, "no line"),
        ({"body": "Sudocode-Issue: 17", "branch": "fix-typo"}, Ruling.REJECT, "malformed line 'Sudocode-Issue: 17'"),
        ({"body": "", "head_repo": "eve/shop"}, None, "no line"),
    ],
)
def test_who_concerns_no_issue_is_told_apart(changes: dict[str, Any], ruling: Ruling | None, reason: str) -> None:
    """Unmerged, somebody's own work that names none, or a fork whose branch is called as a session's."""
    said = audited(pull(**changes), finished())

    assert (ruling, None) == (said.ruling, said.issue_id)
    assert reason in said.reason


@pytest.mark.parametrize(
    ("body", "reason"), [("", "no line"), ("Sudocode-Issue: i-a1b2\nSudocode-Issue: i-c3d4", "2 lines")]
)
def test_a_sessions_branch_has_to_name_its_issue(body: str, reason: str) -> None:
    """Its merge is rejected, and the issue is known by the branch."""
    said = audited(pull(body=body), finished())

    assert (Ruling.REJECT, "i-a1b2") == (said.ruling, said.issue_id)
    assert reason in said.reason


def test_what_is_not_on_the_base_is_rejected() -> None:
    """As after a force-push."""
    assert Audit(Ruling.REJECT, "main does not hold its merge commit", "i-a1b2") == audited(
        pull(), finished(), on_base=False
    )


def test_a_shallow_checkout_says_so() -> None:
    """Whether the base holds the commit is then not known, and not held against the merge."""
    assert Audit(Ruling.CLOSE, "merged", "i-a1b2", (CHANGED, "main holds the merge commit")) == audited(
        pull(), finished(), on_base=None
    )


def test_without_a_tracker_the_other_rules_are_checked() -> None:
    """It says which one was not, and why."""

    def unreadable(_issue_id: str) -> Issue:
        raise TrackerUnavailable("there is no issues.jsonl")

    def said(event: PullRequest) -> Audit:
        return audit_merge(event, TRUST, show=unreadable, on_base=lambda _commit: True)

    unchecked = (CHANGED, "i-a1b2 waits for a merge (there is no issues.jsonl)")
    assert Audit(Ruling.CLOSE, "nothing speaks against it", "i-a1b2", unchecked) == said(pull())
    assert Audit(Ruling.REJECT, "its base is release, not main", "i-a1b2") == said(pull(base="release"))


def test_it_changes_nothing() -> None:
    """Not a marker, not a status."""
    tracker = finished()
    before = tracker.everything()

    audited(pull(), tracker)

    assert before == tracker.everything()
