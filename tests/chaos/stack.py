"""A whole stack of real processes, one by one, so that each can be broken by itself; a supervisor starts it again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.adapters.process import shim
from orchestrator.adapters.process.bound import bound_argv
from orchestrator.adapters.redis import server as redis_server
from tests.acceptance.project import Project, Running
from tests.chaos.parts import BEAT, CONTROL, SESSIONS, send

WORKERS = ("sessions-a", "sessions-b")

_PARTS = {**{name: (*SESSIONS, "-n", f"{name}@%h") for name in WORKERS}, "control": CONTROL, "beat": BEAT}
_STOPS_IN_S = 30.0


@dataclass
class Part:
    """One program of the stack, as it was started last. `due` is when a dead one is started again."""

    name: str
    running: Running
    due: float | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that all others of this part are below."""
        return self.running.process

    @property
    def alive(self) -> bool:
        """Whether it runs; a frozen one does."""
        return self.process.poll() is None

    @property
    def hears(self) -> bool:
        """Whether SIGTERM reaches a handler of its own; a program that is still starting would just die of it."""
        if not self.alive:
            return False
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt:"))
        return bool(caught >> (signal.SIGTERM - 1) & 1)


class Stack:
    """The stack of a project, as a context manager. Nothing is started again but while `live` runs."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.parts: dict[str, Part] = {}
        self.redis: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.start_redis()
        for name in _PARTS:
            self.parts[name] = self._start(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self.parts.values():
            if part.alive:
                end(part.process.pid)
                part.process.wait()
        self.redis.terminate()
        self.redis.wait(_STOPS_IN_S)

    def start_redis(self) -> None:
        """The project's private Redis, which writes to disk every second; returns once it answers."""
        server = redis_server.ensure(self.project.state)
        assert server.process is not None, "it should have been down"
        self.redis, self._url = server.process, server.url

    def live(self, seconds: float) -> None:
        """Let time go by. What died is started again, 0.2 to 1 s after it was seen."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            for name, part in self.parts.items():
                if part.alive:
                    continue
                part.due = part.due or now + random.uniform(0.2, 1)
                if now >= part.due:
                    self.parts[name] = self._start(name)
            time.sleep(min(0.05, max(0.0, until - now)))

    def stop(self) -> dict[str, int | None]:
        """SIGTERM to everything but Redis; the exit codes, by name, None for what did not end in time."""
        for part in self.parts.values():
            part.process.terminate()
        for part in self.parts.values():
            with suppress(subprocess.TimeoutExpired):
                part.process.wait(_STOPS_IN_S)
        return {name: part.process.returncode for name, part in self.parts.items()}

    def _start(self, name: str) -> Part:
        argv = bound_argv(os.getpid(), _PARTS[name])
        running = Running(self.project, argv, {"ORCH_REDIS_URL": self._url, "ORCH_LOG_FORMAT": "json"})
        return Part(name, running.__enter__())


def freeze(pid: int) -> list[int]:
    """SIGSTOP to a process and all below it; who that was."""
    stopped: set[int] = set()
    while fresh := {pid, *shim.descendants(pid)} - stopped:
        send(signal.SIGSTOP, list(fresh))
        stopped |= fresh
    return list(stopped)


def end(pid: int) -> None:
    """kill -9 of a process and all below it, as at once: who stands still does not see another die."""
    send(signal.SIGKILL, freeze(pid))
