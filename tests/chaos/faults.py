"""Every way in which we break a running stack. What is broken, in which order, is a function of the seed."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from orchestrator.adapters.process import shim
from orchestrator.tracker.jsonl import FOLDER
from tests.acceptance.project import Project, kill
from tests.chaos.parts import LEASE_S, SLOTS, pool, send
from tests.chaos.stack import WORKERS, Part, Stack, end, freeze

FROZEN_S = LEASE_S + 1
HANDS_OVER_IN_S = 20.0
TELLS_IN_S = 3.0
TOLD_IN_S = 0.03
"""About how long it takes to tell the tracker one entry."""

Candidate = TypeVar("Candidate")


@dataclass(frozen=True)
class Fault:
    """One fault to come. `draw`, from 0 to 1, chooses among the targets that there will be; a cut lasts `lasts_s`."""

    kind: str
    draw: float
    lasts_s: float
    pause_s: float


@dataclass(frozen=True)
class Struck:
    """What a fault hit, and the sessions that it may have taken from their worker, by issue.

    It may have cut off `cuts` of them in a step; if it `spoils`, that ends them in an error. `wrong` is a broken
    promise that was seen at once.
    """

    target: str
    sessions: Mapping[str, str] = field(default_factory=dict)
    cuts: int = 0
    spoils: bool = False
    wrong: str = ""


@dataclass(frozen=True)
class Hit:
    """A fault that happened."""

    kind: str
    at: datetime
    struck: Struck

    def __str__(self) -> str:
        cut_off = f": {', '.join(self.struck.sessions)}" if self.struck.sessions else ""
        return f"{self.kind} ({self.struck.target}){cut_off}"


def plan(rng: random.Random) -> Iterator[Fault]:
    """Faults without end: every kind once, in any order, before one comes again."""
    while True:
        for kind in rng.sample(list(KINDS), len(KINDS)):
            yield Fault(kind, draw=rng.random(), lasts_s=rng.uniform(1, 5), pause_s=rng.uniform(0.5, 2.5))


class Faults:
    """Breaks a stack. Each kind of fault is a method that gives what it hit, or None when nothing is there to hit."""

    def __init__(self, project: Project, stack: Stack) -> None:
        self._project = project
        self._stack = stack
        self._spared: set[str] = set()

    def strike(self, fault: Fault) -> Hit | None:
        """Do it, to its end: what was frozen goes on, what was away is back."""
        at = datetime.now(UTC)
        struck = KINDS[fault.kind](self, fault)
        return Hit(fault.kind, at, struck) if struck else None

    # Session workers

    def kill_worker(self, fault: Fault) -> Struck | None:
        return self._at_worker(fault, lambda worker: end(worker.process.pid))

    def kill_parent(self, fault: Fault) -> Struck | None:
        return self._at_worker(fault, lambda worker: worker.process.kill())

    def kill_child(self, fault: Fault) -> Struck | None:
        worker = self._worker(fault)
        pid = _pick(pool(worker.running), fault) if worker else None
        if worker is None or pid is None:
            return None
        struck = Struck(f"{worker.name}, child {pid}", self._running(f"/{pid} "), cuts=1)
        kill(pid)
        return struck

    def freeze_worker(self, fault: Fault) -> Struck | None:
        return self._at_worker(fault, lambda worker: self._freeze(worker, FROZEN_S))

    def stop_worker(self, fault: Fault) -> Struck | None:
        worker = self._worker(fault)
        if worker is None or not worker.hears:
            return None
        running = self._running(f"{worker.name}@")
        worker.process.terminate()
        deadline = time.monotonic() + HANDS_OVER_IN_S
        while worker.alive and time.monotonic() < deadline:
            self._stack.live(0.1)
        code = worker.process.poll()
        wrong = "" if code == 0 else f"{worker.name}: SIGTERM ended it with {code} within {HANDS_OVER_IN_S:g} s"
        return Struck(worker.name, running, wrong=wrong)

    def kill_agent(self, fault: Fault) -> Struck | None:
        agents = {
            issue[1]: pid
            for pid, line in self._project.processes("agents.scripted").items()
            if "shim.py" not in line and (issue := re.search(r"--issue (\S+)", line))
        }
        if (issue_id := self._not_spared(agents.keys() & self._running().keys(), fault)) is None:
            return None
        struck = Struck(f"an agent of {issue_id}", self._running(issue_id), cuts=1, spoils=True)
        kill(agents[issue_id])
        return struck

    # Worktrees

    def delete_worktree(self, fault: Fault) -> Struck | None:
        if (issue_id := self._not_spared(self._running().keys(), fault)) is None:
            return None
        struck = Struck(f"the worktree of {issue_id}", self._running(issue_id), cuts=1)
        shutil.rmtree(self._project.worktree(issue_id), ignore_errors=True)
        return struck

    def break_worktree(self, fault: Fault) -> Struck | None:
        issue_id = _pick(sorted(self._running()), fault)
        if issue_id is None or not (git := self._project.worktree(issue_id) / ".git").exists():
            return None
        shutil.rmtree(git, ignore_errors=True)
        git.write_text("gitdir: /nowhere\n")
        return Struck(f"the worktree of {issue_id}")

    # The control side

    def kill_control(self, fault: Fault) -> Struck | None:
        self._wait_for_telling(fault)
        return self._at("control", lambda part: end(part.process.pid))

    def freeze_control(self, fault: Fault) -> Struck | None:
        return self._at("control", lambda part: self._freeze(part, FROZEN_S))

    def kill_beat(self, fault: Fault) -> Struck | None:
        return self._at("beat", lambda part: end(part.process.pid))

    def kill_tracker(self, fault: Fault) -> Struck | None:
        servers = self._project.processes("-m orchestrator.tracker").keys()
        pid = _pick(sorted(servers & shim.descendants(self._stack.parts["control"].process.pid)), fault)
        if pid is None:
            return None
        self._wait_for_telling(fault)
        kill(pid)
        return Struck(f"process {pid}")

    def hide_tracker(self, fault: Fault) -> Struck | None:
        folder = self._project.repo / FOLDER
        aside = folder.rename(folder.with_name(f"{FOLDER}.aside"))
        self._stack.live(fault.lasts_s)
        aside.rename(folder)
        return Struck(f"for {fault.lasts_s:.1f} s")

    # Redis

    def kill_redis(self, fault: Fault) -> Struck | None:
        return self._without_redis(fault.draw, self._stack.redis.kill)

    def shut_redis_down(self, fault: Fault) -> Struck | None:
        return self._without_redis(fault.lasts_s, self._stack.redis.terminate)

    def pause_redis(self, fault: Fault) -> Struck | None:
        running = self._running()
        self._stack.redis.send_signal(signal.SIGSTOP)
        self._stack.live(fault.lasts_s)
        self._stack.redis.send_signal(signal.SIGCONT)
        return self._outage(running, fault.lasts_s)

    def kill_clients(self, fault: Fault) -> Struck | None:
        count = self._project.redis.client_kill_filter(_type="normal")
        return Struck(f"{count} connections")

    # What they share

    def _at_worker(self, fault: Fault, act: Callable[[Part], None]) -> Struck | None:
        worker = self._worker(fault)
        if worker is None:
            return None
        struck = Struck(worker.name, self._running(f"{worker.name}@"), cuts=SLOTS)
        act(worker)
        return struck

    def _not_spared(self, issue_ids: Set[str], fault: Fault) -> str | None:
        """One that was not chosen here before: twice in a row may end a session, and then makes its issue wait."""
        if (issue_id := _pick(sorted(issue_ids - self._spared), fault)) is not None:
            self._spared.add(issue_id)
        return issue_id

    def _at(self, name: str, act: Callable[[Part], None]) -> Struck | None:
        part = self._stack.parts[name]
        if not part.alive:
            return None
        act(part)
        return Struck(f"process {part.process.pid}")

    def _worker(self, fault: Fault) -> Part | None:
        return _pick([part for name in WORKERS if (part := self._stack.parts[name]).alive], fault)

    def _freeze(self, part: Part, seconds: float) -> None:
        stopped = freeze(part.process.pid)
        self._stack.live(seconds)
        send(signal.SIGCONT, stopped)

    def _wait_for_telling(self, fault: Fault) -> None:
        """Until an entry is on its way to the tracker, and a part of that way: the worst moment to be killed."""
        deadline = time.monotonic() + TELLS_IN_S
        while not self._project.redis.exists(self._project.keys("begun")) and time.monotonic() < deadline:
            self._stack.live(0.002)
        self._stack.live(fault.draw * TOLD_IN_S)

    def _without_redis(self, seconds: float, act: Callable[[], None]) -> Struck:
        running, began = self._running(), time.monotonic()
        act()
        self._stack.redis.wait()
        self._stack.live(seconds)
        self._stack.start_redis()
        return self._outage(running, time.monotonic() - began)

    def _outage(self, running: Mapping[str, str], seconds: float) -> Struck:
        """A lease that could not be renewed for a good part of its time may be lost."""
        if seconds < LEASE_S / 2:
            return Struck(f"for {seconds:.1f} s")
        return Struck(f"for {seconds:.1f} s", running, cuts=len(WORKERS) * SLOTS)

    def _running(self, where: str = "") -> dict[str, str]:
        """The sessions under way, by issue: all, or those of an issue, a worker or a worker's child."""
        return {
            it.issue_id: it.record.session_id
            for it in self._project.leases.holdings()
            if it.state == "running" and it.record and where in f"{it.issue_id} {it.owner} "
        }


KINDS: Mapping[str, Callable[[Faults, Fault], Struck | None]] = {
    "kill -9 of a session worker and all below it": Faults.kill_worker,
    "kill -9 of a session worker's parent": Faults.kill_parent,
    "kill -9 of a session worker's child": Faults.kill_child,
    "SIGTERM to a session worker": Faults.stop_worker,
    "a session worker frozen past its leases": Faults.freeze_worker,
    "kill -9 of an agent": Faults.kill_agent,
    "a worktree deleted": Faults.delete_worktree,
    "a worktree's .git broken": Faults.break_worktree,
    "kill -9 of the control worker": Faults.kill_control,
    "the control worker frozen past a lease": Faults.freeze_control,
    "kill -9 of beat": Faults.kill_beat,
    "kill -9 of the tracker's server": Faults.kill_tracker,
    "the tracker's folder away": Faults.hide_tracker,
    "kill -9 of Redis": Faults.kill_redis,
    "Redis shut down, started later": Faults.shut_redis_down,
    "Redis frozen": Faults.pause_redis,
    "all connections to Redis cut": Faults.kill_clients,
}


def _pick(candidates: Sequence[Candidate], fault: Fault) -> Candidate | None:
    return candidates[int(fault.draw * len(candidates))] if candidates else None
