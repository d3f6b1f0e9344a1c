"""A look at how things stand: which calls it costs, and what it makes of an answer that is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.errors import TrackerRefused, TrackerUnavailable
from orchestrator.memory import MemoryTracker
from orchestrator.models import IssueStatus
from orchestrator.status import Policy, Sources, ask_tracker, collect, look_at
from orchestrator.status.facts import RedisSays
from orchestrator.status.read import BLOCKERS_ASKED
from orchestrator.status.why import explain
from tests.support import NOON


class Asked(MemoryTracker):
    """A tracker that keeps count of what it is asked; it lists `archived` issues only where it is asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.archived: set[str] = set()
        self.away = False

    def show_issue(self, issue_id: str) -> Mapping[str, object]:
        self._count(f"show {issue_id}")
        return super().show_issue(issue_id)

    def list_issues(self, *, archived: bool | None = None) -> Iterable[object]:  # type: ignore[override] # as sudocode
        self._count(f"list archived={archived}")
        return [row for row in super().list_issues() if (row["id"] in self.archived) is bool(archived)]

    def _count(self, call: str) -> None:
        self.calls.append(call)
        if self.away:
            raise TrackerUnavailable("it did not answer")


def sources(tracker: Asked) -> Sources:
    """A project where Redis does not run."""
    return Sources(
        "demo",
        redis=lambda: None,
        tracker=tracker,
        ready=list,
        base=lambda: None,
        installation=lambda: "orch-here",
        logs=Path("/nowhere"),
        policy=Policy(),
    )


def shows(tracker: Asked) -> list[str]:
    return [call.partition(" ")[2] for call in tracker.calls if call.startswith("show")]


def test_a_look_at_all_asks_only_for_those_that_wait() -> None:
    """What runs, is in review or closed costs the tracker no call of its own."""
    tracker = Asked()
    issues = {status: tracker.file(status) for status in IssueStatus}
    for status, issue_id in issues.items():
        tracker.upsert_issue(issue_id=issue_id, status=status)
    collect(sources(tracker))

    assert {issues[IssueStatus.OPEN], issues[IssueStatus.BLOCKED]} == set(shows(tracker))
    assert ["list archived=None"] == [call for call in tracker.calls if call.startswith("list")]


def test_an_issue_in_progress_that_redis_does_not_know_is_asked_for() -> None:
    """Only its feedback says whose it is."""
    tracker = Asked()
    issue_id = tracker.file("One")
    tracker.upsert_issue(issue_id=issue_id, status="in_progress")
    ask_tracker(sources(tracker), RedisSays(NOON))

    assert [issue_id] == shows(tracker)


def test_a_look_at_all_asks_for_a_bounded_number_and_says_so() -> None:
    """The rest is a line among the problems, with the command that asks."""
    tracker = Asked()
    for number in range(BLOCKERS_ASKED + 2):
        tracker.file(f"Issue {number}")
    found = collect(sources(tracker))

    assert BLOCKERS_ASKED == len(shows(tracker))
    assert found.problems[-1].startswith("2 waiting issues were not asked")


def test_a_blocker_that_was_put_away_open_still_blocks() -> None:
    """The list leaves it out, so the archived ones are listed too: one call more, whatever their number."""
    tracker = Asked()
    away, gone, waits = tracker.file("Archived"), tracker.file("Archived too"), tracker.file("Wait")
    tracker.archived = {away, gone}
    for blocker in (away, gone):
        tracker.link(from_id=blocker, to_id=waits, type="blocks")
    tracker.upsert_issue(issue_id=gone, status="closed")
    (issue,) = collect(sources(tracker)).issues

    assert ((away,), f"its blocker {away} is open") == (issue.blockers, issue.reason)
    assert ["list archived=None", "list archived=True"] == [call for call in tracker.calls if call.startswith("list")]


def test_nothing_answers() -> None:
    """That is a line for each, and no error."""
    tracker = Asked()
    tracker.away = True
    found = collect(sources(tracker))

    assert [] == list(found.issues)
    assert ["orch is not running here", "the tracker does not"] == [
        problem[: len(start)]
        for problem, start in zip(found.problems, ("orch is not running here", "the tracker does not"), strict=True)
    ]
    assert not found.complete


def test_an_issue_that_the_tracker_does_not_know() -> None:
    """Its refusal is a fact, and one that keeps others waiting is named."""

    class Forgetful(Asked):
        def show_issue(self, issue_id: str) -> Mapping[str, object]:
            if issue_id == gone:
                raise TrackerRefused("no such issue")
            return super().show_issue(issue_id)

    tracker = Forgetful()
    gone, waits = tracker.file("Gone"), tracker.file("Wait")
    tracker.link(from_id=gone, to_id=waits, type="blocks")
    unknown, blocked = (explain(look_at(sources(tracker), it).of(it)) for it in (gone, waits))

    assert "the tracker knows no such issue" == unknown.cause
    assert f"its blocker {gone} is unknown to the tracker" == blocked.cause
