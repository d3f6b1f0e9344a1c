"""Contract: whatever stands at the other end of `McpTracker` answers as sudocode 0.2.0 does.

This ring runs real servers as processes. The same tests run against the bundled tracker and, where `sudocode-mcp` is
installed, against the real one: what they agree on here is what the rest of the code may rely on. The stories
in `wire/` are calls and answers recorded from the real server; ids, uuids and times are made alike before comparing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp import StdioServerParameters

from orchestrator.adapters.mcp.connection import Connection
from orchestrator.adapters.mcp.tracker import MAX_STRING_BYTES, McpTracker, probe
from orchestrator.errors import TrackerRefused, TransientMCPError
from orchestrator.tracker import init
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
WIRE = Path(__file__).with_name("wire")
REAL = "sudocode-mcp"

TRACKERS = [
    pytest.param([sys.executable, "-m", "orchestrator.tracker"], id="bundled"),
    pytest.param(
        [REAL],
        id="sudocode",
        marks=[
            pytest.mark.sudocode,
            pytest.mark.skipif(shutil.which(REAL) is None, reason="sudocode-mcp is not installed (npm i -g sudocode)"),
        ],
    ),
]
ENV = {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module", params=TRACKERS)
def command(request: pytest.FixtureRequest) -> list[str]:
    """The command of the tracker under test."""
    return request.param


@pytest.fixture(scope="module")
def tracker(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[McpTracker]:
    """One server for the tests that mind only issues of their own."""
    root = tmp_path_factory.mktemp("repo")
    init(root)
    with McpTracker(command, cwd=root, env=ENV) as tracker:
        yield tracker


@pytest.fixture
def start(command: list[str], tmp_path: Path) -> Iterator[Callable[..., McpTracker]]:
    """Makes trackers in a repo of the test's own."""
    made: list[McpTracker] = []

    def make(root: Path = tmp_path, **options: Any) -> McpTracker:
        made.append(McpTracker(command, cwd=root, env=ENV, **options))
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


def issue(tracker: McpTracker, title: str = "An issue", **fields: Any) -> str:
    """The id of a new issue."""
    return tracker.upsert_issue(title=title, **fields)["id"]


def status(tracker: McpTracker, issue_id: str) -> str:
    return tracker.show_issue(issue_id)["status"]


def ready_ids(tracker: McpTracker) -> list[str]:
    return [row["id"] for row in tracker.ready()["ready"]["issues"]]


# -- recorded stories --------------------------------------------------------------------------------------------------

LIKENESS = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{3,4}-[0-9a-f]{3,4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "<time>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "<time in ms>"),
]


def alike(answer: object, ids: dict[str, str]) -> str:
    """An answer as text, with its keys in their order, and with all that differs between two runs made alike."""
    if isinstance(answer, dict) and "relationships" in answer:
        for end in answer["relationships"].values():
            end.sort(key=lambda link: (link["from_id"], link["to_id"]))  # links of one second come in any order
    text = json.dumps(answer, ensure_ascii=False, indent=1)
    for recorded, ours in ids.items():
        text = text.replace(recorded, ours)
    for pattern, likeness in LIKENESS:
        text = pattern.sub(likeness, text)
    return text


@pytest.mark.parametrize("story", ["links", "statuses", "feedback"])
def test_a_recorded_story_is_told_again_word_for_word(command: list[str], tmp_path: Path, story: str) -> None:
    """The recorded calls, made again in order, get the recorded answers: same keys, same order, same error texts."""
    folder = init(tmp_path)
    if (beginning := WIRE / f"{story}.start.jsonl").exists():
        shutil.copy(beginning, folder / "issues.jsonl")
    server = StdioServerParameters(command=command[0], args=command[1:], cwd=tmp_path, env={**ENV, "USER": "cli"})
    connection = Connection(server, timeout_s=40)
    ids: dict[str, str] = {}
    told, recorded = [], []
    try:
        for call in map(json.loads, (WIRE / f"{story}.jsonl").read_text().splitlines()):
            args = {name: ids.get(str(value), value) for name, value in call["args"].items()}
            result = connection.call(call["tool"], args)
            text = getattr(result.content[0], "text", "")  # all answers are texts
            answer: Any = text if result.is_error or call["is_error"] else json.loads(text)
            if call["tool"].startswith("upsert") and not result.is_error:
                ids.setdefault(call["answer"]["id"], answer["id"])
            told.append((call["label"], result.is_error, alike(answer, {})))
            recorded.append((call["label"], call["is_error"], alike(call["answer"], ids)))
    finally:
        connection.close()

    assert recorded == told


# -- reading -----------------------------------------------------------------------------------------------------------


def test_nothing_stands_in_the_way(tracker: McpTracker) -> None:
    """The start-up probe finds nothing to complain about, needs_review included."""
    assert [] == probe(tracker)


def test_ready_gives_the_lowest_priority_first_and_only_what_nobody_holds_up(tracker: McpTracker) -> None:
    """Priority 4 comes before 0; an issue that waits for an open one is not ready."""
    low, high, waiting = issue(tracker, priority=4), issue(tracker, priority=0), issue(tracker)
    tracker.link(from_id=high, to_id=waiting, type="blocks")

    mine = [issue_id for issue_id in ready_ids(tracker) if issue_id in (low, high, waiting)]

    assert [low, high] == mine


def test_a_list_is_cut_only_when_asked(tracker: McpTracker) -> None:
    """All issues come unless limited; searching looks at titles and contents."""
    in_title, in_content = issue(tracker, "needle-7"), issue(tracker, description="a needle-7 in the text")

    assert {in_title, in_content} == {row["id"] for row in tracker.list_issues(search="needle-7")}
    assert 1 == len(tracker.list_issues(search="needle-7", limit=1))
    assert [] == tracker.list_issues(search="needle-7", limit=0)
    assert [] == tracker.list_issues(search="needle-7", archived=True)


def test_an_issue_shows_the_feedback_it_gave_newest_first(tracker: McpTracker) -> None:
    """Feedback to oneself is shown, newest first, byte for byte; what others gave is not."""
    mine, other = issue(tracker), issue(tracker)
    contents = ['{"a": "\\u65e5", "b": "\\n\\"q\\""}', "- second", "third"]
    for content in contents:
        tracker.add_feedback(issue_id=mine, to_id=mine, content=content)
    tracker.add_feedback(issue_id=other, to_id=mine, content="from another")

    shown = tracker.show_issue(mine)["feedback"]

    assert contents[::-1] == [entry["content"] for entry in shown]
    assert {"orchestrator"} == {entry["agent"] for entry in shown}


# -- what a status or a link does to others ----------------------------------------------------------------------------


@pytest.mark.parametrize("relation", ["blocks", "depends-on"])
@pytest.mark.parametrize(
    ("waiting", "blocker", "expected"),
    [
        ("open", "open", "blocked"),
        ("in_progress", "in_progress", "blocked"),
        ("open", "needs_review", "blocked"),
        ("open", "closed", "open"),
        ("needs_review", "open", "needs_review"),
        ("closed", "open", "closed"),
    ],
)
def test_a_link_blocks_who_waits(tracker: McpTracker, relation: str, waiting: str, blocker: str, expected: str) -> None:
    """An open or started issue becomes blocked when it starts to wait for an issue that is not closed."""
    waits, holds = issue(tracker), issue(tracker)
    tracker.upsert_issue(issue_id=waits, status=waiting)
    tracker.upsert_issue(issue_id=holds, status=blocker)
    first, second = (holds, waits) if relation == "blocks" else (waits, holds)
    tracker.link(from_id=first, to_id=second, type=relation)

    assert expected == status(tracker, waits)


@pytest.mark.parametrize("relation", ["related", "references", "implements", "discovered-from"])
def test_other_links_block_nobody(tracker: McpTracker, relation: str) -> None:
    """Only blocks and depends-on make an issue wait."""
    one, two = issue(tracker), issue(tracker)
    tracker.link(from_id=one, to_id=two, type=relation)

    assert ("open", "open") == (status(tracker, one), status(tracker, two))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("open", "blocked"),
        ("in_progress", "blocked"),
        ("blocked", "blocked"),
        ("needs_review", "open"),
        ("closed", "open"),
    ],
)
def test_closing_a_blocker_opens_who_waits_for_no_other(tracker: McpTracker, other: str, expected: str) -> None:
    """With two blockers, closing one opens the issue unless the other is still at work; needs_review does not count."""
    first, second, waits = issue(tracker), issue(tracker), issue(tracker)
    for blocker in (first, second):
        tracker.link(from_id=blocker, to_id=waits, type="blocks")
    tracker.upsert_issue(issue_id=second, status=other)
    tracker.upsert_issue(issue_id=first, status="closed")

    assert expected == status(tracker, waits)
    assert (expected == "open") == (waits in ready_ids(tracker))


def test_a_blocker_in_review_keeps_the_status_but_holds_up_nobody(tracker: McpTracker) -> None:
    """B stays blocked while A is in review; set to open by hand it is ready. After A closes B is open by itself."""
    a, b = issue(tracker), issue(tracker)
    tracker.link(from_id=a, to_id=b, type="blocks")
    tracker.upsert_issue(issue_id=a, status="needs_review")

    assert "blocked" == status(tracker, b)

    tracker.upsert_issue(issue_id=b, status="open")

    assert b in ready_ids(tracker)

    tracker.upsert_issue(issue_id=b, status="blocked")
    tracker.upsert_issue(issue_id=a, status="closed")

    assert "open" == status(tracker, b)


# -- saying no ---------------------------------------------------------------------------------------------------------


def test_the_tracker_says_no_in_words(tracker: McpTracker) -> None:
    """Unknown issues, statuses and links are refused, and the error says what was wrong."""
    known = issue(tracker)
    with pytest.raises(TrackerRefused, match="Issue not found: i-zzzz"):
        tracker.show_issue("i-zzzz")
    with pytest.raises(TrackerRefused, match="Invalid status: done"):
        tracker.upsert_issue(issue_id=known, status="done")
    with pytest.raises(TrackerRefused, match="Entity not found: i-zzzz"):
        tracker.link(from_id=known, to_id="i-zzzz", type="blocks")
    with pytest.raises(TrackerRefused, match="CHECK constraint failed: length"):
        tracker.upsert_issue(title="t" * 501)


def test_the_longest_string_passes_and_one_byte_more_is_not_even_sent(tracker: McpTracker) -> None:
    """131,071 UTF-8 bytes are stored whole; one more is refused with the argument's name and size."""
    known = issue(tracker)
    longest = "é" * (MAX_STRING_BYTES // 2) + "x"
    tracker.add_feedback(issue_id=known, to_id=known, content=longest)

    assert longest == tracker.show_issue(known)["feedback"][0]["content"]

    with pytest.raises(TrackerRefused, match="add_feedback: content is 131072 bytes long"):
        tracker.add_feedback(issue_id=known, to_id=known, content=longest + "x")


def test_without_a_sudocode_folder_every_call_is_refused_until_there_is_one(
    start: Callable[..., McpTracker], tmp_path: Path
) -> None:
    """The refusal says what to run and where; once that was done the same tracker answers."""
    tracker = start()

    [problem] = probe(tracker)

    assert f"there is no tracker in {tmp_path}: run `orch init` there" in problem
    assert [] == list(tmp_path.iterdir())

    (tmp_path / ".sudocode").mkdir()

    assert "open" == status(tracker, issue(tracker))


# -- processes ---------------------------------------------------------------------------------------------------------


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # reaped between the two questions
        return False


def servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if alive(child)]


def test_a_server_that_died_is_started_again(start: Callable[..., McpTracker], tmp_path: Path) -> None:
    """The next call finds a new server; what was answered before is there."""
    init(tmp_path)
    before = servers()
    tracker = start()
    known = issue(tracker)
    [server] = [child for child in servers() if child not in before]
    server.kill()
    wait_until(lambda: not alive(server), "the server is dead")

    assert "open" == status(tracker, known)


def test_a_server_killed_while_it_writes_leaves_a_whole_tracker(
    start: Callable[..., McpTracker], tmp_path: Path
) -> None:
    """kill -9 at any moment: what was answered is there, and the next write makes database and JSONL file agree."""
    path = init(tmp_path) / "issues.jsonl"
    before = servers()
    tracker = start()
    answered: list[str] = []
    failed: list[TransientMCPError] = []
    for delay in (0.02, 0.05):
        answered.append(issue(tracker))
        [server] = [child for child in servers() if child not in before]
        killer = threading.Timer(delay, server.kill)
        killer.start()
        while server in servers():
            try:
                answered.append(issue(tracker))
            except TransientMCPError as error:
                failed.append(error)
        killer.join()

    issue(tracker, "The last")
    rows = {row["id"] for row in tracker.list_issues()}

    assert set(answered) <= rows
    assert all(error.maybe_applied for error in failed)
    assert rows == {json.loads(line)["id"] for line in path.read_text().splitlines()}


def test_a_fresh_clone_reads_its_jsonl(start: Callable[..., McpTracker], tmp_path: Path) -> None:
    """Issues, links, tags and feedback come back from the JSONL file alone."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    for root in (origin, clone):
        init(root)
    first = start(origin)
    one, two = issue(first, "日本 one", description="text\u2028more", tags=["b", "a"]), issue(first, "Two")
    first.link(from_id=one, to_id=two, type="blocks")
    for content in ("1", "2", "3"):
        first.add_feedback(issue_id=one, to_id=one, content=content)
    shutil.copy(origin / ".sudocode" / "issues.jsonl", clone / ".sudocode")
    second = start(clone)

    def known(tracker: McpTracker, issue_id: str) -> str:
        text = json.dumps(tracker.show_issue(issue_id), ensure_ascii=False)
        return re.sub(r'("metadata": null|"created_at": "\d+-\d+-\d+ \d+:\d+:\d+", "metadata")', "", text)

    assert [known(first, one), known(first, two)] == [known(second, one), known(second, two)]


WRITER = """
import os, sys
from pathlib import Path
from orchestrator.adapters.mcp import McpTracker
root, lock, name, shared, *command = sys.argv[1:]
env = {"PYTHONPATH": os.environ["PYTHONPATH"]}
with McpTracker(command, cwd=Path(root), env=env, lock_path=Path(lock) if lock else None) as tracker:
    for number in range(10):
        made = tracker.upsert_issue(title=f"{name} {number}")["id"]
        tracker.add_feedback(issue_id=shared, to_id=shared, content=f"{name} {number}")
"""


def test_four_writers_lose_nothing(start: Callable[..., McpTracker], command: list[str], tmp_path: Path) -> None:
    """Four processes with a server each make 20 calls each: all of it is there, and the JSONL file says the same.

    The file is whole whenever it is read, and never goes backwards. The real server needs our lock for that; the
    bundled one is left to itself here.
    """
    path = init(tmp_path) / "issues.jsonl"
    lock = str(tmp_path / "lock") if command == [REAL] else ""
    tracker = start(lock_path=Path(lock) if lock else None)
    shared = issue(tracker, "Shared")
    names = ["north", "east", "south", "west"]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), lock, name, shared, *command], env=os.environ | ENV
        )
        for name in names
    ]
    seen: list[int] = []

    def finished() -> bool:
        done = all(writer.poll() is not None for writer in writers)
        seen.append(len([json.loads(line) for line in path.read_text().splitlines()]))
        return done

    wait_until(finished, "all writers have finished", timeout=60)
    codes = [writer.returncode for writer in writers]
    expected = {f"{name} {number}" for name in names for number in range(10)}
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert [0, 0, 0, 0] == codes
    assert sorted(seen) == seen
    assert expected | {"Shared"} == {row["title"] for row in tracker.list_issues()} == {line["title"] for line in lines}
    for feedback in (
        tracker.show_issue(shared)["feedback"],
        next(line["feedback"] for line in lines if line["id"] == shared),
    ):
        assert (40, expected) == (len(feedback), {entry["content"] for entry in feedback})


def in_a_child(tracker: McpTracker, issue_id: str, answers: Any) -> None:
    answers.put((tracker.show_issue(issue_id)["title"], len(servers())))
    tracker.close()


def test_a_forked_child_starts_its_own_server(start: Callable[..., McpTracker], tmp_path: Path) -> None:
    """A tracker used before a fork works in parent and child, each with its own server."""
    init(tmp_path)
    tracker = start()
    known = issue(tracker, "Known before the fork")
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=in_a_child, args=(tracker, known, answers))
    child.start()
    answer = answers.get(timeout=30)
    child.join(timeout=30)

    assert ("Known before the fork", 1) == answer
    assert 0 == child.exitcode
    assert "Known before the fork" == tracker.show_issue(known)["title"]


def test_closing_leaves_no_process(start: Callable[..., McpTracker], tmp_path: Path) -> None:
    """After close the server is gone; the next call would start another."""
    init(tmp_path)
    before = servers()
    tracker = start()
    known = issue(tracker)
    tracker.close()

    assert before == servers()
    assert "open" == status(tracker, known)
