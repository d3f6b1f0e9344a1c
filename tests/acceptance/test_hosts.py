"""Two hosts share the work: two clones of one bare repo, each with its own state folder, and one Redis over TCP."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters.redis import connect
from orchestrator.adapters.redis import server as redis_server
from tests.acceptance.project import CELERY, CLEAN, Project, Running
from tests.chaos.parts import family, send
from tests.support import wait_until

WORKER = (*CELERY, "worker", "--without-gossip", "--without-mingle")

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis that is reached by TCP, as from another host."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path)]
    argv = [str(redis_server.find_server()), *place, "--save", ""]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: answers(port), "Redis should listen")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Host:
    """A clone, its state, and the name of its session worker."""

    name: str
    repo: Path
    env: dict[str, str]

    def git(self, *args: str) -> str:
        done = subprocess.run(["git", *args], cwd=self.repo, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def worker(self, project: Project) -> Running:
        """Its session worker, with two slots."""
        return Running(project, (*WORKER, "-Q", "sessions", "-c", "2", "-n", f"sessions@{self.name}"), self.env)


def two_hosts(project: Project, redis_url: str) -> tuple[Host, Host]:
    """The host of the tracker, and one that has nothing but a clone."""
    project.redis = connect(redis_url)
    project.env["ORCH_REDIS_URL"] = redis_url
    one = Host("one", project.repo, {})
    bare, clone = project.folder / "bare.git", project.folder / "clone"
    one.git("clone", "--quiet", "--bare", str(project.repo), str(bare))
    one.git("remote", "add", "origin", str(bare))
    one.git("clone", "--quiet", str(bare), str(clone))
    shutil.copy(project.toml, clone)
    state = {"ORCH_PROJECT_ROOT": str(clone), "ORCH_STATE_DIR": str(project.folder / "state-of-two")}
    return one, Host("two", clone, state)


def test_one_host_finishes_what_another_began(project: Project, redis_url: str) -> None:
    """kill -9 of all of a host's processes in the middle of a step: the other goes on from its pushed commits.

    No finished step is repeated, and a commit has the same id in both clones.
    """
    one, two = two_hosts(project, redis_url)
    issues = [project.file(f"Issue {n}", spec_reviewer=[{"seconds": 6}, {}]) for n in range(4)]
    control = (*WORKER, "-Q", "poll,publish,merge_close", "-c", "1", "-n", "control@one")
    with ExitStack() as running:
        running.enter_context(Running(project, control))
        running.enter_context(Running(project, (*CELERY, "beat", "--pidfile=")))
        doomed = running.enter_context(one.worker(project))
        survivor = running.enter_context(two.worker(project))
        survivor.until(lambda: all(project.asked(issue, "spec_reviewer") for issue in issues), "all should be reviewed")
        begun = {issue for issue in issues if project.holding(issue).owner.startswith("sessions@one/")}
        host = family(doomed)
        send(signal.SIGSTOP, host)  # or a worker would see its agent die, and say so, before it dies itself
        send(signal.SIGKILL, host)
        survivor.until(lambda: project.over(*issues), "the other host should finish all four")

    assert 2 == len(begun)
    for issue in issues:
        assert CLEAN == project.events(issue)
        assert "needs_review" == project.status(issue)
        assert 1 == project.asked(issue)
        assert (2 if issue in begun else 1) == project.asked(issue, "spec_reviewer")
        commit = two.git("rev-parse", f"orch/{issue}")
        pushed = one.git("ls-remote", "origin", f"refs/orch/{issue}").split()[0]
        # What was taken up and only reviewed since has the mark of its new holder on top.
        assert commit == two.git("rev-parse", f"{pushed}^" if issue in begun else pushed)
        if issue in begun:
            assert commit == one.git("rev-parse", f"orch/{issue}")
