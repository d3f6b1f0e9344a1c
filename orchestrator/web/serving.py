"""The server of `orch web`: strangers may be slow, silent and many, and others are answered all the same.

A client has a time limit for the head of a request; the webhook, which alone reads a body, has one for that. A server
that is full closes the connection that has owed the rest of its request for longest.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HEAD_WITHIN_S = 10.0
"""For a whole head, from the connection or from the answer before it; what is left of that answer is read meanwhile."""

MOST_AT_ONCE = 128
"""Most connections at once: each may hold a body, and strangers must not fill the memory."""

_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
]
"""Nothing that is served is a page, whatever a browser makes of it."""


def server(app: ASGIApp) -> uvicorn.Server:
    """A server of this application, which waits for nobody for ever."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=_HEADERS,
        )
    )


class _Connection(H11Protocol):
    """A connection that is closed when its client is late, or makes room for another."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client its time, and close another connection if there are too many."""
        super().connection_made(transport)
        self._await_head()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._late.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; the clock runs until a head is whole."""
        super().data_received(data)
        self._stop_clock_if_answering()

    def on_response_complete(self) -> None:
        """Wait for the next head. A client that sent it already is answered at once."""
        self._await_head()
        super().on_response_complete()
        self._stop_clock_if_answering()

    def send_400_response(self, msg: str) -> None:
        """Say that it is no request, unless an answer is under way already: then nothing more can be said."""
        if self.cycle:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def _await_head(self) -> None:
        self._waits_since = self.loop.time()
        # Not closed but aborted: closing would wait until the client has read all that it was sent.
        self._late = self.loop.call_later(HEAD_WITHIN_S, self.transport.abort)

    def _stop_clock_if_answering(self) -> None:
        if self.cycle and not self.cycle.response_complete:
            self._late.cancel()

    @property
    def _owes(self) -> bool:
        """True while the client has to send something before it can be answered."""
        return not self.cycle or self.cycle.response_complete or self.cycle.more_body

    def _make_room(self) -> None:
        if len(self.connections) <= MOST_AT_ONCE:
            return
        ours = [there for there in self.connections if isinstance(there, _Connection)]
        slowest = min((there for there in ours if there._owes), key=lambda there: there._waits_since)
        self.connections.discard(slowest)  # at once: it must not count until its loss is told
        slowest.transport.abort()
