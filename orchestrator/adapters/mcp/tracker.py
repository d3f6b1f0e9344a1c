"""One long-lived MCP server of the tracker, called like a local object, and the meaning of its failures.

The tracker takes no two calls at once without harm (its copies to JSONL race), and what it answered is known only from
texts. So calls go one at a time per host, and every text is read here, once, into the two kinds of error that
callers tell apart.
"""

from __future__ import annotations

import json
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import mcp_types as types
from mcp import MCPError, StdioServerParameters
from pydantic import ValidationError

from orchestrator.adapters.mcp.connection import Connection
from orchestrator.adapters.process.lock import locked
from orchestrator.errors import InvalidMCPResponseError, LockTimeout, TrackerRefused, TransientMCPError
from orchestrator.models import IssueStatus
from orchestrator.text import redacted

MAX_STRING_BYTES = 131_071
"""The longest string the tracker takes, in UTF-8: it travels as one word of a command line."""

_GONE = (types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT)

# A failed result that may pass, by its text; anchored, because texts also quote what the caller sent.
_NOT_APPLIED = re.compile(r"^(Error: )?(database is locked|spawn (EAGAIN|ENOMEM)\b)", re.MULTILINE)
_MAYBE_APPLIED = re.compile(
    r"^(Error: )?(Command timed out after|Failed to parse JSON output|ENOENT: .* rename .*\.jsonl)", re.MULTILINE
)
_NOT_INITIALISED = re.compile(r"\W*sudocode is not initialized")
_CLI_PREFIX = "Error: CLI command failed with exit code 1\n\nStderr:\n"

Json = Any  # a tool's answer: validated by its caller


class McpTracker:
    """The tracker's tools as methods, over one server process that is started by the first call.

    For many threads at once. A server that died is started again by the next call, and a forked child starts its own.
    With `lock_path`, calls are serialised with every other process on this host that names the same file.

    Raises `TransientMCPError` (it may answer next time; see its `maybe_applied`), `TrackerRefused` (it said no) or
    `InvalidMCPResponseError` (that is not what this tool answers). A call takes at most `timeout_s` to get its turn
    and as long again to be answered.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        lock_path: Path | None = None,
        timeout_s: float = 40.0,
    ) -> None:
        self._cwd = cwd
        self._lock_path = lock_path
        self._timeout_s = timeout_s
        self._server = StdioServerParameters(
            command=command[0],
            args=list(command[1:]),
            env={**_locale(), "USER": "orchestrator", **(env or {})},
            cwd=cwd,
        )
        self._turn = threading.RLock()
        self._alone = False
        self._connection: Connection | None = None
        os.register_at_fork(after_in_child=partial(_forget_after_fork, weakref.ref(self)))

    def alone(self) -> AbstractContextManager[None]:
        """Let nobody else on this host have a call meanwhile, so that no poll sees what is half made.

        It undoes nothing: who dies meanwhile leaves what was made so far.
        """
        return self._my_turn("a group of calls")

    def ready(self) -> Json:
        """`{"ready": {"issues": [...]}, "status": {...}}`, lowest priority first."""
        return self._call("ready", {}, dict)

    def show_issue(self, issue_id: str) -> Json:
        """One issue with content, relationships, tags and the feedback it gave, newest first."""
        return self._call("show_issue", {"issue_id": issue_id}, dict)

    def list_issues(
        self,
        *,
        status: str | None = None,
        limit: int = -1,
        archived: bool | None = None,
        search: str | None = None,
    ) -> Json:
        """A list of issues without their content; all of them unless limited."""
        return self._call(
            "list_issues", {"status": status, "limit": limit, "archived": archived, "search": search}, list
        )

    def upsert_issue(
        self,
        *,
        issue_id: str | None = None,
        title: str | None = None,
        description: str | None = None,
        status: str | None = None,
        priority: int | None = None,
        tags: Sequence[str] | None = None,
    ) -> Json:
        """Change an issue, or create one when no id is given (twice makes two). Sends only what is given."""
        return self._call(
            "upsert_issue",
            {
                "issue_id": issue_id,
                "title": title,
                "description": description,
                "status": status,
                "priority": priority,
                "tags": None if tags is None else list(tags),
            },
            dict,
        )

    def add_feedback(self, *, issue_id: str, to_id: str, content: str) -> Json:
        """One more feedback entry from an issue to an issue (itself, to be shown with it). Twice makes two."""
        return self._call("add_feedback", {"issue_id": issue_id, "to_id": to_id, "content": content}, dict)

    def link(self, *, from_id: str, to_id: str, type: str) -> Json:
        """Link two issues; a second time changes nothing."""
        return self._call("link", {"from_id": from_id, "to_id": to_id, "type": type}, dict)

    def close(self) -> None:
        """Stop the server, if it runs; the next call would start it again."""
        with self._turn:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, tool: str, arguments: Mapping[str, object], shape: type) -> Json:
        given: dict[str, object] = {name: value for name, value in arguments.items() if value is not None}
        _refuse_unfit_strings(tool, given)
        with self._my_turn(tool):
            connection = self._connected()
            try:
                result = connection.call(tool, given)
            except MCPError as error:
                if error.code not in _GONE:
                    raise InvalidMCPResponseError(f"{tool}: the tracker broke the protocol: {error}") from error
                self._stop()
                raise TransientMCPError(f"{tool}: {error}{connection.last_words()}") from error
            except ValidationError as error:
                raise InvalidMCPResponseError(f"{tool}: the tracker's result is malformed: {error}") from error
            except TimeoutError as error:
                self._stop()
                raise TransientMCPError(f"{tool}: the tracker did not answer in {self._timeout_s:g} s") from error
            except BaseException:
                # Cut off in mid-call (a time limit, Ctrl-C): what is still under way must not meet the next call.
                self._stop()
                raise
        return _parsed(tool, result, shape, self._cwd)

    @contextmanager
    def _my_turn(self, tool: str) -> Iterator[None]:
        """One call at a time: in this process by a lock, on this host by a lock file."""
        if not self._turn.acquire(timeout=self._timeout_s):
            raise TransientMCPError(f"{tool}: no turn in {self._timeout_s:g} s; other calls hang", maybe_applied=False)
        try:
            if self._lock_path is None or self._alone:
                yield
            else:
                with self._host_lock(self._lock_path):
                    yield
        finally:
            self._turn.release()

    @contextmanager
    def _host_lock(self, path: Path) -> Iterator[None]:
        with ExitStack() as held:
            try:
                held.enter_context(locked(path, wait_s=self._timeout_s))
            except LockTimeout as busy:
                raise TransientMCPError(str(busy), maybe_applied=False) from busy
            self._alone = True
            held.callback(setattr, self, "_alone", False)
            yield

    def _connected(self) -> Connection:
        """A connection that just answered a ping, so that a call which then fails has most likely been taken up."""
        if self._connection is not None and not self._connection.alive():
            self._stop()
        if self._connection is None:
            self._connection = Connection(self._server, self._timeout_s)
        return self._connection

    def _forget(self) -> None:
        """In a forked child: the server is the parent's, and the thread that spoke with it is not here."""
        self._connection = None
        self._turn, self._alone = threading.RLock(), False

    def _stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def probe(tracker: McpTracker) -> list[str]:
    """The problem with this tracker, in plain words; empty when there is none. Changes nothing."""
    try:
        tracker.list_issues(status=IssueStatus.NEEDS_REVIEW, limit=1)
    except TrackerRefused as refusal:
        if "Invalid status" in str(refusal):
            return [f"the tracker does not know the status {IssueStatus.NEEDS_REVIEW}: install sudocode 0.2.0 or newer"]
        return [str(refusal)]
    except (TransientMCPError, InvalidMCPResponseError) as error:
        return [str(error)]
    return []


def _forget_after_fork(reference: weakref.ref[McpTracker]) -> None:
    tracker = reference()
    if tracker is not None:
        tracker._forget()


def _locale() -> dict[str, str]:
    names = ("LANG", "LC_ALL", "LC_CTYPE", "TMPDIR")
    return {name: os.environ[name] for name in names if name in os.environ}


def _refuse_unfit_strings(tool: str, arguments: Mapping[str, object]) -> None:
    for name, value in arguments.items():
        words = ",".join(value) if isinstance(value, list) else value
        try:
            size = len(words.encode()) if isinstance(words, str) else 0
        except UnicodeEncodeError as error:
            raise TrackerRefused(f"{tool}: {name} holds half a character: {error}") from error
        if size > MAX_STRING_BYTES:
            raise TrackerRefused(f"{tool}: {name} is {size} bytes long; the tracker takes {MAX_STRING_BYTES}")


def _parsed(tool: str, result: types.CallToolResult, shape: type, cwd: Path) -> Json:
    texts = [block.text for block in result.content if isinstance(block, types.TextContent)]
    if result.is_error:
        raise failure(tool, "\n".join(texts), cwd)
    if len(texts) != 1 or len(result.content) != 1:
        raise InvalidMCPResponseError(f"{tool}: expected one text block, got {len(result.content)} blocks")
    try:
        answer = json.loads(texts[0])
    except ValueError as error:
        raise InvalidMCPResponseError(f"{tool}: the answer is not JSON: {redacted(texts[0])[:200]!r}") from error
    if not isinstance(answer, shape):
        raise InvalidMCPResponseError(f"{tool}: expected a {shape.__name__}, got {redacted(texts[0])[:200]!r}")
    return answer


def failure(tool: str, text: str, cwd: Path) -> Exception:
    """The error that a failed result stands for."""
    if _NOT_INITIALISED.match(text):
        # Not a no: what is to be told waits until the folder is there again.
        return TransientMCPError(f"there is no tracker in {cwd}: run `orch init` there", maybe_applied=False)
    told = redacted(text).removeprefix(_CLI_PREFIX).removeprefix("✗ ")
    said = " / ".join(line for line in told.splitlines() if line.strip())[:500]
    if _NOT_APPLIED.search(text):
        return TransientMCPError(f"{tool}: {said}", maybe_applied=False)
    if _MAYBE_APPLIED.search(text):
        return TransientMCPError(f"{tool}: {said}", maybe_applied=True)
    return TrackerRefused(f"{tool}: {said}")
