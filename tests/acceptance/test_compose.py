"""docker-compose.yml where there is no engine: what it says, and its services run as processes of this machine.

`make docker-test` runs it for real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM
from typing import Any

import jsonschema
import pytest
import redis

from orchestrator.adapters.redis import server as redis_server
from orchestrator.local.programs import program
from tests import compose
from tests.docker.processes import free_port
from tests.support import ROOT, wait_until

OURS = ("worker", "control", "merges", "beat", "flower", "web")
SERVICES: dict[str, dict[str, Any]] = compose.document()["services"]
DOCKERFILE = (ROOT / "ops/Dockerfile").read_text()

pytestmark = pytest.mark.timeout(240)


def test_the_specification_takes_the_file() -> None:
    """No misspelt key, no value of the wrong kind."""
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    valid = jsonschema.Draft7Validator(schema).is_valid

    assert valid(compose.document())
    assert not valid({"services": {"web": {"imagee": "x"}}})


def test_every_variable_has_its_example() -> None:
    """And the example names none that nobody asks for."""
    named = re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)

    assert sorted(compose.variables()) == sorted(named)


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_reaches_a_service(name: str) -> None:
    """Ports are those of the loopback address, and what is scaled has neither a port nor a name of its own."""
    ports = SERVICES[name].get("ports", [])

    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "container_name" not in SERVICES[name]
    assert name in ("flower", "web", "prometheus", "grafana") or not ports


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"init"}))
def test_a_service_is_looked_after(name: str) -> None:
    """It is started again, and says whether it is well."""
    assert "unless-stopped" == SERVICES[name]["restart"]
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"init", *OURS}))
def test_an_image_of_others_is_pinned(name: str) -> None:
    """Tomorrow's `latest` is not what was tried."""
    assert re.search(r":v?\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", ["worker", "control", "merges"])
def test_a_worker_is_the_one_of_the_table(name: str) -> None:
    """Its queues, its name and how much it does at once are those of every other way to run it."""
    _, *command = program(name).command(slots=4)

    assert command == [*SERVICES[name]["command"], "--loglevel", "warning"]


@pytest.mark.parametrize("name", OURS)
def test_a_service_has_no_secret_that_is_kept_from_it(name: str) -> None:
    """The container of the agents does not have what opens GitHub, nor Flower."""
    hidden = program(name).hidden

    assert [] == [key for key in SERVICES[name]["environment"] if hidden and key.startswith(hidden)]


@pytest.mark.skipif(not shutil.which("hadolint", path=Path(sys.executable).parent), reason="hadolint is not installed")
def test_the_dockerfile_has_no_known_flaw() -> None:
    """hadolint finds nothing: the base is pinned, lists are cleaned up, commands are argv lists."""
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, ROOT / "ops/Dockerfile"], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stdout)


def test_the_image_runs_as_nobody_special() -> None:
    """And it holds only what is listed."""
    users = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)

    assert ["1000:1000"] == users
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def test_a_folder_without_a_repo_is_refused(tmp_path: Path) -> None:
    """Compose makes a folder of what is misspelt: no demo is made in that."""
    owner = f"{os.getuid()}:{os.getgid()}"
    places = {"ORCH_PROJECT_ROOT": str(tmp_path), "ORCH_STATE_DIR": str(tmp_path), "HOME": str(tmp_path)}
    argv = [sys.executable, str(ROOT / "ops/docker-init.py"), owner, "/home/me/misspelt"]
    done = subprocess.run(argv, env=os.environ | places, capture_output=True, text=True, check=False)

    assert (1, "/home/me/misspelt is no git repo; correct ORCH_REPO in .env\n") == (done.returncode, done.stderr)
    assert [] == list(tmp_path.iterdir())


class Stack:
    """The services as processes, in the order in which they depend on each other."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        places = {
            "/usr/local/lib/docker-init.py": str(ROOT / "ops/docker-init.py"),
            "/var/lib/orch": str(folder / "state"),
            "/repo": str(folder / "repo"),
            "@redis:6379": f"@127.0.0.1:{self.port}",
            "0.0.0.0": "127.0.0.1",
            "5555": str(free_port()),
            "8080": str(free_port()),
        }
        owner = {"UID": str(os.getuid()), "GID": str(os.getgid()), "REDIS_PASSWORD": "swordfish"}
        self.services = compose.document(owner, places)["services"]
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "orch").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m orchestrator.cli "$@"\n')
        (bin_folder / "orch").chmod(0o755)
        self._image_env = {
            "PATH": f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder / "state" / "home"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "HOSTNAME": socket.gethostname(),
        }
        (folder / "state").mkdir()

    def env(self, name: str) -> dict[str, str]:
        """A service's environment, as in its container."""
        given = self.services[name]["environment"]
        return self._image_env | {key: value for key, value in given.items() if value is not None}

    def start(self, name: str, argv: list[str] | None = None) -> subprocess.Popen[bytes]:
        """Run its command."""
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                argv or self.services[name]["command"],
                cwd=self._folder / "state",
                env=self.env(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes[name] = process
        return process

    def run(self, name: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """As `docker compose exec` does."""
        return subprocess.run(
            argv, cwd=self._folder / "state", env=self.env(name), capture_output=True, text=True, check=False
        )

    def healthy(self, name: str) -> bool:
        """Whether its health check says yes."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        return self.run(name, *(["sh", "-c", *words] if kind == "CMD-SHELL" else words)).returncode == 0

    def issues(self) -> list[dict[str, Any]]:
        """The demo's issues."""
        found: list[dict[str, Any]] = json.loads(self.run("control", "orch", "status", "--json").stdout)["issues"]
        return found

    def stop(self) -> dict[str, int]:
        """As `docker compose down` does; exit codes by name."""
        running, self._processes = self._processes, {}
        order = sorted(running, key=lambda name: name == "redis")
        for name in order[:-1]:
            running[name].terminate()
        codes = {name: running[name].wait(60) for name in order[:-1]}
        running["redis"].terminate()
        return codes | {"redis": running["redis"].wait(60)}

    def kill(self) -> None:
        """Whatever still runs."""
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All of ours, and a Redis with a password, on the demo repo."""
    stack = Stack(tmp_path_factory.mktemp("compose"))
    with ExitStack() as cleanup:
        cleanup.callback(stack.kill)
        _, *options = stack.services["redis"]["command"]
        place = ["--port", str(stack.port), "--bind", "127.0.0.1", "--dir", str(stack._folder)]
        stack.start("redis", [str(redis_server.find_server()), *options, *place])
        assert 0 == stack.start("init").wait(60)
        for name in OURS:
            stack.start(name)
        yield stack


def test_redis_wants_its_password(stack: Stack) -> None:
    """Whoever does not have it is refused."""
    with redis.Redis(port=stack.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_healthy(stack: Stack, name: str) -> None:
    """Its own health check says so."""
    wait_until(lambda: stack.healthy(name), f"{name} should be healthy", 60)

    assert stack._processes[name].poll() is None


def test_the_demo_runs(stack: Stack) -> None:
    """An issue that the one-shot service filed ends in needs_review."""
    wait_until(
        lambda: any(issue["verdict"] == "DONE" and issue["status"] == "needs_review" for issue in stack.issues()),
        "an issue should be done",
        120,
    )


def test_a_stopped_service_is_not_healthy(stack: Stack) -> None:
    """All of them end by a SIGTERM within the time that Compose gives them, and their health checks notice."""
    assert {0, -SIGTERM} >= set(stack.stop().values())
    assert not stack.healthy("worker")
    assert not stack.healthy("web")
