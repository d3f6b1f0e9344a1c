"""From a poll that will see one ready issue to the first act of its agent, on the whole local stack.

The clock starts just before the poll's message is sent and stops at the time that the agent, a shell script, takes as
its first act. In it: Celery's delivery, the tracker asked for ready issues and for the issue, the claim, `in_progress`
set in the tracker, the session's message, the lease, the worktree, the agent's process under its shim. The stack is
idle before each: beat does not tick, and what the session before had to say has been told.

The baseline is the bare minimum by hand: `git worktree add`, then the same script.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import psutil
from celery import Celery

from orchestrator.local.up import Stack
from orchestrator.settings.redis_url import celery_broker_url
from tests.benchmarks.figures import Figure, percentile
from tests.benchmarks.local import local_stack
from tests.support import wait_until

AGENT_UNDER_MS = 300
WORKER_UNDER_MB = 90

AGENT = """\
# Says when it started, then works and answers as its role owes.
issue=$1 role=$2 out=$3
[ "$role" = implementer ] && date +%s%N >"$out/$issue.new" && mv "$out/$issue.new" "$out/$issue"
nonce=$(grep -o '"nonce": "[a-z]*"' | tail -n 1)
case $role in
implementer)
  echo "$issue" >"$issue.txt"
  echo "{$nonce,"' "code_changed_at": "2026-01-05T12:00:00Z", "notes": "", "verification": null}' ;;
*) echo "{$nonce,"' "passed": true, "failed_items": [], "fix_list": [], "notes": "fine"}' ;;
esac
"""


def measure(folder: Path, *, samples: int) -> list[Figure]:
    """Latency over so many issues, one after another, and then the memory of the workers that ran them."""
    started, agent = folder / "started", folder / "agent.sh"
    started.mkdir()
    agent.write_text(AGENT)
    argv = ["sh", str(agent), "{issue}", "{role}", str(started)]
    with local_stack(folder, argv, poll_interval=3600) as stack:
        asked = _Asking(stack, started)
        engine, by_hand = [], []
        for number in range(-1, samples):  # the first one starts the tracker's server and is not counted
            took = asked.one(number)
            bare = _by_hand(folder, started, f"hand{number}")
            if number >= 0:
                engine.append(took)
                by_hand.append(bare)
        figures = [
            Figure(
                f"poll to agent, {name} of {samples}",
                "ms",
                of(engine),
                of(by_hand),
                "git worktree add + script",
                of(engine) / of(by_hand),
                under=AGENT_UNDER_MS,
            )
            for name, of in (("p50", median), ("p99", lambda values: percentile(values, 99)))
        ]
        return [*figures, *_memory(stack, folder)]


class _Asking:
    """Files issues, has them polled, and waits until the stack is idle again."""

    def __init__(self, stack: Stack, started: Path) -> None:
        wiring = stack.wiring
        self._wiring = wiring
        self._started = started
        self._app = Celery("benchmark", broker=celery_broker_url(wiring.redis_url), set_as_current=False)
        self._app.conf.broker_transport_options = {"global_keyprefix": wiring.keys("celery:")}
        host = socket.gethostname()
        self._workers = [f"sessions@{host}", f"control@{host}"]

    def one(self, number: int) -> float:
        """Milliseconds from the poll to the agent."""
        wait_until(self._idle, "the stack is idle", timeout=60)
        made = self._wiring.tracker.upsert_issue(title=f"Issue {number}", description="- [ ] it is done\n")
        issue_id = str(made.get("id") or made.get("issue_id"))
        before = time.time_ns()
        self._app.send_task("tasks.poll.poll", queue="poll")
        stamp = self._started / issue_id
        wait_until(stamp.exists, f"the agent of {issue_id} starts", timeout=60)
        took = (int(stamp.read_text()) - before) / 1e6

        def done() -> bool:
            holding = self._wiring.leases.holding(issue_id)
            return holding is not None and holding.verdict == "DONE"

        wait_until(done, f"the session of {issue_id} is done", timeout=60)
        return took

    def _idle(self) -> bool:
        """Whether no task runs or waits and all is told. A running session's last act is to ask for a poll."""
        if any(self._active(worker) for worker in self._workers):
            return False
        waiting = [self._wiring.client.llen(self._wiring.keys(f"celery:{name}")) for name in ("poll", "publish")]
        return not any(waiting) and not self._wiring.outbox.waiting() and not self._active(self._workers[1])

    def _active(self, worker: str) -> bool:
        replies = self._app.control.broadcast("active", reply=True, destination=[worker], limit=1, timeout=5)
        return not replies or any(reply[worker] for reply in replies)


def _by_hand(folder: Path, started: Path, name: str) -> float:
    """Milliseconds to the same agent's first act without an engine."""
    path = folder / "by-hand" / name
    before = time.time_ns()
    argv = ["git", "-C", str(folder / "repo"), "worktree", "add", "--quiet", "-b", name, str(path), "main"]
    subprocess.run(argv, check=True)
    subprocess.run(
        ["sh", str(folder / "agent.sh"), name, "implementer", str(started)],
        cwd=path,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    return (int((started / name).read_text()) - before) / 1e6


def _memory(stack: Stack, folder: Path) -> list[Figure]:
    """What a worker's child takes, shared pages shared out, after it ran sessions; beside a bare Celery worker's."""
    children = {name: _children_mb(f"{name}@%h") for name in ("sessions", "control")}
    name = "bare@benchmark"
    argv = [sys.executable, "-P", "-m", "celery", "--quiet", "--broker", celery_broker_url(stack.wiring.redis_url)]
    argv += ["worker", "-c", "4", "-n", name, "--without-gossip", "--without-mingle", "--loglevel", "error"]
    with (folder / "bare.log").open("wb") as log:
        bare = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log)
    try:
        wait_until(lambda: len(_children_mb(name)) == 4, "the bare worker has its children", timeout=30)
        baseline = median(_children_mb(name))
    finally:
        bare.terminate()
        bare.wait(30)
    return [
        Figure(
            f"memory (PSS) of a {which} worker's child",
            "MB",
            max(found),
            baseline,
            "child of a bare Celery worker",
            max(found) / baseline,
            under=WORKER_UNDER_MB,
        )
        for which, found in children.items()
    ]


def _children_mb(node: str) -> list[float]:
    """The PSS of each child of the worker with this node name, among our own descendants."""
    workers = [it for it in psutil.Process().children(recursive=True) if node in it.cmdline()]
    parents = [it for it in workers if it.parent() not in workers]
    return [child.memory_full_info().pss / 1e6 for parent in parents for child in parent.children()]
