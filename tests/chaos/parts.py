"""The stack in its parts, so that each can be broken by itself: Redis, beat, control, two session workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis

from orchestrator.adapters.process import shim
from orchestrator.adapters.redis import server as redis_server
from tests.acceptance.project import CELERY, CLEAN, Project, Running, kill
from tests.support import wait_until

Measured = Callable[[str, str], None]

LEASE_S, POLL_S = 4.0, 0.3
"""What docs/reliability.md was measured with."""

SLOTS = 2
QUIET = ("--without-gossip", "--without-mingle", "--loglevel", "warning")
BEAT = (*CELERY, "beat", "--loglevel", "warning", "--pidfile=")
CONTROL = (*CELERY, "worker", "-Q", "poll,publish,merge_close", "-c", "1", "-n", "control@%h", *QUIET)
SESSIONS = (*CELERY, "worker", "-Q", "sessions", "-c", str(SLOTS), *QUIET)

ROLES = ("implementer", "spec_reviewer", "quality_reviewer")
HANG: dict[str, object] = {"misbehave": "hang"}
"""A turn of an agent that does its work and never comes back."""

NO: dict[str, object] = {"checks": [{"item": "it is good", "run": ["false"], "fix": "make it better"}]}
"""A review that finds fault."""


class Parts:
    """A project's stack as a context manager; `mend` starts whatever is not running. Leaving ends all of it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.control: Running
        self.workers: dict[str, Running] = {}
        self._all = ExitStack()
        self._running: list[Running] = []
        self._started = 0

    def __enter__(self) -> Self:
        self.start_redis()
        self._start(BEAT)
        self.start_control()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._running:
            part.process.terminate()
        self._all.close()
        self.redis.stop()

    def mend(self) -> None:
        """Two session workers that announced themselves, from now on."""
        self.workers = {name: worker for name, worker in self.workers.items() if worker.process.poll() is None}
        while len(self.workers) < 2:
            self.start_worker()
        self.until(lambda: all(map(self.announced, self.workers)), "both session workers should be announced")

    # Starting

    def start_redis(self) -> None:
        """The project's private Redis, from the folder where the last one kept its data."""
        self.redis = redis_server.ensure(self.project.state)

    def shut_redis_down(self) -> None:
        """SHUTDOWN; returns when it has ended."""
        redis.Redis.from_url(self.redis.url).shutdown()
        assert self.redis.process
        self.redis.process.wait(10)

    def start_control(self) -> None:
        """The worker that polls and publishes."""
        self.control = self._start(CONTROL)

    def start_worker(self) -> None:
        """One more session worker, by a name that no other had before it."""
        self._started += 1
        name = f"worker-{self._started}"
        self.workers[name] = self._start((*SESSIONS, "-n", f"{name}@%h"))

    def _start(self, argv: tuple[str, ...]) -> Running:
        self._running.append(self._all.enter_context(Running(self.project, argv)))
        return self._running[-1]

    # Breaking

    @contextmanager
    def unreadable_tracker(self) -> Iterator[None]:
        """The tracker's folder is somewhere else; even root cannot read it."""
        here, aside = self.project.repo / ".sudocode", self.project.folder / "aside"
        here.rename(aside)
        try:
            yield
        finally:
            aside.rename(here)

    def kill_tracker(self) -> None:
        """kill -9 of the server that control talks to."""
        (server,) = self.project.processes("orchestrator.tracker").keys() & set(family(self.control))
        kill(server)

    def kill_publisher(self) -> None:
        """kill -9 of the worker that polls and publishes, and another one."""
        kill_worker(self.control)
        self.start_control()

    def cut_telling_off(self, kill: Callable[[], None]) -> None:
        """Do that to the worker that publishes while it stands still, after it told some of what waits."""
        before, deadline = self.project.outbox.waiting(), time.monotonic() + 60
        told = False
        while not told:  # without a pause: all may be told within one
            assert time.monotonic() < deadline, "telling should go on"
            publishers = pool(self.control)
            told = self.project.outbox.waiting() < before
        send(signal.SIGSTOP, publishers)
        kill()
        send(signal.SIGCONT, publishers)

    # Looking

    def announced(self, name: str) -> bool:
        """Whether this session worker is ready for sessions."""
        return any(worker.startswith(f"{name}@") for worker in self.project.leases.workers())

    def holder(self, issue_id: str) -> str:
        """The name of the worker that took this issue's session up last."""
        return self.project.holding(issue_id).owner.partition("@")[0]

    def left(self, issue_id: str) -> bool:
        """Whether a worker said that it leaves this issue's session to others."""
        return any(worker.lines("session_left", issue_id) for worker in self.workers.values())

    def ended(self, *issue_ids: str) -> bool:
        """Whether the sessions of these issues are over, told or not."""
        holdings = self.project.leases.holdings()
        return {holding.issue_id for holding in holdings if holding.state == "ended"} >= set(issue_ids)

    def done(self, *issue_ids: str) -> bool:
        """Whether they are over, and the tracker knows all there is to know."""
        return self.ended(*issue_ids) and self.project.outbox.waiting() == 0

    def working(self, role: str, *issue_ids: str, run: int = 1) -> Callable[[], bool]:
        """Whether agents of this role have been started so often, for each of these issues."""
        return lambda: all(self.project.asked(issue_id, role) >= run for issue_id in issue_ids)

    def asked(self, issue_id: str) -> tuple[int, ...]:
        """How often an agent was started for this issue, in each role."""
        return tuple(self.project.asked(issue_id, role) for role in ROLES)

    def written(self, issue_id: str) -> tuple[object, ...]:
        """All that a session writes: its history, what is told of it, and refs, a remote's too if there is one."""
        project = self.project
        return (
            project.snapshots(issue_id),
            project.feedback(issue_id),
            project.holding(issue_id).owner,
            project.git("for-each-ref"),
            [project.git("ls-remote", name) for name in project.git("remote").split()],
        )

    def assert_told_once(self, *issue_ids: str) -> None:
        """Nobody found fault, and the tracker has what Redis has: each snapshot once, in order."""
        for issue_id in issue_ids:
            assert CLEAN == self.project.events(issue_id)
            assert self.project.snapshots(issue_id) == self.project.feedback(issue_id)
            assert "needs_review" == self.project.status(issue_id)

    def at_work(self, issue_id: str) -> set[int]:
        """The processes of the issue's agents and verifications, their shims among them."""
        marker = os.fsencode(f"ORCH_ISSUE={issue_id}\0")
        return {pid for pid in self.project.processes() if marker in environ(pid)}

    def waiting(self, gate: Path, *issue_ids: str) -> Callable[[], bool]:
        """Whether an agent or a verification of each of these issues waits at this gate."""
        return lambda: all(self.project.processes(f" {gate}").keys() & self.at_work(issue) for issue in issue_ids)

    def agents(self, issue_id: str) -> set[int]:
        """The issue's agents: neither their shims nor what they have started."""
        lines = self.project.processes(f" --issue {issue_id} ").items()
        return {pid for pid, line in lines if shim.__file__ not in line}

    def verifications(self) -> int:
        """How often L1 was verified."""
        runs = self.project.folder / "verifications"
        return len(runs.read_text().splitlines()) if runs.exists() else 0

    def until(self, predicate: Callable[[], object], what: str, timeout: float = 60.0) -> float:
        """Wait; for how many seconds it was. A failure shows what every part printed last."""
        start = time.monotonic()
        try:
            wait_until(predicate, what, timeout)
        except AssertionError as failure:
            logs = sorted(self.project.folder.glob("*.log"), key=lambda log: int(log.stem))
            said = (f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)
            raise AssertionError("\n".join([str(failure), *said])) from failure
        return time.monotonic() - start


def family(worker: Running) -> list[int]:
    """A worker and all below it: its children, shims, agents."""
    return [worker.process.pid, *shim.descendants(worker.process.pid)]


def pool(worker: Running) -> list[int]:
    """The worker's own children, which run the tasks."""
    pid = worker.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_worker(worker: Running) -> None:
    """kill -9 of a worker and its children. Their agents are left to those who look after them."""
    for pid in (worker.process.pid, *pool(worker)):
        kill(pid)
    worker.process.wait()


def send(number: int, pids: list[int]) -> None:
    """A signal to all that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def environ(pid: int) -> bytes:
    """What a process was started with; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def once(gate: Path) -> list[str]:
    """A command that ends once there is such a file."""
    return ["sh", "-c", 'until test -e "$0"; do sleep 0.05; done', str(gate)]


def reviewing(gate: Path) -> dict[str, Any]:
    """A review that passes once there is such a file."""
    return {"checks": [{"item": "the gate is open", "run": once(gate), "fix": "open it"}]}


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """The folder is a file system of 16 MB; the test is skipped where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """The file that takes all the room there is."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert 0 == shutil.disk_usage(folder).free
    return path
