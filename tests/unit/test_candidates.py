"""Which issues could run, and in which order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.issue import shown
from orchestrator.memory import MemoryTracker
from orchestrator.poll.candidates import Candidate, candidates, open_blockers
from tests.support import NOON, gateway_to


def ready(issue_id: str = "i-a", priority: object = 2, ready_at: object = NOON) -> dict[str, object]:
    """A ready record as a host writes it."""
    return {"issue_id": issue_id, "priority": priority, "ready_at": ready_at}


def only(record: object) -> Candidate:
    """The one candidate in a record that must be valid."""
    valid, problems = candidates([record])
    assert not problems
    return valid[0]


def test_priority_then_age_then_id() -> None:
    """Priority 0 goes first, then the oldest, then the smallest id, whatever order the tracker has."""
    later = NOON + timedelta(seconds=1)
    records = [
        ready("i-5", 4, NOON),
        ready("i-4", 1, later),
        ready("i-3", 1, NOON),
        ready("i-2", 1, NOON),
        ready("i-1", 0, later),
    ]
    valid, _problems = candidates(records)

    assert ["i-1", "i-2", "i-3", "i-4", "i-5"] == [candidate.issue_id for candidate in valid]


@given(st.permutations([ready(f"i-{n}", n % 3, NOON + timedelta(hours=n % 2)) for n in range(7)]))
def test_the_order_does_not_depend_on_the_trackers(records: list[object]) -> None:
    """Any order of the same records gives the same claims."""
    valid, _problems = candidates(records)

    assert ["i-0", "i-6", "i-3", "i-4", "i-1", "i-2", "i-5"] == [candidate.issue_id for candidate in valid]


@pytest.mark.parametrize(
    "record",
    [
        {"issue_id": "i-a", "priority": 2, "ready_at": NOON},
        {"id": "i-a", "priority": 2, "created_at": "2026-01-05 12:00:00", "title": "and whatever else"},
        MappingProxyType({"id": "i-a", "priority": 2, "created_at": "2026-01-05T12:00:00Z"}),
        SimpleNamespace(issue_id="i-a", priority=2, ready_at=NOON),
        SimpleNamespace(id="i-a", priority=2, created_at="2026-01-05T21:00:00+09:00"),
    ],
    ids=["host", "sudocode", "mapping", "object", "object as sudocode"],
)
def test_records_of_every_form(record: object) -> None:
    """Mappings and objects, with the host's names or sudocode's, say the same."""
    assert Candidate(2, NOON, "i-a") == only(record)


def test_a_time_without_a_zone_is_utc_in_text_and_refused_as_a_datetime() -> None:
    """sudocode writes UTC without saying so; a program that passes a naive datetime has forgotten something."""
    _valid, problems = candidates([ready(ready_at=datetime(2026, 1, 5, 12, 0))])  # noqa: DTZ001 - that is the case

    assert NOON == only(ready(ready_at="2026-01-05 12:00:00")).ready_at
    assert UTC == only(ready(ready_at="2026-01-05 12:00:00")).ready_at.tzinfo
    assert "ready_at: " in problems[0]


def test_moments_are_compared_across_zones() -> None:
    """The older moment goes first, even if its clock shows a later hour."""
    tokyo = datetime(2026, 1, 5, 20, 0, tzinfo=timezone(timedelta(hours=9)))
    valid, _problems = candidates([ready("i-a", 2, NOON), ready("i-b", 2, tokyo)])

    assert ["i-b", "i-a"] == [candidate.issue_id for candidate in valid]


MALFORMED: list[tuple[Any, str, str]] = [
    (ready(priority=True), "i-a", "priority"),
    (ready(priority=False), "i-a", "priority"),
    (ready(priority=5), "i-a", "priority"),
    (ready(priority=-1), "i-a", "priority"),
    (ready(priority="1"), "i-a", "priority"),
    (ready(priority=1.0), "i-a", "priority"),
    (ready(priority=None), "i-a", "priority"),
    (ready(ready_at=None), "i-a", "ready_at"),
    (ready(ready_at=1767614400), "i-a", "ready_at"),
    (ready(ready_at="soon"), "i-a", "ready_at"),
    (ready("I-A"), "I-A", "issue_id"),
    (ready("i-a\n"), "i-a", "issue_id"),
    (ready("i-../x"), "i-../x", "issue_id"),
    ({"priority": 2, "ready_at": NOON}, "priority", "issue_id"),
    ({"id": "i-a"}, "i-a", "priority"),
    (SimpleNamespace(id="i-a"), "i-a", "priority"),
    ("i-a", "i-a", "dictionary or object"),
    (None, "None", "dictionary or object"),
    (7, "7", "dictionary or object"),
    ([], "[]", "dictionary or object"),
]


@pytest.mark.parametrize(("record", "name", "wrong"), MALFORMED, ids=[repr(case[0])[:60] for case in MALFORMED])
def test_a_malformed_record_is_named_and_stops_nobody(record: object, name: str, wrong: str) -> None:
    """The others are claimed as if it were not there; the problem names the record and what is wrong with it."""
    valid, problems = candidates([ready("i-z"), record, ready("i-y")])

    assert ["i-y", "i-z"] == [candidate.issue_id for candidate in valid]
    assert 1 == len(problems)
    assert name in problems[0]
    assert wrong in problems[0]


@given(
    st.lists(st.none() | st.integers() | st.text() | st.dictionaries(st.sampled_from(["id", "priority"]), st.text()))
)
def test_no_record_is_too_strange(records: list[object]) -> None:
    """Whatever stands in a ready list is either a candidate or named in a problem."""
    valid, problems = candidates(records)

    assert len(records) == len(valid) + len(problems)


def test_an_issue_listed_twice_is_one_candidate() -> None:
    """The first of two records of an issue holds."""
    valid, problems = candidates([ready("i-a", 1), ready("i-a", 0)])

    assert ([Candidate(1, NOON, "i-a")], []) == (valid, problems)


@pytest.mark.parametrize("status", ["open", "in_progress", "blocked", "needs_review", "closed"])
@pytest.mark.parametrize("relation", ["blocks", "depends-on"])
def test_an_issue_waits_until_each_blocker_is_closed(relation: str, status: str) -> None:
    """Whichever way the link is written, only a closed blocker lets the issue through."""
    tracker = MemoryTracker()
    waiting, blocker = tracker.file("waits"), tracker.file("comes first")
    ends = (blocker, waiting) if relation == "blocks" else (waiting, blocker)
    tracker.link(from_id=ends[0], to_id=ends[1], type=relation)
    tracker.issues[blocker]["status"] = status
    still_open = open_blockers(shown(tracker.show_issue, waiting), gateway_to(tracker))

    assert ([] if status == "closed" else [blocker]) == still_open
    assert () == shown(tracker.show_issue, blocker).blockers
