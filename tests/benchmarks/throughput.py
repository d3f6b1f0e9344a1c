"""Sessions per second with steps that do nothing: the engine's own cost, beside the bare cost of its Redis commands.

Three ways take turns, 4 processes each, on one private server:
  engine   the product's session task on a Celery worker: message in, lease, replay, 4 steps, verdict, ticks
  celery   a Celery task on the same worker that sends the same Redis commands and nothing else
  plain    redis-py that sends the same Redis commands in a loop; no queue
Sessions are claimed and opened, and messages enqueued, before the clock starts. Time is Redis's own: from the first
lease taken to the last session closed. Not in it: the poll, telling the tracker, agents, git.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import psutil
import redis

from orchestrator.adapters.process.bound import bound_argv, bound_env
from orchestrator.models import Claim, Lease, SessionRecord, utc_now
from orchestrator.publish.entries import About, opening_entries
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session_loop import Doer
from orchestrator.wiring.project import Wiring
from tests.benchmarks import plain
from tests.benchmarks.figures import Figure, interleaved
from tests.support import an_issue, wait_until

PROCESSES = 4
ENGINE_TO_PLAIN = 0.4
ENGINE_TO_CELERY = 0.8
WARM_UP = 40
"""Sessions of each kind before the first round: every process has then imported, connected and loaded its scripts."""

Way = Callable[[Sequence[str]], None]


def measure(folder: Path, *, sessions: int, rounds: int) -> list[Figure]:
    """Sessions per second and the CPU time of each, in a project that is made in `folder`."""
    (folder / "orch.toml").write_text('project = "bench"\nlease_seconds = 600\n')
    os.environ |= {"ORCH_PROJECT_ROOT": str(folder), "ORCH_STATE_DIR": str(folder / "state"), "ORCH_LOG": "warning"}
    # Only now: these read the environment, as in any process of the product.
    from tests.benchmarks import noop

    wiring = noop.wiring.here()
    commands = wiring.state(noop.COMMANDS)
    commands.write_text(json.dumps(_recorded(wiring, noop.no_op_steps)))
    with _worker(wiring, folder) as worker, _plain_processes(wiring, commands) as run_plain:
        from tasks.session import run_issue_session

        ways: dict[str, Way] = {
            "engine": partial(_drain, worker, run_issue_session),
            "celery": partial(_drain, worker, noop.plain_session),
            "plain": run_plain,
        }
        for name, way in ways.items():
            _round(wiring, way, [f"i-{name}warm{n}" for n in range(WARM_UP)])
        found: dict[str, list[_Round]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, way in ways.items():
                found[name].append(_round(wiring, way, [f"i-{name}{number}x{n}" for n in range(sessions)]))
    wiring.own_redis.stop()
    rates = {name: [each.per_s for each in rows] for name, rows in found.items()}
    cpu = {name: [each.cpu_us for each in rows] for name, rows in found.items()}
    what, cpu_what = "no-op sessions on 4 processes", "CPU time of a no-op session"
    plain_is, celery_is = "redis-py, same commands", "Celery task, same commands"
    return [
        interleaved(what, "/s", rates["engine"], rates["plain"], plain_is, least_ratio=ENGINE_TO_PLAIN),
        interleaved(what, "/s", rates["engine"], rates["celery"], celery_is, least_ratio=ENGINE_TO_CELERY),
        interleaved(cpu_what, "us", cpu["engine"], cpu["plain"], plain_is),
        interleaved(cpu_what, "us", cpu["engine"], cpu["celery"], celery_is),
    ]


@dataclass(frozen=True)
class _Round:
    """One way, once: sessions per second, and CPU time of all processes and Redis for a session."""

    per_s: float
    cpu_us: float


def _recorded(wiring: Wiring, steps: Callable[[Lease, LeaseKeeper], Doer]) -> list[plain.Command]:
    """The Redis commands of one session of the engine, in this process."""
    recording = plain.Recording(connection_pool=redis.ConnectionPool.from_url(wiring.redis_url, decode_responses=True))
    own = Wiring(wiring.settings)
    own.client = own.patient_client = recording
    sessions = replace(own.sessions(owner="recorder/1", wake=lambda: None, stopping=lambda: False), doer=steps)
    sent: list[plain.Command] = []
    for issue_id in ("i-scripts", "i-recorded"):  # the first one loads the scripts
        _open(own, [issue_id])
        recording.sent.clear()
        sessions.run(issue_id)
        sent = list(recording.sent)
    return plain.blanks(sent, "i-recorded")


def _round(wiring: Wiring, way: Way, issue_ids: Sequence[str]) -> _Round:
    """Run the sessions; they all end DONE."""
    _open(wiring, issue_ids)
    cpu_s = _cpu_s()
    way(issue_ids)
    inflight = wiring.keys("inflight")
    wait_until(lambda: wiring.client.zcard(inflight) == 0, "every session ends", timeout=120)
    cpu_s = _cpu_s() - cpu_s
    with wiring.client.pipeline(transaction=False) as pipe:
        for issue_id in issue_ids:
            pipe.hmget(wiring.keys("session", issue_id), "started_at", "ended_at", "verdict")
        rows = pipe.execute()
    failed = [row for row in rows if row[2] != "DONE"]
    if failed:
        raise AssertionError(f"{len(failed)} of {len(rows)} sessions did not end DONE")
    _forget(wiring)
    took_ms = max(int(row[1]) for row in rows) - min(int(row[0]) for row in rows)
    return _Round(len(rows) / took_ms * 1000, cpu_s / len(rows) * 1e6)


def _cpu_s() -> float:
    """CPU time of everything we started; not ours, for we only enqueue and wait."""
    times = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return sum(each.user + each.system for each in times)


def _open(wiring: Wiring, issue_ids: Sequence[str]) -> None:
    """Sessions that only need a worker."""
    wiring.leases.announce("bench", len(issue_ids), for_s=600)
    for issue_id in issue_ids:
        claim = wiring.leases.claim(issue_id)
        if not isinstance(claim, Claim):
            raise AssertionError(f"{issue_id} could not be claimed: {claim}")
        record = SessionRecord(plain.session_id(issue_id), "orch-benchmark", an_issue(issue_id=issue_id), 3, 2)
        about = About(record.issue, record.session_id, record.orchestrator_id)
        wiring.leases.open(claim, record, opening_entries(about, at=utc_now()))


def _forget(wiring: Wiring) -> None:
    """What the sessions left behind, so that every round finds the same Redis."""
    names = ("session", "runs", "history", "snapshots", "outbox", "pending", "known")
    for name in names:
        for keys in _chunks(list(wiring.client.scan_iter(f"{wiring.keys(name)}*", count=1000))):
            wiring.client.unlink(*keys)


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), 500):
        yield keys[start : start + 500]


def _drain(worker: subprocess.Popen[bytes], task: object, issue_ids: Sequence[str]) -> None:
    """Hold the worker while its queue fills, then let it go."""
    worker.send_signal(signal.SIGSTOP)
    for issue_id in issue_ids:
        task.apply_async((issue_id,), queue="sessions")  # type: ignore[attr-defined] # Celery has no types
    worker.send_signal(signal.SIGCONT)


@contextmanager
def _worker(wiring: Wiring, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-P", "-m", "celery", "--quiet", "-A", "tests.benchmarks.noop", "worker", "-Q", "sessions"]
    argv += ["-c", str(PROCESSES), "--without-gossip", "--without-mingle", "--loglevel", "warning"]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            bound_argv(os.getpid(), argv),
            cwd=folder,
            env=bound_env(os.environ) | {"ORCH_LOG": "info"},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(wiring.leases.workers, "the worker announces itself", timeout=30)
        yield worker
    finally:
        worker.send_signal(signal.SIGCONT)
        worker.terminate()
        worker.wait(30)


@contextmanager
def _plain_processes(wiring: Wiring, commands: Path) -> Iterator[Way]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:

        def run(issue_ids: Sequence[str]) -> None:
            shares = [issue_ids[start::PROCESSES] for start in range(PROCESSES)]
            list(pool.map(partial(plain.run_all, wiring.redis_url, commands), shares))

        yield run
