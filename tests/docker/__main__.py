"""`make docker-test`: the image, the stack by Compose, and pytest-celery's containers, for real; times are printed.

Where no engine runs, one of its own is started, and ended with everything in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.docker import engine
from tests.docker.containers import IMAGE
from tests.support import ROOT, wait_until

OURS = ("worker", "control", "merges", "beat", "flower", "web")
WATCHING = ("prometheus", "grafana")
PROJECT = "orch-docker-test"
SETTINGS = {"COMPOSE_PROJECT_NAME": PROJECT, "FLOWER_PORT": "0", "WEB_PORT": "0", "PROMETHEUS_PORT": "0"}


def main() -> int:
    """The exit code: 0 when all held."""
    os.environ.update(SETTINGS | {"GRAFANA_PORT": "0"})
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as ours:
            with told("an engine"):
                own = ours.enter_context(engine.running())
            try_all(own)
    except (engine.Missing, AssertionError, subprocess.CalledProcessError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(f"{time.monotonic() - started:6.1f} s  all of it")
    return 0


def try_all(own: bool) -> None:
    """Each stage in turn."""
    with told("the image is built"):
        base = ["--network", "host", "--build-arg", f"PYTHON_IMAGE={engine.BASE}"] if own else []
        engine.docker("build", "--quiet", *base, "--file", "ops/Dockerfile", "--tag", IMAGE, ".")
    stack = Stack(["redis", *OURS] if own else ["redis", *OURS, *WATCHING])
    if own:
        print(f"    skipped: {' and '.join(WATCHING)}, whose images only a registry has")
    try:
        with told("the stack is up by `compose up`"):
            stack.up()
        with told("a killed worker is replaced, its sessions go on"):
            stack.lose_the_worker()
        with told("the demo's issues are through"):
            stack.settle()
        with told("all services are healthy"):
            stack.all_healthy()
        with told("three workers by `--scale worker=3`"):
            stack.scale(3)
        with told("`down` and `up` lose nothing"):
            stack.down_and_up()
    except BaseException:
        print(stack.compose("logs", "--no-color", "--tail", "60"), file=sys.stderr)
        raise
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")
    with told("pytest-celery on real containers"):
        pytest_celery()


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Say how long something took."""
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)


class Stack:
    """docker-compose.yml, on the demo repo."""

    def __init__(self, services: list[str]) -> None:
        self._services = services

    def compose(self, *words: str) -> str:
        """What Compose prints on stdout."""
        command = engine.compose_command() or []
        # Not somebody's .env, which is about their repo.
        done = subprocess.run(
            [*command, "--env-file", ".env.example", *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"compose {' '.join(words)}: {done.stderr}"
        return done.stdout

    def up(self, *options: str) -> None:
        self.compose("up", "--detach", "--no-build", *options, *self._services)
        wait_until(lambda: self.issues(), "the demo's issues should be there", 60)

    def issues(self) -> dict[str, dict[str, Any]]:
        """What `orch status` says, by issue."""
        found = json.loads(self.compose("exec", "-T", "control", "orch", "status", "--json"))
        return {issue["id"]: issue for issue in found["issues"]}

    def running(self) -> dict[str, str]:
        """The sessions under way, by issue."""
        return {name: issue["session_id"] for name, issue in self.issues().items() if issue["state"] == "running"}

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).split()

    def lose_the_worker(self) -> None:
        """kill -9 of all that runs in it."""
        cut_off: dict[str, str] = {}
        wait_until(lambda: cut_off.update(self.running()) or cut_off, "sessions should run", 60)
        (worker,) = self.containers("worker")
        subprocess.run(["docker", "exec", worker, "sh", "-c", "kill -9 -1"], capture_output=True, check=False)
        wait_until(lambda: inspect(worker, "{{.RestartCount}} {{.State.Running}}") == "1 true", "a new one", 60)
        wait_until(lambda: all(self.issues()[name]["verdict"] for name in cut_off), "they should end", 120)
        ended = self.issues()
        assert cut_off == {name: ended[name]["session_id"] for name in cut_off}, "the same sessions should have ended"
        print(f"    {len(cut_off)} sessions were cut off, and ended: {verdicts(ended, cut_off)}")

    def settle(self) -> None:
        """Wait until each issue has had its session, but for those that wait for a person."""
        wait_until(lambda: all(i["verdict"] or i["blockers"] or i["held"] for i in self.issues().values()), "all", 180)
        found = self.issues()
        assert sum(issue["verdict"] == "DONE" for issue in found.values()) >= 3, verdicts(found, found)
        assert all(i["status"] == "needs_review" for i in found.values() if i["verdict"] == "DONE"), found
        print(f"    {verdicts(found, found)}")

    def all_healthy(self) -> None:
        for service in self._services:
            for container in self.containers(service):
                wait_until(partial(self._healthy, container), service, 180)

    @staticmethod
    def _healthy(container: str) -> bool:
        return inspect(container, "{{.State.Health.Status}}") == "healthy"

    def scale(self, count: int) -> None:
        self.up("--scale", f"worker={count}")
        asked = ("exec", "-T", "control", "celery", "-A", "orchestrator", "inspect", "ping", "--timeout", "5")
        wait_until(lambda: self.compose(*asked).count("sessions@") == count, f"{count} workers should answer", 60)

    def down_and_up(self) -> None:
        before = self.issues()
        self.compose("down")
        self.up()
        after = self.issues()
        kept = {name: (issue["verdict"], issue["status"]) for name, issue in before.items() if issue["verdict"]}
        now = {name: (after[name]["verdict"], after[name]["status"]) for name in kept}
        assert kept == now, f"{now} instead of {kept}"


def verdicts(issues: dict[str, dict[str, Any]], names: Any) -> str:
    """How sessions ended, as a person reads it."""
    return ", ".join(f"{name} {issues[name]['verdict'] or issues[name]['status']}" for name in names)


def inspect(container: str, what: str) -> str:
    return engine.docker("inspect", "--format", what, container)


def pytest_celery() -> None:
    """The tests of the ring `docker`; a skipped one has not passed."""
    argv = [sys.executable, "-m", "pytest", "-q", "-m", "docker", "tests/docker"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    last = done.stdout.splitlines()[-1]
    assert re.search(r"^\d+ passed(?!.*skipped)", last), done.stdout
    print(f"    {last}")


if __name__ == "__main__":
    sys.exit(main())
