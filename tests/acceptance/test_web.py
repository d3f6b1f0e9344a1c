"""`orch web`: the webhook as its user runs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
import redis

from orchestrator.adapters.redis import server as redis_server
from orchestrator.web.webhook import PATH
from tests.github_server import GitHubServer
from tests.orch import Orch

SECRET = "It's a Secret to Everybody"


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    orch = Orch(tmp_path)
    (orch.repo / "orch.toml").write_text('project = "shop"\n')
    return orch


@contextmanager
def served(orch: Orch, **env: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Where it listens, while it does."""
    with orch.start("web", "--port", "0", cwd=None, **env) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("listening on ").strip(), process
        finally:
            process.kill()


def test_a_merge_is_looked_for_at_once(orch: Orch) -> None:
    """A delivery puts one poll into the queue of merges; more that come before it runs add none."""
    redis_here = redis_server.ensure(orch.state)
    try:
        with GitHubServer() as github, served(orch, ORCH_GITHUB_WEBHOOK_SECRET=SECRET) as (home, _):
            github.merge(github.open("orch/i-a1b2", body="Sudocode-Issue: i-a1b2"))
            said = [
                github.send_webhook(home + PATH, "pull_request", github.closed_event(1), secret=SECRET).status_code
                for _ in range(3)
            ]

        with redis.Redis.from_url(redis_here.url, decode_responses=True) as client:
            [message] = client.lrange("orch:{shop}:celery:merge_close", 0, -1)
        assert [202, 202, 202] == said
        assert "tasks.merge_close.merge_close" in message
    finally:
        redis_here.stop()


def test_without_redis_the_delivery_fails(orch: Orch) -> None:
    """GitHub shows it as failed, so that it can be sent again; whoever watches is told why, and the process stays."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        with (
            GitHubServer() as github,
            served(orch, ORCH_GITHUB_WEBHOOK_SECRET=SECRET, ORCH_REDIS_URL=away) as (home, process),
        ):
            github.merge(github.open("orch/i-a1b2"))
            said = github.send_webhook(home + PATH, "pull_request", github.closed_event(1), secret=SECRET)

            ready, metrics = httpx2.get(f"{home}/readyz", timeout=30), httpx2.get(f"{home}/metrics", timeout=30)

            assert (503, "not taken, please send it again") == (said.status_code, said.text)
            assert (503, 200) == (ready.status_code, metrics.status_code)
            assert "orch_redis_up 0.0" in metrics.text.splitlines()
            assert process.poll() is None


def test_a_missing_secret_is_told(orch: Orch) -> None:
    """To whoever starts it, and to GitHub; Ctrl-C ends it as if all were well, because it is."""
    with served(orch) as (home, process):
        said = httpx2.post(home + PATH, content=b"{}")
        healthy = httpx2.get(f"{home}/healthz").text
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert (503, "ok\n", 0) == (said.status_code, healthy, process.returncode)
    assert said.text in err
    assert "ORCH_GITHUB_WEBHOOK_SECRET" in err
    assert "Traceback" not in err


def test_half_sent_requests_and_other_names(orch: Orch) -> None:
    """70 clients that never end their request hold up nobody; only names of this machine and of orch.toml lead here."""
    (orch.repo / "orch.toml").write_text('project = "shop"\n[web]\nhosts = ["orch.example.com"]\n')
    names = ("localhost", "127.0.0.1", socket.gethostname(), "orch.example.com", "evil.example")
    with served(orch) as (home, process), ExitStack() as held:
        address = ("127.0.0.1", int(home.rpartition(":")[2]))
        for _ in range(70):
            held.enter_context(socket.create_connection(address)).sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost")
        answers = [httpx2.get(f"{home}/healthz", headers={"Host": name}, timeout=5) for name in names]

        # Who holds on holds up no stop, either.
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=20)

    assert [200, 200, 200, 200, 400] == [answer.status_code for answer in answers]
    assert answers[-1].text == (
        "evil.example is not a name of this server; if it should be, add it to `hosts` in [web] of orch.toml,"
        ' e.g. hosts = ["orch.example.com"]\n'
    )


def test_a_port_that_is_taken_is_one_line(orch: Orch) -> None:
    """With what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = orch("web", "--port", str(port))

    said = f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; give another --host or --port\n"
    assert (1, "", said) == (done.returncode, done.stdout, done.stderr)
