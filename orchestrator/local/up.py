"""The local stack of `orch up`: a private Redis if need be, and the processes of the table as children."""

from __future__ import annotations

import contextlib
import os
import socket
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from orchestrator.adapters.process import shim
from orchestrator.adapters.process.bound import bound_argv, bound_env
from orchestrator.adapters.process.lock import locked
from orchestrator.adapters.redis import server as redis_server
from orchestrator.errors import LockTimeout, OrchestratorError, RedisUnavailable
from orchestrator.local import flower_login
from orchestrator.local.programs import program
from orchestrator.settings import Settings
from orchestrator.wiring import STOP_GRACE_S, Wiring, agent_commands, handed_on, sandboxed

FLOWER_PORT = 5555
STEADY_S = 60.0
LONGEST_WAIT_S = 30.0
STOP_DEADLINE_S = STOP_GRACE_S + 10.0


@dataclass
class _Restarts:
    """The last or next start of a process, and how often in a row it died soon after a start."""

    at: float = field(default_factory=time.monotonic)
    planned: bool = False
    early_deaths: int = 0

    def started(self) -> None:
        """Note that it was started now."""
        self.at, self.planned = time.monotonic(), False

    def after(self, death: float) -> str:
        """Plan the next start and say when: at once, but later each time for a process that keeps dying."""
        self.early_deaths = self.early_deaths + 1 if death - self.at < STEADY_S else 1
        wait = min(2.0 ** (self.early_deaths - 2), LONGEST_WAIT_S) if self.early_deaths > 1 else 0.0
        self.at, self.planned = death + wait, True
        return f"starting it again in {wait:g} s" if wait else "starting it again"


@dataclass
class _Child:
    """One process of the stack."""

    name: str
    argv: list[str]
    process: subprocess.Popen[str] | None = None
    restarts: _Restarts = field(default_factory=_Restarts)


class Stack:
    """Everything `orch up` runs, as a context manager. `say(name, line)` gets what the children print.

    Entering raises OrchestratorError when the project's stack is up already or a setting is missing. A child that dies
    is started again, however often: a night must not end because a disk was full for an hour. Leaving is a warm stop:
    sessions end at their next step boundary or after their grace, hand over, and go on at the next start. SystemExit
    and KeyboardInterrupt end everything now, also during a warm stop.
    """

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], *, say: Callable[[str, str], None], flower: bool = True
    ) -> None:
        self.settings = settings
        self.wiring = Wiring(settings)
        self.flower = ""
        self._environ = environ
        self._say = say
        self._children = self._planned(flower=flower)
        self._redis_restarts = _Restarts()
        self._readers: list[threading.Thread] = []
        self._lock = contextlib.ExitStack()
        self._base = self.wiring.base_watch(lambda line: self._tell("orch", line))

    def __enter__(self) -> Self:
        agent_commands(self.settings)  # report a missing agent now, not in every session
        sandboxed(self.settings)
        _ = self.wiring.workspace
        self._take_lock()
        try:
            _ = self.wiring.redis_url
            self._base.begin()  # before a worker could claim anything
            for child in self._children:
                self._start(child)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self.stop()
        else:
            self.kill()

    def wait_ready(self, timeout_s: float = 30.0, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Return when a session worker has announced itself, or `unless` is true."""
        deadline = time.monotonic() + timeout_s
        while not self.wiring.leases.workers() and not unless():
            self.check()
            if time.monotonic() > deadline:
                raise OrchestratorError(f"no worker announced itself within {timeout_s:g} s; see its lines above")
            time.sleep(0.05)

    def check(self) -> None:
        """Start dead children again: at once, but later each time (up to 30 s) if they keep dying. Call it often."""
        now = time.monotonic()
        if self.settings.redis_url is None and redis_server.find(self.settings.state_dir) is None:
            self._start_redis(now)
        self._base.look()
        for child in self._children:
            if child.process is not None and (code := child.process.poll()) is not None:
                child.process = None
                self._tell(child.name, f"ended with code {code}; {child.restarts.after(now)}")
            if child.process is None and now >= child.restarts.at:
                try:
                    self._start(child)
                except OSError as error:  # no memory, no process number, no folder: all of that may pass
                    self._tell(child.name, f"could not be started: {error}; {child.restarts.after(now)}")

    def stop(self) -> None:
        """Stop everything, with time for sessions to hand over. Calling it again is harmless."""
        deadline = time.monotonic() + STOP_DEADLINE_S
        self._base.stop()
        try:
            for child in self._children:
                if child.process is not None:
                    child.process.terminate()
            for child in self._children:
                if child.process is not None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.process.wait(max(0.1, deadline - time.monotonic()))
        finally:
            self.kill()

    def kill(self) -> None:
        """End everything now."""
        self._base.stop()
        for child in self._children:
            if child.process is not None:
                shim.kill_below(child.process.pid)
                child.process.kill()
                child.process.wait()
                child.process = None
        for reader in self._readers:
            reader.join(timeout=1)
        if self.settings.redis_url is None and "own_redis" in vars(self.wiring):
            self.wiring.own_redis.stop()
        self._lock.close()

    def _planned(self, *, flower: bool) -> list[_Child]:
        ports = {}
        if flower:
            ports["FLOWER_PORT"] = port = str(_free_port(FLOWER_PORT))
            login = flower_login.hint(self.settings.state_dir, self._environ)
            self.flower = f"http://127.0.0.1:{port} ({login})"
        names = ("beat", "worker", "control", "merges", *(("flower",) if flower else ()))
        commands = {name: program(name).command(slots=self.settings.concurrency) for name in names}
        return [
            _Child(name, [sys.executable, "-P", *(string.Template(word).safe_substitute(ports) for word in command)])
            for name, command in commands.items()
        ]

    def _start_redis(self, now: float) -> None:
        restarts = self._redis_restarts
        if not restarts.planned:
            self._tell("redis", f"is gone; {restarts.after(now)}")
        if now >= restarts.at:
            try:
                self.wiring.own_redis = redis_server.ensure(self.settings.state_dir)
                restarts.started()
            except RedisUnavailable as error:
                self._tell("redis", f"{error}; {restarts.after(time.monotonic())}")

    def _start(self, child: _Child) -> None:
        child.restarts.started()
        visible = self._visible_to(child)
        child.process = subprocess.Popen(
            bound_argv(os.getpid(), child.argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Not the user's repo: Celery puts the current folder on the import path, and `tasks` is a common name.
            cwd=self.settings.state_dir,
            pass_fds=handed_on(visible),
            env=bound_env(visible)
            | {
                "ORCH_PROJECT_ROOT": str(self.settings.root),
                "ORCH_STATE_DIR": str(self.settings.state_dir),
                "PYTHONUNBUFFERED": "1",
                # The process's name is put in front of each line, so lines are for people, wherever they end up.
                "ORCH_LOG_FORMAT": "text" if self.settings.log_format == "auto" else self.settings.log_format,
            },
            # Ctrl-C is ours to hand on: once warm, twice now.
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, args=(child.name, child.process), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _visible_to(self, child: _Child) -> Mapping[str, str]:
        """Our environment, without what is kept from this program."""
        hidden = program(child.name).hidden
        return {name: value for name, value in self._environ.items() if not name.startswith(hidden)}

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                self._tell(name, line.rstrip())

    def _tell(self, name: str, line: str) -> None:
        """Hand a line on. A reader that is gone, or a full disk, must not end the stack or the thread that reads a
        child's output: a child whose output is not read stands still.
        """
        with contextlib.suppress(OSError):
            self._say(name, line)

    def _take_lock(self) -> None:
        """One stack per project. The lock goes with us however we end."""
        try:
            self._lock.enter_context(locked(self.wiring.state("up.lock"), wait_s=0))
        except LockTimeout as busy:
            raise OrchestratorError(
                f"the stack of {self.settings.root} is up already (process {busy.holder or '?'}); see `orch status`"
            ) from None


def _free_port(wanted: int) -> int:
    """The wanted port of the loopback address, or a free one if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
