"""`McpTracker` against servers that misbehave, and the meaning of every error text of the real one."""

from __future__ import annotations

import fcntl
import os
import pickle
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.adapters.mcp.tracker import McpTracker, failure, probe
from orchestrator.errors import InvalidMCPResponseError, TrackerRefused, TransientMCPError
from tests.support import wait_until

STUB = """
import os, sys, anyio, mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

async def list_tools(_, __):
    return types.ListToolsResult(tools=[])

async def call_tool(_, params):
    match sys.argv[1]:
        case "dies":
            print("out of cheese", file=sys.stderr, flush=True)
            os._exit(1)
        case "hangs":
            await anyio.sleep_forever()
        case "raises":
            raise ValueError("no")
    texts = {"silent": [], "talks twice": ["{}", "{}"]}.get(sys.argv[1], [sys.argv[1]])
    content = [types.TextContent(type="text", text=text) for text in texts]
    return types.CallToolResult(content=content, is_error=sys.argv[1].startswith("Error"))

async def main():
    server = Server("stub", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as streams:
        await server.run(*streams, server.create_initialization_options())

anyio.run(main)
"""

CLI = "Error: CLI command failed with exit code 1\n\nStderr:\n"


def stub(behaviour: str, cwd: Path, timeout_s: float = 20.0) -> McpTracker:
    return McpTracker([sys.executable, "-c", STUB, behaviour], cwd=cwd, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("text", "maybe_applied"),
    [
        (f"{CLI}✗ Failed to update issue\ndatabase is locked\n", False),
        ("Error: database is locked", False),
        ("Error: spawn EAGAIN", False),
        ("Error: spawn ENOMEM", False),
        (f"{CLI}✗ Failed to create feedback\nENOENT: no such file or directory, "
         "rename '/repo/.sudocode/issues.jsonl.tmp' -> '/repo/.sudocode/issues.jsonl'\n", True),
        ("Error: Command timed out after 30000ms", True),
        ('Error: Failed to parse JSON output: Unexpected token \'R\', "Running 5 "...', True),
    ],
)  # fmt: skip
def test_what_may_pass_is_transient_and_says_whether_it_may_have_been_done(text: str, maybe_applied: bool) -> None:
    """A retry is due; a look before it, where the first try may have been carried out."""
    error = failure("upsert_issue", text, Path("/repo"))

    assert isinstance(error, TransientMCPError)
    assert maybe_applied is error.maybe_applied
    assert maybe_applied is pickle.loads(pickle.dumps(error)).maybe_applied


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{CLI}✗ Issue not found: i-zzzz\n", "show_issue: Issue not found: i-zzzz"),
        (f"{CLI}✗ Invalid status: done\nValid statuses: open\n",
         "show_issue: Invalid status: done / Valid statuses: open"),
        (f"{CLI}✗ Failed to create issue\nConstraint violation: CHECK constraint failed: length(title) <= 500\n",
         "show_issue: Failed to create issue / Constraint violation: CHECK constraint failed: length(title) <= 500"),
        ("Error: spawn E2BIG", "show_issue: Error: spawn E2BIG"),
        ("Unknown tool: x", "show_issue: Unknown tool: x"),
        (f"{CLI}✗ Invalid status: database is locked\n", "show_issue: Invalid status: database is locked"),
    ],
)  # fmt: skip
def test_a_no_is_a_no_and_says_why(text: str, said: str) -> None:
    """Trying again cannot help, and a quoted argument is not mistaken for a reason to."""
    error = failure("show_issue", text, Path("/repo"))

    assert isinstance(error, TrackerRefused)
    assert said == str(error)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("not json", "show_issue: the answer is not JSON: 'not json'"),
        ("[1]", "show_issue: expected a dict, got '[1]'"),
        ("silent", "show_issue: expected one text block, got 0 blocks"),
        ("talks twice", "show_issue: expected one text block, got 2 blocks"),
        ("raises", "show_issue: the tracker broke the protocol: no"),
    ],
)
def test_an_answer_outside_the_contract_is_invalid(tmp_path: Path, behaviour: str, said: str) -> None:
    """The error quotes what came instead."""
    with stub(behaviour, tmp_path) as tracker, pytest.raises(InvalidMCPResponseError) as caught:
        tracker.show_issue("i-1")

    assert said == str(caught.value)


def test_a_server_that_dies_in_mid_call_leaves_the_matter_open(tmp_path: Path) -> None:
    """The call may have been carried out; the error carries the server's last words."""
    with stub("dies", tmp_path) as tracker, pytest.raises(TransientMCPError) as caught:
        tracker.show_issue("i-1")

    assert "show_issue: Connection closed (last words: out of cheese)" == str(caught.value)
    assert caught.value.maybe_applied


def test_a_call_without_an_answer_ends_in_time(tmp_path: Path) -> None:
    """After the timeout, in which the server must also have started, the matter is open, and the server is let go."""
    with stub("hangs", tmp_path, timeout_s=8.0) as tracker, pytest.raises(TransientMCPError) as caught:
        tracker.show_issue("i-1")

    assert "show_issue: the tracker did not answer in 8 s" == str(caught.value)
    assert caught.value.maybe_applied


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """It may start next time, and nothing was done."""
    tracker = McpTracker([sys.executable, "-c", "raise SystemExit('no disk left')"], cwd=tmp_path)
    with pytest.raises(TransientMCPError) as caught:
        tracker.ready()

    assert "the tracker's server did not start: Connection closed (last words: no disk left)" == str(caught.value)
    assert not caught.value.maybe_applied


def test_a_command_that_is_not_installed_is_reported_with_the_remedy(tmp_path: Path) -> None:
    """So is a directory that does not exist."""
    missing = McpTracker(["no-such-tracker"], cwd=tmp_path)
    nowhere = McpTracker([sys.executable], cwd=tmp_path / "nowhere")

    assert [
        "the tracker's command 'no-such-tracker' cannot be run (No such file or directory): "
        "install it (`npm install -g sudocode`) or use the bundled one (`python -m orchestrator.tracker`)"
    ] == probe(missing)
    assert [f"the tracker's directory {tmp_path / 'nowhere'} does not exist"] == probe(nowhere)


def test_a_tracker_that_does_not_know_needs_review_is_reported(tmp_path: Path) -> None:
    """The probe speaks of the version, not of a filter."""
    with stub(f"{CLI}✗ Invalid status filter: needs_review\n", tmp_path) as old:
        problems = probe(old)

    assert ["the tracker does not know the status needs_review: install sudocode 0.2.0 or newer"] == problems


def test_half_a_character_is_not_sent(tmp_path: Path) -> None:
    """A lone surrogate has no UTF-8 form: refused before a server is started, instead of breaking the connection."""
    tracker = McpTracker(["never started"], cwd=tmp_path)

    with pytest.raises(TrackerRefused, match="upsert_issue: title holds half a character"):
        tracker.upsert_issue(title="\ud83d")


def test_another_process_with_the_lock_is_waited_for_but_not_forever(tmp_path: Path) -> None:
    """No call is made without the lock; when it is free, the call goes through."""
    lock = tmp_path / "locks" / "tracker"
    lock.parent.mkdir()
    tracker = McpTracker([sys.executable, "-c", STUB, "{}"], cwd=tmp_path, lock_path=lock, timeout_s=20.0)
    impatient = McpTracker(["never started"], cwd=tmp_path, lock_path=lock, timeout_s=0.05)
    answers: list[object] = []
    caller = threading.Thread(target=lambda: answers.append(tracker.show_issue("i-1")))
    with tracker, lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        caller.start()
        with pytest.raises(TransientMCPError, match="another process has held") as caught:
            impatient.ready()

        assert not caught.value.maybe_applied
        assert [] == answers

        fcntl.flock(held, fcntl.LOCK_UN)
        wait_until(lambda: answers, "the call goes through")
        caller.join()

    assert [{}] == answers


def test_the_environment_names_us_and_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gets USER=orchestrator, what it was given, and nothing else that is ours."""
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    show = "import json, os, sys; print(json.dumps(dict(os.environ)), file=sys.stderr)"
    tracker = McpTracker([sys.executable, "-c", show], cwd=tmp_path, env={"GIVEN": "1"})
    with pytest.raises(TransientMCPError) as caught:
        tracker.ready()

    assert '"USER": "orchestrator"' in str(caught.value)
    assert '"GIVEN": "1"' in str(caught.value)
    assert f'"PATH": "{os.environ["PATH"]}"' in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_tracker_that_is_not_there_is_waited_for() -> None:
    """What is to be told is not thrown away because its folder is missing; the error says how to make one."""
    text = "⚠️  sudocode is not initialized in this directory.\n\nWorking directory: /repo\n"
    error = failure("show_issue", text, Path("/repo"))

    assert isinstance(error, TransientMCPError)
    assert not error.maybe_applied
    assert "there is no tracker in /repo: run `orch init` there" == str(error)
