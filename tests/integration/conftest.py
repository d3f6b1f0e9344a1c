"""A private Redis for all integration tests, and for each test a project of its own in it."""

from __future__ import annotations

import os
import signal
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from orchestrator.adapters.redis import server as redis_server
from tests.engine import Engine
from tests.support import wait_until

Fork = Callable[[Callable[[], object]], int]
"""Runs a function in a fork of this process; gives its id."""


class OwnRedis:
    """A Redis for one test, to be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = redis_server.ensure(folder)
        self.url = self._server.url

    def kill(self) -> None:
        """As kill -9 does, once what was written is in its file: on a busy disk that may come after the answer."""
        assert self._server.process is not None
        with redis.Redis.from_url(self.url) as client:
            wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0, "all should be in its file")
        self._server.process.kill()
        self._server.process.wait()

    def shut_down(self) -> None:
        """As the command SHUTDOWN does."""
        with suppress(redis.ConnectionError):  # its answer
            redis.Redis.from_url(self.url).shutdown()
        assert self._server.process is not None
        self._server.process.wait()

    def start(self) -> None:
        """Again, on what the last one wrote down."""
        self._server = redis_server.ensure(self._folder)

    def freeze(self) -> None:
        """It answers nobody any more."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        assert self._server.process is not None
        self._server.process.send_signal(number)

    def stop(self) -> None:
        """For good, in whatever state a test left it."""
        self.thaw()
        self._server.stop()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One Redis for all tests; its folder is gone with it."""
    # Short, so that the socket fits beside the data.
    with tempfile.TemporaryDirectory(prefix="orch-") as folder:
        server = redis_server.ensure(Path(folder))
        yield server.url
        server.stop()


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    """A Redis that the test may kill."""
    with tempfile.TemporaryDirectory(prefix="orch-") as folder:
        server = OwnRedis(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def engine(redis_url: str) -> Iterator[Engine]:
    """A fresh project with four slots. Every key of it is gone afterwards, and there was no other."""
    engine = Engine(redis_url, f"test-{uuid.uuid4().hex[:8]}")
    engine.slots(4)
    yield engine
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        strangers = [key for key in client.scan_iter() if not key.startswith(engine.keys(""))]
        client.flushdb()
    assert [] == strangers


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Runs a function in a fork of this process and gives its id. All forks are gone afterwards."""
    children: list[int] = []

    def forked(body: Callable[[], object]) -> int:
        child = os.fork()
        if child == 0:
            try:
                body()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        children.append(child)
        return child

    yield forked
    for child in children:
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
