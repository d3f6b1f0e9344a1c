"""pytest-celery's containers without an engine: each is a process of this machine, with a container's manners."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL

import psutil
from pytest_celery import CeleryWorkerContainer, RedisContainer

from orchestrator.adapters.process import marked, shim
from orchestrator.adapters.redis import server as redis_server
from tests.docker.nodes import REDIS_OPTIONS, worker_command
from tests.support import wait_until


class Process:
    """What pytest-celery asks of a container, of a process; it is killed with all that it started, as in a container.

    Its attributes' names keep out of the way of a container's.
    """

    ready_prompt: str  # the container's, by multiple inheritance

    def __init__(self, argv: Sequence[str], folder: Path, env: Mapping[str, str], name: str) -> None:
        self._argv, self._folder, self._environ, self._name = argv, folder, env, name
        self._log = folder / f"{name}.log"
        self._start()

    @property
    def id(self) -> str:
        return self._name

    name = id

    @property
    def status(self) -> str:
        return "running" if self._process.poll() is None else "exited"

    def logs(self) -> str:
        return self._log.read_text(errors="replace")

    def reload(self) -> None:
        """What is known of a process is always new."""

    def ready(self) -> bool:
        wait_until(lambda: self.ready_prompt in self.logs() or self.status == "exited", f"{self._name} ready", 60)
        return self.status == "running"

    def kill(self, signal: str | int = "SIGKILL") -> None:
        family = psutil.Process(self._process.pid).children(recursive=True)
        shim.kill_below(self._process.pid)
        os.killpg(self._process.pid, SIGKILL)
        self._process.wait()
        wait_until(lambda: all(marked.stat(child.pid)[0] in "XZ" for child in family), f"{self._name}'s children gone")

    def restart(self, timeout: int = 30) -> None:
        self._process.terminate()
        self._process.wait(timeout)
        self._start()

    def teardown(self) -> None:
        if self.status == "running":
            self.kill()

    def _start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._argv,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class RedisProcess(Process, RedisContainer):
    """A Redis on a port of its own, with its data in the folder."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        argv = [str(redis_server.find_server()), "--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(folder)]
        super().__init__([*argv, *REDIS_OPTIONS], folder, os.environ, f"redis-{self._port}")

    @property
    def hostname(self) -> str:
        return "127.0.0.1"

    @property
    def url(self) -> str:
        return self.host_url

    @property
    def port(self) -> int:
        return self._port


class WorkerProcess(Process, CeleryWorkerContainer):
    """A worker of this Python."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        name = uuid.uuid4().hex[:12]
        super().__init__([word.replace("%h", name) for word in worker_command()], folder, env, name)


def start(folder: Path, env: Mapping[str, str], cleanup: ExitStack) -> tuple[RedisProcess, WorkerProcess]:
    """A Redis, and a worker on it; `cleanup` ends them."""
    broker = RedisProcess(folder)
    cleanup.callback(broker.teardown)
    assert broker.ready()
    worker = WorkerProcess(folder, {**env, "ORCH_REDIS_URL": broker.url})
    cleanup.callback(worker.teardown)
    return broker, worker


def free_port() -> int:
    """A port of the loopback address that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
