"""Flower beside a running stack: who may see it, what it shows, and what it remembers."""

from __future__ import annotations

import json
import re
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from tests.acceptance.project import CELERY, GOOD, Project, Running, kill, parent

pytestmark = pytest.mark.timeout(180)

ORCH_UP = (sys.executable, "-P", "-m", "orchestrator.cli", "up")
QUEUES = {"merge_close", "poll", "publish", "sessions"}


@dataclass(frozen=True)
class Flower:
    """A project's Flower, as its user sees it."""

    project: Project
    stack: Running
    url: str
    password: str

    def asks(self, path: str) -> httpx2.Response:
        return httpx2.get(f"{self.url}{path}", auth=("orch", self.password))

    def tasks(self) -> dict[str, dict[str, object]]:
        """What it knows, by task id; nothing while it does not answer."""
        try:
            return dict(json.loads(self.asks("/api/tasks").text))
        except httpx2.TransportError:
            return {}

    def of(self, issue: str) -> dict[str, object]:
        """The task of an issue's session."""
        return next((task for name, task in self.tasks().items() if name.startswith(f"{issue}.")), {})

    def workers(self) -> dict[str, bool]:
        """Whether each worker lives, by the first half of its name."""
        found = json.loads(self.asks("/api/workers?status=1").text)
        return {name.partition("@")[0]: alive for name, alive in found.items()}


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """`orch up`, as it comes, at a path that needs care."""
    folder = tmp_path_factory.mktemp("flower") / "50% of ü" / "flower"
    folder.mkdir(parents=True)
    with Project(folder) as project, Running(project, ORCH_UP) as stack:
        stack.says("is up")
        (line,) = stack.lines("is up")
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert url, line
        found = Flower(project, stack, url[0], (project.state / "flower-password").read_text().strip())
        stack.until(lambda: "sessions" in found.workers(), "Flower should know the worker")
        yield found


def test_only_its_user_may_look(flower: Flower) -> None:
    """No page and no call without the password; that is in a file of the user's, whose place `orch up` prints."""
    kept = flower.project.state / "flower-password"

    assert [401] * 4 == [
        httpx2.get(f"{flower.url}{path}").status_code for path in ("/", "/tasks", "/broker", "/api/tasks")
    ]
    assert 401 == httpx2.get(f"{flower.url}/api/tasks", auth=("orch", "")).status_code
    assert 200 == flower.asks("/api/tasks").status_code
    assert 0o600 == stat.S_IMODE(kept.stat().st_mode)
    assert flower.stack.lines("is up", f"user orch, password in {kept}")
    assert flower.password not in flower.stack.printed + str(flower.project.processes())


def test_a_task_is_known_by_its_issue(flower: Flower) -> None:
    """By its id, and by its arguments."""
    issue = flower.project.file("Work")
    flower.stack.until(lambda: flower.of(issue).get("state") == "SUCCESS", "the session should be shown as done")

    assert "tasks.session.run_issue_session" == flower.of(issue)["name"]
    assert f"('{issue}',)" == flower.of(issue)["args"]


def test_the_queues_are_shown(flower: Flower) -> None:
    """Whatever this project's keys in Redis are called. Flower asks the workers when it starts, and when told to."""

    def asked() -> bool:
        flower.asks("/api/workers?refresh=1")
        return all(queue in flower.asks("/api/queues/length").text for queue in QUEUES)

    flower.stack.until(asked, "all workers should have told Flower what they serve")
    queues = flower.asks("/api/queues/length").json()["active_queues"]

    assert QUEUES == {queue["name"] for queue in queues}


def test_a_dead_worker_is_shown_as_gone(flower: Flower) -> None:
    """Killed, so that it could not say goodbye."""
    with Running(flower.project, [*CELERY, "worker", "-Q", "sessions", "-c", "1", "-n", "second@%h"]) as second:
        second.until(lambda: flower.workers().get("second"), "Flower should see it alive")
        kill(second.process.pid)
        flower.stack.until(lambda: flower.workers().get("second") is False, "Flower should show it as gone")

        assert flower.workers()["sessions"]


def test_a_restart_keeps_what_was_seen(flower: Flower) -> None:
    """Flower ends and is started again, and still knows the session from before."""
    issue = flower.project.file("Before", implementer=[GOOD])
    flower.stack.until(lambda: flower.of(issue).get("state") == "SUCCESS", "the session should be shown as done")
    before = flower.of(issue)
    (pid,) = (pid for pid in flower.project.processes("orchestrator flower") if parent(pid) == flower.stack.process.pid)
    kill(pid, signal.SIGTERM)
    flower.stack.says("flower ended with code 0")
    flower.stack.until(flower.tasks, "Flower should answer again")

    assert before == flower.of(issue)
