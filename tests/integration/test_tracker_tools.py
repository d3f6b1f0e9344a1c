"""The bundled tracker without a process around it: its clock, its files and its database under our own hands."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tracker import database, init
from orchestrator.tracker.tools import ToolAnswer, TrackerTools


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return init(tmp_path)


@pytest.fixture
def tools(folder: Path, clock: Clock) -> Iterator[TrackerTools]:
    tools = TrackerTools(folder.parent, agent="tester", clock=clock)
    yield tools
    tools.close()


def call(tools: TrackerTools, name: str, **arguments: Any) -> Any:
    answer = tools.call(name, arguments)
    assert not answer.is_error, answer.text
    return json.loads(answer.text)


def create(tools: TrackerTools, title: str = "An issue", **fields: Any) -> str:
    return str(call(tools, "upsert_issue", title=title, **fields)["id"])


def lines(folder: Path, name: str = "issues.jsonl") -> list[Any]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").split("\n") if line]


# -- times -------------------------------------------------------------------------------------------------------------


def test_times_are_utc_in_the_two_forms_of_sudocode(tools: TrackerTools) -> None:
    """Issues carry seconds without a zone, feedback carries milliseconds with one."""
    issue = create(tools)
    entry = call(tools, "add_feedback", issue_id=issue, to_id=issue, content="x")

    assert "2026-01-02 03:04:05" == call(tools, "show_issue", issue_id=issue)["created_at"]
    assert "2026-01-02T03:04:05.678Z" == entry["created_at"]


def test_setting_what_is_so_already_is_no_update(tools: TrackerTools, clock: Clock) -> None:
    """The same values, empty ones and feedback leave `updated_at` alone; another value does not."""
    issue = create(tools, description="text", priority=1)
    clock.move(60)
    call(tools, "upsert_issue", issue_id=issue, title="An issue", priority=1, description="", tags=["ignored"])
    call(tools, "add_feedback", issue_id=issue, to_id=issue, content="x")
    shown = call(tools, "show_issue", issue_id=issue)

    assert ("2026-01-02 03:04:05", "text", []) == (shown["updated_at"], shown["content"], shown["tags"])

    call(tools, "upsert_issue", issue_id=issue, priority=2)

    assert "2026-01-02 03:05:05" == call(tools, "show_issue", issue_id=issue)["updated_at"]


def test_closing_and_archiving_carry_their_time_until_undone(tools: TrackerTools, clock: Clock) -> None:
    """closed_at and archived_at are set with the flag, kept when set again, and cleared with it."""
    issue = create(tools)
    call(tools, "upsert_issue", issue_id=issue, status="closed", archived=True)
    clock.move(60)
    again = call(tools, "upsert_issue", issue_id=issue, status="closed", archived=True)

    assert ["2026-01-02 03:04:05"] * 2 + [1] == [again["closed_at"], again["archived_at"], again["archived"]]

    undone = call(tools, "upsert_issue", issue_id=issue, status="open", archived=False)

    assert [None, None, 0] == [undone["closed_at"], undone["archived_at"], undone["archived"]]


def test_newer_comes_first_within_a_priority_and_within_a_moment(tools: TrackerTools, clock: Clock) -> None:
    """Issues and feedback made in the same tick of the clock keep their order."""
    older = create(tools)
    clock.move(1)
    first, second = create(tools), create(tools)
    for content in "abc":
        call(tools, "add_feedback", issue_id=first, to_id=first, content=content)

    assert [second, first, older] == [row["id"] for row in call(tools, "list_issues")]
    assert ["c", "b", "a"] == [entry["content"] for entry in call(tools, "show_issue", issue_id=first)["feedback"]]


def test_a_list_holds_fifty_unless_asked_otherwise(tools: TrackerTools) -> None:
    """The default limit is 50; -1 gives all."""
    for _ in range(51):
        create(tools)

    assert [50, 51, 0] == [len(call(tools, "list_issues", **limit)) for limit in ({}, {"limit": -1}, {"limit": 0})]


def test_an_archived_open_blocker_still_holds_up(tools: TrackerTools) -> None:
    """Archiving hides a blocker from the lists, not from those who wait for it."""
    blocker, waiting = create(tools), create(tools)
    call(tools, "link", from_id=waiting, to_id=blocker, type="depends-on")
    call(tools, "upsert_issue", issue_id=waiting, status="open")
    call(tools, "upsert_issue", issue_id=blocker, archived=True)
    answer = call(tools, "ready")

    assert [] == answer["ready"]["issues"]
    assert (0, 1) == (answer["status"]["issues"]["ready"], answer["status"]["issues"]["blocked"])


def test_ids_grow_with_the_number_of_issues(tools: TrackerTools) -> None:
    """An id is i- and four letters or digits; all are different."""
    ids = [create(tools) for _ in range(200)]

    assert 200 == len(set(ids))
    assert {6} == {len(issue_id) for issue_id in ids}


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_line_is_written_as_sudocode_writes_it(tools: TrackerTools, folder: Path) -> None:
    """Keys in sudocode's order, feedback without uuids and only when there is some, anchors as objects."""
    issue, other = create(tools, "日本", description="one\ntwo", tags=["b", "a"]), create(tools)
    call(tools, "link", from_id=issue, to_id=other)
    given = call(tools, "add_feedback", issue_id=issue, to_id=issue, content="x", line=2)
    by_id = {line["id"]: line for line in lines(folder)}
    line = by_id[issue]

    assert [
        *("id", "uuid", "title", "content", "status", "priority", "assignee", "archived", "archived_at", "created_at"),
        *("updated_at", "closed_at", "parent_id", "parent_uuid", "relationships", "tags", "feedback"),
    ] == list(line)
    assert [{"from": issue, "from_type": "issue", "to": other, "to_type": "issue", "type": "references"}] == line[
        "relationships"
    ]
    assert ["a", "b"] == line["tags"]
    assert [
        {
            "id": given["id"],
            "from_id": issue,
            "to_id": issue,
            "feedback_type": "comment",
            "content": "x",
            "agent": "tester",
            "anchor": json.loads(given["anchor"]),
            "dismissed": False,
            "created_at": "2026-01-02T03:04:05.678Z",
            "updated_at": "2026-01-02T03:04:05.678Z",
        }
    ] == line["feedback"]
    assert "feedback" not in by_id[other]
    assert "日本" in (folder / "issues.jsonl").read_text(encoding="utf-8")


def test_lines_are_sorted_by_time_of_creation_then_id(tools: TrackerTools, folder: Path, clock: Clock) -> None:
    """A change rewrites a line where it stands."""
    first = [create(tools) for _ in range(5)]
    clock.move(1)
    last = create(tools)
    call(tools, "upsert_issue", issue_id=first[0], title="Changed")

    assert [*sorted(first), last] == [line["id"] for line in lines(folder)]


def test_a_write_that_cannot_be_copied_is_not_kept(tools: TrackerTools, folder: Path) -> None:
    """When the JSONL file cannot be replaced, the call fails and the database is as before."""
    create(tools, "Kept")
    (folder / "issues.jsonl").unlink()
    (folder / "issues.jsonl").mkdir()
    answer = tools.call("upsert_issue", {"title": "Lost"})

    assert answer.is_error
    assert "✗ Failed to create issue\n" in answer.text
    assert ["Kept"] == [row["title"] for row in call(tools, "list_issues")]


def test_a_line_nobody_can_read_refuses_every_call_and_changes_nothing(tools: TrackerTools, folder: Path) -> None:
    """An unfinished merge is reported with its line; once it is mended, the next call reads the file."""
    create(tools, "Mine")
    tools.close()
    (folder / database.DATABASE).unlink()
    mended = (folder / "issues.jsonl").read_text()
    (folder / "issues.jsonl").write_text(f"{mended}<<<<<<< HEAD\n")
    answer = tools.call("upsert_issue", {"title": "New"})

    assert answer.is_error
    assert "issues.jsonl line 2 is not a record" in answer.text
    assert f"{mended}<<<<<<< HEAD\n" == (folder / "issues.jsonl").read_text()

    (folder / "issues.jsonl").write_text(mended)

    assert ["Mine"] == [row["title"] for row in call(tools, "list_issues")]


def test_of_two_lines_for_one_issue_the_later_update_wins(tools: TrackerTools, folder: Path, clock: Clock) -> None:
    """A union merge leaves two lines; the feedback of both is kept."""
    issue = create(tools, "Old")
    call(tools, "add_feedback", issue_id=issue, to_id=issue, content="1")
    old = (folder / "issues.jsonl").read_text()
    clock.move(1)
    call(tools, "upsert_issue", issue_id=issue, title="New")
    call(tools, "add_feedback", issue_id=issue, to_id=issue, content="2")
    tools.close()
    (folder / database.DATABASE).unlink()
    (folder / "issues.jsonl").write_text((folder / "issues.jsonl").read_text() + old)
    shown = call(tools, "show_issue", issue_id=issue)

    assert "New" == shown["title"]
    assert ["2", "1"] == [entry["content"] for entry in shown["feedback"]]


def test_a_database_put_in_place_meanwhile_is_opened(tools: TrackerTools, folder: Path) -> None:
    """Deleting `.sudocode` under a running server leads to an empty tracker, not to writes into nowhere."""
    create(tools)
    for path in folder.iterdir():
        path.unlink()

    assert [] == call(tools, "list_issues")

    create(tools, "After")

    assert ["After"] == [line["title"] for line in lines(folder)]


def test_init_leaves_what_is_there(folder: Path) -> None:
    """A second init changes nothing; an existing .gitignore gets only the lines it lacks."""
    (folder / "config.json").write_text('{"kept": true}')
    (folder / ".gitignore").write_text("cache.db*\n*.log")
    init(folder.parent)
    init(folder.parent)

    assert '{"kept": true}' == (folder / "config.json").read_text()
    assert ["cache.db*", "*.log", "orch-tracker.db*", "issues.jsonl.*.tmp", "specs.jsonl.*.tmp"] == (
        folder / ".gitignore"
    ).read_text().splitlines()
    assert ["", ""] == [(folder / name).read_text() for name in ("issues.jsonl", "specs.jsonl")]


def test_what_a_killed_writer_left_is_swept_away(tools: TrackerTools, folder: Path) -> None:
    """Half-written copies vanish when a tracker is opened."""
    (folder / "issues.jsonl.4711.tmp").write_text("half")
    create(tools)

    assert [] == list(folder.glob("*.tmp"))


# -- saying no ---------------------------------------------------------------------------------------------------------


def test_a_lock_held_too_long_is_answered_with_sudocodes_words(
    tools: TrackerTools, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write gives up after the busy timeout; reading goes on."""
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 0.05)
    issue = create(tools)
    other = sqlite3.connect(folder / database.DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = tools.call("upsert_issue", {"issue_id": issue, "status": "closed"})
    other.close()

    expected = "Error: CLI command failed with exit code 1\n\nStderr:\n✗ Failed to update issue\ndatabase is locked\n"

    assert ToolAnswer(expected, is_error=True) == answer
    assert "open" == call(tools, "show_issue", issue_id=issue)["status"]


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("add_feedback", {"to_id": "i-1", "content": "x" * 131_072}, "Error: spawn E2BIG"),
        ("upsert_issue", {"title": "é" * 65_536}, "Error: spawn E2BIG"),
        ("upsert_issue", {"title": "T", "tags": ["x" * 65_536] * 2}, "Error: spawn E2BIG"),
        ("upsert_issue", {"title": "a\0b"}, "Error: The argument 'title' must be a string without null bytes."),
        (
            "upsert_issue",
            {"title": "\ud800"},
            "Error: The argument 'title' must be a string of whole Unicode characters.",
        ),
        ("upsert_spec", {}, "Error: title is required when creating a new spec"),
        ("close_issue", {}, "Unknown tool: close_issue"),
    ],
)
def test_what_no_command_line_takes_is_refused(
    tools: TrackerTools, tool: str, arguments: dict[str, Any], text: str
) -> None:
    """Too long, with a NUL, half a character, without a title, or a tool that is not there."""
    assert ToolAnswer(text, is_error=True) == tools.call(tool, arguments)


@pytest.mark.parametrize("priority", [-1, 5, "high", 1e300, float("nan")])
def test_a_priority_outside_0_to_4_is_a_constraint_violation(tools: TrackerTools, priority: object) -> None:
    """Nothing is created."""
    answer = tools.call("upsert_issue", {"title": "T", "priority": priority})

    assert answer.is_error
    assert "✗ Failed to create issue\nConstraint violation: " in answer.text
    assert [] == call(tools, "list_issues")


# -- specs and references ----------------------------------------------------------------------------------------------


def test_a_spec_shows_the_feedback_it_got(tools: TrackerTools, folder: Path) -> None:
    """A spec is created, linked, changed and listed like an issue, and has a file of its own."""
    issue = create(tools)
    spec = call(tools, "upsert_spec", title="Auth", description="# Auth", tags=["sec"])
    call(tools, "link", from_id=issue, to_id=spec["id"], type="implements")
    call(tools, "add_feedback", issue_id=issue, to_id=spec["id"], content="unclear", type="request")
    call(tools, "upsert_spec", spec_id=spec["id"], priority=0)
    shown = call(tools, "show_spec", spec_id=spec["id"])

    assert ["unclear"] == [entry["content"] for entry in shown["feedback"]]
    assert [issue] == [link["from_id"] for link in shown["relationships"]["incoming"]]
    assert [(spec["id"], 0)] == [(row["id"], row["priority"]) for row in call(tools, "list_specs", search="auth")]
    assert [("Auth", ["sec"])] == [(line["title"], line["tags"]) for line in lines(folder, "specs.jsonl")]
    assert "✗ Issue not found: " + spec["id"] in tools.call("show_issue", {"issue_id": spec["id"]}).text


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"line": 1}, "one [[i-1]]\ntwo"),
        ({"text": "tw", "display_text": "see"}, "one\ntw [[i-1|see]]o"),
        ({"line": 2, "format": "newline", "relationship_type": "blocks"}, "one\ntwo\n[[i-1]]{ blocks }"),
    ],
)
def test_a_reference_is_written_into_the_text(tools: TrackerTools, place: dict[str, Any], expected: str) -> None:
    """After a line or after a text, inline or on a line of its own."""
    issue = create(tools, description="one\ntwo")
    call(tools, "add_reference", entity_id=issue, reference_id="i-1", **place)

    assert expected == call(tools, "show_issue", issue_id=issue)["content"]
