"""How `orch web` is served, over real sockets: the slow and the silent hold up nobody, other names get nothing."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from orchestrator.web import serving, webhook
from orchestrator.web.hosts import name_in
from orchestrator.web.serving import MOST_AT_ONCE
from tests.support import wait_until
from tests.watched import Served

SECRET = "It's a Secret to Everybody"
HALF = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_BODY = b"POST /webhooks/github HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx"
NOT_READ = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
LONG = 30_000_000
BEGUN, GO_ON = threading.Event(), threading.Event()


async def _long(_request: Request) -> Response:
    return PlainTextResponse(b"x" * LONG)


def _slow(_request: Request) -> Response:
    BEGUN.set()
    GO_ON.wait(30)
    return PlainTextResponse("at last\n")


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(
        webhook.route(secret=SECRET, taken=set(), hint=lambda: None),  # type: ignore[arg-type] # nothing gets so far
        Route("/long", _long),
        Route("/slow", _slow),
        names=["Orch.Example.com.", "*.inside.example"],
    ) as served:
        yield served


@contextmanager
def held(served: Served, sent: bytes, count: int = 1) -> Iterator[list[socket.socket]]:
    """Clients that send this, and no more."""
    with ExitStack() as all_of_them:
        clients = [
            all_of_them.enter_context(socket.create_connection(served.address, timeout=30)) for _ in range(count)
        ]
        for client in clients:
            try:
                client.sendall(sent)
            except (ConnectionResetError, BrokenPipeError):
                continue  # it made room for one that came later
        yield clients


def is_closed(client: socket.socket) -> bool:
    """True when the server has closed this connection, once all that it sent is read."""
    client.settimeout(0.01)
    try:
        return client.recv(1_000_000) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def asked_as(served: Served, host: str, path: str = "/healthz") -> httpx2.Response:
    # Without `verify` it takes a tenth of a second to read certificates that plain HTTP does not need.
    return httpx2.get(f"{served.home}{path}", headers={"Host": host}, timeout=5, verify=False)


def healthy(served: Served) -> bool:
    return asked_as(served, "localhost").text == "ok\n"


# Slow and silent


@pytest.mark.parametrize("count", [70, 500])
@pytest.mark.parametrize("sent", [b"", HALF, HALF_BODY], ids=["nothing", "half a head", "half a body"])
def test_clients_that_hold_on_hold_up_nobody(served: Served, sent: bytes, count: int) -> None:
    """A normal request is answered while they are there."""
    with held(served, sent, count):
        assert all(healthy(served) for _ in range(5))


def test_idle_clients_hold_up_nobody(served: Served) -> None:
    """Whoever was answered and stays makes room, too."""
    with held(served, WHOLE, 500) as clients:
        for client in clients:
            with suppress(ConnectionResetError):
                client.recv(1000)

        assert all(healthy(served) for _ in range(5))


def test_the_number_of_connections_is_bounded(served: Served) -> None:
    """Those that have owed the rest of their request for longest make room; the youngest stay."""
    with held(served, HALF, MOST_AT_ONCE + 50) as clients:
        wait_until(lambda: all(map(is_closed, clients[:50])), "the oldest are closed")

        assert not any(map(is_closed, clients[50:]))


def test_a_whole_request_makes_no_room(served: Served) -> None:
    """One that is being answered is let end, however many come meanwhile."""
    BEGUN.clear()
    GO_ON.clear()
    with held(served, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n") as [patient]:
        assert BEGUN.wait(30)
        with held(served, HALF, MOST_AT_ONCE) as clients:
            wait_until(lambda: is_closed(clients[0]), "the oldest that owes something is closed")
            GO_ON.set()

            assert patient.recv(1000).startswith(b"HTTP/1.1 200")


LATE: dict[str, bytes] = {
    "nothing": b"",
    "half a head": HALF,
    "an answer, and half a head": WHOLE + HALF,
    "a body that is not read": NOT_READ,
}


@pytest.mark.parametrize("sent", LATE.values(), ids=LATE.keys())
def test_who_is_late_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """A head has to be whole in time, the first as the next; and so does a body that nobody reads."""
    monkeypatch.setattr(serving, "HEAD_WITHIN_S", 0.2)
    with held(served, sent) as [client]:
        wait_until(lambda: is_closed(client), "the server closes it")


@pytest.mark.parametrize("sent", [HALF, NOT_READ], ids=["a head", "a body"])
def test_dripping_does_not_stop_the_clock(served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """The limit is for the whole, not for each byte."""
    monkeypatch.setattr(serving, "HEAD_WITHIN_S", 0.3)
    with held(served, sent) as [client]:

        def dripped() -> bool:
            try:
                client.sendall(b"x")
            except (ConnectionResetError, BrokenPipeError):
                return True
            return is_closed(client)

        wait_until(dripped, "the server closes it", timeout=10)


def test_who_does_not_read_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that nobody takes is not kept; what was taken is cut off."""
    monkeypatch.setattr(serving, "HEAD_WITHIN_S", 0.3)
    with held(served, b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n") as [client]:
        taken = len(client.recv(1))
        wait_until(lambda: not served.connections(), "the server lets go")
        with suppress(ConnectionResetError):
            taken += sum(map(len, iter(lambda: client.recv(1_000_000), b"")))

    assert taken < LONG


def test_requests_that_come_together_are_all_answered(served: Served) -> None:
    """One after the other, on one connection, which is then waited for again."""
    with held(served, WHOLE * 3) as [pipelined]:
        answers = b""
        while answers.count(b"ok\n") < 3:
            answers += pipelined.recv(1000)

        assert 3 == answers.count(b"HTTP/1.1 200")


def test_we_have_our_own_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is for what the client owes: an answer that takes long is given all the same."""
    monkeypatch.setattr(serving, "HEAD_WITHIN_S", 0.2)
    BEGUN.clear()
    GO_ON.clear()
    with held(served, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n") as [patient], held(served, HALF) as [late]:
        assert BEGUN.wait(30)
        wait_until(lambda: is_closed(late), "who is late is closed meanwhile")
        GO_ON.set()

        assert patient.recv(1000).startswith(b"HTTP/1.1 200")


BROKEN: dict[str, bytes] = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a flood of headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000,
    "an upgrade": WHOLE[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "nonsense after the answer": NOT_READ.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked") + b"zz\r\n",
    "nonsense within the body": HALF_BODY.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked") + b"zz\r\n",
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_request_harms_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    """It is answered or not, closed in any case, and leaves no traceback."""
    monkeypatch.setattr(serving, "HEAD_WITHIN_S", 0.3)
    with held(served, sent) as [client]:
        wait_until(lambda: is_closed(client), "the server closes it")

    assert healthy(served)
    assert [] == [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


# Names


OURS = [
    "localhost",
    "LOCALHOST:8080",
    "localhost.",
    "127.0.0.1:1",
    "[::1]:8080",
    "orch.example.com",
    "ORCH.example.com.:443",
    "a.inside.example",
    "a.b.inside.example:80",
]
OTHERS = [
    "evil.example",
    "localhost.evil.example",
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "notlocalhost",
    "orch.example.com.evil.example",
    "xorch.example.com",
    "inside.example",
    "xinside.example",
    "10.0.0.1",
    "[::2]",
    "localhost@evil.example",
    "localhost:evil",
    "localhost, evil.example",
    "*.inside.example",
    "*",
    "",
]


@pytest.mark.parametrize("host", OURS)
def test_our_names_are_answered(served: Served, host: str) -> None:
    """With any port: a proxy may have another; in any case of letters."""
    assert 200 == asked_as(served, host).status_code


@pytest.mark.parametrize("host", OTHERS)
@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/webhooks/github"])
def test_other_names_get_one_line(served: Served, host: str, path: str) -> None:
    """Whatever they ask for: what is wrong, and which setting allows it; the log has a line, too."""
    with capture_logs() as lines:
        answer = asked_as(served, host, path)

    assert 400 == answer.status_code
    assert 1 == answer.text.count("\n")
    assert "[web] of orch.toml" in answer.text
    assert ["host_refused"] == [line["event"] for line in lines]


def test_the_address_that_was_asked_is_ours() -> None:
    """Whoever listens everywhere is asked by any of the machine's addresses, but by that one alone."""
    with Served(host="127.0.0.2") as served:
        assert 200 == asked_as(served, "127.0.0.2").status_code
        assert 400 == asked_as(served, "127.0.0.3").status_code


@given(st.text())
def test_a_name_is_read_from_any_text(host: str) -> None:
    """It holds nothing but what names and addresses are made of, and reading it again changes nothing."""
    name = name_in(host)

    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_:")
    assert name_in(name) == name or ":" in name


def test_nothing_served_is_a_page(served: Served) -> None:
    """A browser is told to run and to show nothing of it, whichever answer it gets."""
    answers = [asked_as(served, host, path) for host in ("localhost", "evil.example") for path in ("/healthz", "/<b>")]

    assert {"default-src 'none'; frame-ancestors 'none'"} == {a.headers["content-security-policy"] for a in answers}
    assert {"nosniff"} == {a.headers["x-content-type-options"] for a in answers}
    assert {"text/plain; charset=utf-8"} == {a.headers["content-type"] for a in answers}
