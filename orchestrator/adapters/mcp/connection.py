"""A running MCP server over stdio, called from ordinary threads: started, pinged, listened to, stopped."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO, TypeVar

import anyio
import mcp_types as types
from anyio.from_thread import BlockingPortal
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client

from orchestrator.errors import TrackerRefused, TransientMCPError

_PING_S = 5.0  # a ping costs less than a millisecond, even while other calls run
_STOP_S = 10.0  # the SDK gives a server 2 s to leave, 2 s after SIGTERM and 2 s after SIGKILL

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class Connection:
    """A running server, and the thread with the event loop that speaks with it.

    Leaving without `close` is harmless: the thread is a daemon, and the server leaves when its stdin closes. So is a
    fork: all that holds the server open lives on that thread's stack, where a child's garbage collector does not look.

    Raises `TrackerRefused` when the server cannot be started here, `TransientMCPError` when it did not start this time.
    """

    def __init__(self, server: StdioServerParameters, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._words: deque[str] = deque(maxlen=5)
        started: Future[tuple[BlockingPortal, anyio.CancelScope]] = Future()
        opened: Future[ClientSession] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(server, started, opened), name="tracker-connection", daemon=True
        )
        self._thread.start()
        self._portal, self._life = started.result()
        try:
            self._session = opened.result()
        except (OSError, RuntimeError, MCPError, ExceptionGroup) as error:
            raise _start_failure(error, server, self.last_words()) from error
        except BaseException:
            self.close()
            raise

    def call(self, tool: str, arguments: dict[str, object]) -> types.CallToolResult:
        """Raises `MCPError` or `TimeoutError`."""
        return self._portal.call(self._bounded, partial(self._session.call_tool, tool, arguments), self._timeout_s)

    def alive(self) -> bool:
        """True when the server answers a ping. One that hangs is as good as dead."""
        try:
            self._portal.call(self._bounded, self._session.send_ping, _PING_S)
        except (MCPError, TimeoutError, RuntimeError, CancelledError):  # the last two: the event loop is gone
            return False
        return True

    def last_words(self) -> str:
        """The end of what the server wrote to stderr, for an error message."""
        return f" (last words: {' | '.join(self._words)})" if self._words else ""

    def close(self) -> None:
        """Close the server's stdin, wait briefly for it to leave, then kill it and what it started."""
        self._portal.start_task_soon(self._life.cancel)
        self._thread.join(timeout=_STOP_S)
        if self._thread.is_alive():
            logger.warning("the tracker's server has not stopped after %s s", _STOP_S)

    async def _bounded(self, request: Callable[[], Awaitable[Answer]], timeout_s: float) -> Answer:
        with anyio.fail_after(timeout_s):
            return await request()

    def _run(
        self,
        server: StdioServerParameters,
        started: Future[tuple[BlockingPortal, anyio.CancelScope]],
        opened: Future[ClientSession],
    ) -> None:
        """The life of the thread."""

        async def live() -> None:
            async with BlockingPortal() as portal:
                with anyio.CancelScope() as life:
                    started.set_result((portal, life))
                    async with _session(server, self._words, self._timeout_s) as session:
                        opened.set_result(session)
                        await anyio.sleep_forever()

        try:
            anyio.run(live)
        except Exception as error:
            if opened.done():
                logger.warning("the tracker's server did not stop cleanly", exc_info=True)
            else:
                opened.set_exception(error)


@asynccontextmanager
async def _session(
    server: StdioServerParameters, last_words: deque[str], timeout_s: float
) -> AsyncIterator[ClientSession]:
    with _to_log(last_words) as stderr:
        async with stdio_client(server, errlog=stderr) as streams, ClientSession(*streams) as session:
            with anyio.fail_after(timeout_s):
                await session.initialize()
                await (
                    session.list_tools()
                )  # else the SDK asks within our first call, and its failure would look like ours
            yield session


@contextmanager
def _to_log(last_words: deque[str]) -> Iterator[TextIO]:
    """A stderr for the server: its lines go to our log, the last few are kept."""
    reading, writing = os.pipe()

    def pump() -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in map(str.strip, lines):
                if line:
                    last_words.append(line)
                    logger.info("the tracker's server says: %s", line)

    thread = threading.Thread(target=pump, name="tracker-stderr", daemon=True)
    thread.start()
    try:
        with os.fdopen(writing, "w", encoding="utf-8") as stderr:
            yield stderr
    finally:
        thread.join(timeout=0.5)  # bounded: a forked child may hold the pipe open


def _start_failure(error: Exception, server: StdioServerParameters, last_words: str) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    match error:
        case FileNotFoundError() | PermissionError() | NotADirectoryError() if not Path(server.cwd or ".").is_dir():
            return TrackerRefused(f"the tracker's directory {server.cwd} does not exist")
        case FileNotFoundError() | PermissionError() | NotADirectoryError():
            return TrackerRefused(
                f"the tracker's command {server.command!r} cannot be run ({error.strerror}): "
                "install it (`npm install -g sudocode`) or use the bundled one (`python -m orchestrator.tracker`)"
            )
        case TimeoutError():
            return TransientMCPError(f"the tracker's server did not start in time{last_words}", maybe_applied=False)
        case _:
            return TransientMCPError(f"the tracker's server did not start: {error}{last_words}", maybe_applied=False)
