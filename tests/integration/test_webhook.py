"""The webhook over a real socket: who is believed, what is taken, and how often."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.redis.controls import RedisWebhooks
from orchestrator.cli.web import listen
from orchestrator.errors import RedisUnavailable
from orchestrator.web import webhook
from orchestrator.web.app import make_app
from orchestrator.web.serving import server
from orchestrator.web.webhook import MAX_BODY
from tests.engine import Engine
from tests.github_server import SIGNATURE, GitHubServer, sign
from tests.support import wait_until

SECRET = "It's a Secret to Everybody"
ONE = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
TWO = "72d3162e-cc78-11e3-81ab-4c9367dc0959"


class Door:
    """The webhook being served, and what came of it."""

    def __init__(self, taken: Any, secret: str | None = SECRET) -> None:
        self.hints = 0
        self.broken = False
        self._socket = listen("127.0.0.1", 0)
        self.address: tuple[str, int] = self._socket.getsockname()
        self.home = f"http://127.0.0.1:{self.address[1]}"
        self.url = f"{self.home}/webhooks/github"
        app = make_app(webhook.route(secret=secret, taken=taken, hint=self._hint))
        self._server = server(app)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def _hint(self) -> None:
        if self.broken:
            raise RedisUnavailable("nobody is there")
        self.hints += 1

    def __enter__(self) -> Door:
        self._thread.start()
        wait_until(lambda: self._server.started, "it serves")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


class Remembered(set[str]):
    """Deliveries in this process."""

    seen = set.__contains__
    remember = set.add


@pytest.fixture
def door() -> Iterator[Door]:
    with Door(Remembered()) as door:
        yield door


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        server.merge(server.open("orch/i-a1b2", body="Sudocode-Issue: i-a1b2"))
        yield server


Send = Callable[..., httpx2.Response]


@pytest.fixture
def send(door: Door, github: GitHubServer) -> Send:
    """Sends that a pull request was closed, as GitHub does."""

    def post(event: str = "pull_request", payload: dict[str, Any] | None = None, **said: str) -> httpx2.Response:
        given = github.closed_event(1) if payload is None else payload
        return github.send_webhook(door.url, event, given, **{"secret": SECRET, **said})

    return post


def test_a_closed_pull_request_is_a_hint(door: Door, send: Send) -> None:
    """One, and the answer says that it was taken."""
    assert (202, 1) == (send().status_code, door.hints)


def test_a_delivery_counts_once(door: Door, send: Send) -> None:
    """However often it is sent; another one of the same content is another."""
    again = [send(delivery=ONE).status_code for _ in range(3)]
    another = send(delivery=TWO).status_code

    assert ([202, 204, 204], 202, 2) == (again, another, door.hints)


def test_what_is_no_closed_pull_request_is_no_hint(door: Door, send: Send) -> None:
    """Other events, other actions, and the ping by which GitHub tries a new webhook."""
    said = [
        send("push", {"ref": "refs/heads/main"}).status_code,
        send("pull_request", {"action": "opened"}).status_code,
        send("issues", {"action": "closed"}).status_code,
        send("ping", {"zen": "Keep it logically awesome."}).status_code,
    ]

    assert ([204, 204, 204, 200], 0) == (said, door.hints)


@pytest.mark.parametrize(
    "signature",
    ["", "sha256=", f"sha256={'0' * 64}", sign(b"other", SECRET), sign(b"", SECRET)[7:], "sha256=\u00e9"],
    ids=["missing", "empty", "zeros", "of another body", "without its kind", "not ASCII"],
)
def test_a_forged_delivery_is_refused_before_it_is_read(door: Door, signature: str) -> None:
    """401 even for what is no JSON, and one log line that holds nothing of its content."""
    headers = {"X-GitHub-Event": "pull_request", "X-GitHub-Delivery": ONE}
    if signature:
        headers[SIGNATURE] = signature

    with capture_logs() as lines:
        answer = httpx2.post(
            door.url, content=b"{not JSON", headers={k.encode(): v.encode("latin-1") for k, v in headers.items()}
        )

    assert (401, 0) == (answer.status_code, door.hints)
    refused = {"event": "webhook_refused", "log_level": "warning", "reason": "wrong signature", "client": "127.0.0.1"}
    assert [refused] == lines


def test_a_signature_by_another_secret_is_refused(door: Door, send: Send) -> None:
    """Whoever does not know ours is a stranger."""
    assert (401, 0) == (send(secret="guessed").status_code, door.hints)


@pytest.mark.parametrize("body", [b"payload=%7B%7D", b"[]", b"[" * 100_000, b'{"action": 1}', b"\xff", b""])
def test_a_body_that_is_no_event_is_refused(door: Door, body: bytes) -> None:
    """Well signed: somebody chose the wrong content type for the webhook, and is told."""
    headers = {"X-GitHub-Event": "pull_request", "X-GitHub-Delivery": ONE, SIGNATURE: sign(body, SECRET)}

    answer = httpx2.post(door.url, content=body, headers=headers)

    assert (400, 0) == (answer.status_code, door.hints)
    assert "application/json" in answer.text


@pytest.mark.parametrize("delivery", ["x" * 65, "a b", "a:b"])
def test_a_delivery_needs_an_id(door: Door, send: Send, delivery: str) -> None:
    """One that could be GitHub's: it becomes part of a key."""
    assert (400, 0) == (send(delivery=delivery).status_code, door.hints)


def test_a_failed_hint_can_be_sent_again(door: Door, send: Send) -> None:
    """GitHub shows it as failed; sent again under the same id it is taken."""
    door.broken = True
    failed = send(delivery=ONE).status_code
    door.broken = False
    again = send(delivery=ONE).status_code

    assert (503, 202, 1) == (failed, again, door.hints)


def test_without_a_secret_nobody_is_believed(github: GitHubServer) -> None:
    """Not even who signs with none; the answer says what to set."""
    with Door(Remembered(), secret=None) as door:
        answer = github.send_webhook(door.url, "pull_request", github.closed_event(1), secret="")

        assert (503, 0) == (answer.status_code, door.hints)
        assert "ORCH_GITHUB_WEBHOOK_SECRET" in answer.text


def test_health(door: Door) -> None:
    """Asked by whoever watches the process."""
    assert (200, "ok\n") == ((answer := httpx2.get(f"{door.home}/healthz")).status_code, answer.text)


def test_only_post_is_taken(door: Door) -> None:
    """A browser that comes by is told so."""
    assert 405 == httpx2.get(door.url).status_code


# Too long


@pytest.mark.parametrize(
    "length", [b"Content-Length: 5000000000", b"Transfer-Encoding: chunked"], ids=["said", "not said"]
)
def test_a_body_without_end_is_not_read(door: Door, length: bytes) -> None:
    """It is refused after a megabyte, and the connection is closed, whatever its length is said to be."""
    piece = b"x" * 65_536
    framed = b"10000\r\n" + piece + b"\r\n" if b"chunked" in length else piece
    with socket.create_connection(door.address, timeout=10) as sender:
        sender.sendall(b"POST /webhooks/github HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n\r\n")
        sent = 0
        try:
            while sent < 100 * MAX_BODY:
                sent += sender.send(framed)
        except (ConnectionResetError, BrokenPipeError):
            pass

        assert sent < 50 * MAX_BODY


def test_the_longest_body_is_taken(door: Door, send: Send) -> None:
    """One byte more is refused."""

    def padded(size: int) -> dict[str, Any]:
        event: dict[str, Any] = {"action": "closed", "body": ""}
        return event | {"body": "x" * (size - len(json.dumps(event)))}

    said = [send("pull_request", padded(size)).status_code for size in (MAX_BODY, MAX_BODY + 1)]

    assert ([202, 413], 1) == (said, door.hints)


@pytest.mark.parametrize("length", [b"10", b"1000"])
def test_a_length_that_is_a_lie_is_not_believed(door: Door, caplog: pytest.LogCaptureFixture, length: bytes) -> None:
    """Less than was signed is another body; more never comes, and who leaves without it harms nobody."""
    body = json.dumps({"action": "closed"}).encode()
    with closing(socket.create_connection(door.address, timeout=10)) as sender:
        sender.sendall(
            b"POST /webhooks/github HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n"
            b"X-GitHub-Event: pull_request\r\nX-GitHub-Delivery: " + ONE.encode() + b"\r\n"
            b"X-Hub-Signature-256: " + sign(body, SECRET).encode() + b"\r\n\r\n" + body
        )
        sender.shutdown(socket.SHUT_WR)
        answer = sender.recv(1000)

    assert 0 == door.hints
    assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 400")) or answer == b""
    assert 200 == httpx2.get(f"{door.home}/healthz").status_code
    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_body_that_drips_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who keeps a connection without ever ending loses it."""
    monkeypatch.setattr(webhook, "BODY_WITHIN_S", 0.2)
    with socket.create_connection(door.address, timeout=10) as sender:
        sender.sendall(b"POST /webhooks/github HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
        answer = b"".join(iter(lambda: sender.recv(1000), b""))

    assert answer.startswith(b"HTTP/1.1 408")


# In Redis


def test_deliveries_are_remembered_by_redis(engine: Engine, github: GitHubServer) -> None:
    """Another process knows them too, for as long as GitHub may send them again, and not for ever."""
    for expected in (202, 204):
        with Door(RedisWebhooks(engine.client, engine.keys)) as door:
            answer = github.send_webhook(door.url, "pull_request", github.closed_event(1), secret=SECRET, delivery=ONE)
            assert expected == answer.status_code

    days = engine.client.ttl(engine.keys("webhook", ONE)) / 86_400
    assert 3 < days <= 4


def test_it_answers_in_milliseconds(door: Door, github: GitHubServer, capsys: pytest.CaptureFixture[str]) -> None:
    """GitHub waits ten seconds; the median of 50 is far from it."""
    body = json.dumps(github.closed_event(1)).encode()
    took = []
    with httpx2.Client() as client:
        for number in range(50):
            headers = {
                "X-GitHub-Event": "pull_request",
                "X-GitHub-Delivery": f"{number}",
                SIGNATURE: sign(body, SECRET),
            }
            started = time.perf_counter()
            client.post(door.url, content=body, headers=headers)
            took.append(1000 * (time.perf_counter() - started))
    took.sort()

    with capsys.disabled():
        print(f"\nwebhook answered in p50 {took[24]:.1f} ms, p99 {took[49]:.1f} ms")
    assert 50 == door.hints
    assert took[24] < 30
