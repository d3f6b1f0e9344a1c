"""`orch stop` on a real stack with two session workers: agents in tight loops of processes are gone, their work is not.

The loops end by themselves after a minute, and none has more than ten processes at a time, whatever becomes of a test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from orchestrator.adapters.redis.controls import RedisControls
from tests.acceptance.project import CELERY, CLEAN, GOOD, Project, Running, up
from tests.support import wait_until

ORCH = (sys.executable, "-P", "-m", "orchestrator.cli")
SECOND_WORKER = (*CELERY, "worker", "--without-gossip", "--without-mingle", "-Q", "sessions", "-c", "2", "-n", "at@two")

# Deaf to SIGTERM, and three chains of processes, each of which starts the next one and dies, in a session of its own.
LOOP = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("half.txt", "w").write("half done")
until = float(sys.argv[1])
for chain in range(3):
    if os.fork() == 0:
        while time.time() < until and os.fork() == 0:
            os.setsid()
            time.sleep(0.001)
        os._exit(0)
while time.time() < until:
    time.sleep(0.01)
"""

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Stack:
    """A running stack, and a way to talk to it."""

    project: Project
    up: Running

    def orch(self, *words: str) -> subprocess.Popen[str]:
        """A command, under way."""
        return subprocess.Popen(
            (*ORCH, *words),
            cwd=self.project.repo,
            env=self.project.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self, *words: str) -> str:
        """What a command prints that does its work."""
        with self.orch(*words) as process:
            out, err = process.communicate(timeout=60)
        assert (0, "") == (process.returncode, err)
        return out

    def looping(self, count: int) -> list[str]:
        """So many issues whose agents loop for a minute, at work; asked a second time, they do what they should."""
        loop = {"run": [[sys.executable, "-c", LOOP, str(time.time() + 60)]]}
        issues = [self.project.file(f"Loop {n}", implementer=[loop, GOOD]) for n in range(count)]
        begun = [self.project.worktree(issue) / "half.txt" for issue in issues]
        self.up.until(lambda: all(path.exists() for path in begun), "all agents should loop")
        return issues

    def agents(self) -> list[str]:
        """Every process of an agent, its shim, and what it started."""
        return [line for line in self.project.processes().values() if "--playbook" in line or "half.txt" in line]

    def all_gone(self) -> bool:
        """Whether none is left; three looks, because a chain of processes may slip through one."""
        return not any(self.agents() for _ in range(3))

    def half_done(self, issue: str) -> list[str]:
        """What the refs of an issue's unfinished work have in the file that its agent wrote."""
        refs = self.project.git("for-each-ref", "--format=%(refname)", f"refs/orch/wip/{issue}/").split()
        return [self.project.git("show", f"{ref}:half.txt") for ref in refs]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two workers with two slots each, as on two hosts."""
    with Project(tmp_path_factory.mktemp("stop"), top="concurrency = 2", lease_s=10) as project, up(project) as running:
        running.says("is up")
        with Running(project, SECOND_WORKER):
            running.until(lambda: len(project.leases.workers()) == 2, "both workers should have announced themselves")
            yield Stack(project, running)


def test_stop_all_ends_everything_within_two_seconds(stack: Stack) -> None:
    """Four agents on two workers are gone, their work is on refs, their issues open; `orch resume` finishes them."""
    project = stack.project
    issues = stack.looping(4)
    owners = {project.holding(issue).owner.partition("/")[0] for issue in issues}
    typed = time.time()
    with stack.orch("stop", "--all", "--reason", "fire drill", "--wait", "60") as stop:
        wait_until(stack.all_gone, "no process of an agent should be left", 60)
        gone = time.time()
        out, err = stop.communicate(timeout=60)
        done = time.time()
    paused = RedisControls(project.redis, project.keys).paused()
    assert paused is not None
    recorded = paused.at_ms / 1000
    print("\norch stop --all: 4 agents that fork without end, 2 workers")
    print(f"  from the command to its record in Redis   {recorded - typed:6.2f} s")
    print(f"  from there until no process is left       {gone - recorded:6.2f} s")
    print(f"  the command, with all work kept           {done - typed:6.2f} s\n{out}")

    assert (0, "") == (stop.returncode, err)
    assert 2 == len(owners)
    assert 10 > gone - recorded
    for issue in issues:
        [line] = [line for line in out.splitlines() if line.startswith(f"{issue}: stopped by ")]
        [ref] = project.git("for-each-ref", "--format=%(refname)", f"refs/orch/wip/{issue}/").split()
        assert f"(fire drill); unfinished work is at {ref} in the clone of " in line
        assert ["half done"] == stack.half_done(issue)
    stack.up.until(lambda: project.over(*issues), "the tracker should be told")
    assert ["open"] * 4 == [project.status(issue) for issue in issues]
    assert ["SESSION_START", "SESSION_ERROR"] == project.events(issues[0])
    assert project.told(issues[0])[-1]["failed_items"][0].startswith("stopped by ")

    assert "resumed; it was paused by " in stack.says("resume")
    stack.up.until(
        lambda: all(project.status(issue) == "needs_review" for issue in issues), "all should run to their end", 90
    )


def test_one_stopped_issue_waits_until_it_is_asked_for(stack: Stack) -> None:
    """The other goes on, a second stop is no harm, and `orch enqueue` runs it to its end."""
    project = stack.project
    stopped, other = stack.looping(2)
    [answer] = json.loads(stack.says("stop", stopped, "--json", "--wait", "60"))

    assert (stopped, True) == (answer["issue"], answer["stopped"])
    assert project.processes("half.txt")
    assert "running" == project.holding(other).state

    stack.up.until(lambda: project.status(stopped) == "open", "the tracker should be told")
    again = stack.says("stop", stopped)

    assert f"{stopped}: nothing runs it; it waits for `orch enqueue {stopped}`\n" == again

    assert f"{stopped}: it is running\n" == stack.says("enqueue", stopped, "--wait", "60")
    stack.up.until(lambda: project.status(stopped) == "needs_review", "it should run to its end")
    stack.says("stop", other, "--wait", "60")
    wait_until(stack.all_gone, "no process of an agent should be left", 60)


def test_the_session_of_a_frozen_worker_is_ended_by_another(stack: Stack) -> None:
    """When its lease is over: its agents are ended, their work is kept, and when it wakes it writes nothing."""
    project = stack.project
    [issue] = stack.looping(1)
    worker = int(project.holding(issue).owner.rpartition("/")[2])
    os.kill(worker, signal.SIGSTOP)
    try:
        project.leases.stop(issue, "stopped by anna@here", hold=True)
        stack.up.until(lambda: project.holding(issue).state == "ended", "another worker should end it")
        wait_until(stack.all_gone, "no process of an agent should be left", 60)
        kept = stack.half_done(issue)
    finally:
        os.kill(worker, signal.SIGCONT)

    assert ["half done"] == kept
    stack.up.until(lambda: project.status(issue) == "open", "the tracker should be told")
    assert ["SESSION_START", "SESSION_ERROR"] == project.events(issue)


def test_a_starting_worker_leaves_running_sessions_alone(stack: Stack) -> None:
    """Whoever starts beside a worker touches none of its agents."""
    project = stack.project
    issue = project.file("Long", implementer=[GOOD | {"seconds": 6}])
    stack.up.until(lambda: project.asked(issue), "it should be worked on")
    with Running(project, [*CELERY, "worker", "-Q", "sessions", "-n", "third@%h"]) as third:
        third.until(lambda: len(project.leases.workers()) == 3, "the third one should be announced")
        stack.up.until(lambda: CLEAN == project.events(issue), "it should have been done, in one session")

        assert 1 == project.asked(issue)
        assert [] == third.lines("orphans_ended")


def test_a_stop_that_meets_nothing_says_so(stack: Stack) -> None:
    """One line and exit code 1; without issues and without --all it is misuse."""
    with stack.orch("stop", "i-zzzz") as idle, stack.orch("stop") as misused:
        said = idle.communicate(timeout=60)
        misused.communicate(timeout=60)

    assert (1, ("", "i-zzzz: nothing runs it; `orch status` shows what does run\n")) == (idle.returncode, said)
    assert 2 == misused.returncode
