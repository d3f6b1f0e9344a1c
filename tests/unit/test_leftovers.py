"""Which leftovers go: those of closed issues that nobody has, where nothing is lost."""

from __future__ import annotations

from orchestrator.adapters.git import Leftover, LeftoverKind
from orchestrator.cli.gc import Kept, Plan, plan
from orchestrator.models import IssueStatus

BRANCH = Leftover("i-abc", LeftoverKind.BRANCH, "refs/heads/orch/i-abc", "c0ffee", True, "merged into main")
WORKTREE = Leftover("i-abc", LeftoverKind.WORKTREE, "/worktrees/i-abc", "", True, "put aside")
UNMERGED = Leftover("i-abc", LeftoverKind.ASIDE, "refs/orch/wip/i-abc/1", "1", False, "not merged")


def test_safe_leftovers_of_closed_issues_go() -> None:
    """What is safe goes, the worktree before its branch; what is not stays, with the reason that was found."""
    found = [UNMERGED, BRANCH, WORKTREE]

    expected = Plan((WORKTREE, BRANCH), (Kept(UNMERGED, "not merged"),))
    assert expected == plan(found, status={"i-abc": IssueStatus.CLOSED}, live=set())


def test_issues_that_are_not_closed_are_not_mentioned() -> None:
    """Their branches are no leftovers yet."""
    statuses = set(IssueStatus) - {IssueStatus.CLOSED}

    assert {Plan((), ())} == {plan([BRANCH], status={"i-abc": status}, live=set()) for status in statuses}


def test_a_session_in_flight_keeps_all_of_its_issue() -> None:
    """Whatever the tracker says of it."""
    expected = Plan((), (Kept(BRANCH, "its session is in flight; see `orch status`"),))

    assert expected == plan([BRANCH], status={"i-abc": IssueStatus.CLOSED}, live={"i-abc"})


def test_what_the_tracker_does_not_know_stays() -> None:
    """It may be another clone's."""
    [kept] = plan([BRANCH], status={"i-xyz": IssueStatus.CLOSED}, live=set()).keep

    assert BRANCH == kept.leftover
    assert kept.why.startswith("the tracker does not know its issue")
