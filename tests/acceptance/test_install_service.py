"""`orch install-service`: what it writes, what systemd thinks of that, and whether it runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import stat
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import pytest

from orchestrator.adapters.redis import server as redis_server
from orchestrator.local.programs import PROGRAMS
from orchestrator.local.units import Units, escaped, quoted
from tests.acceptance.project import CLEAN, GOOD, Project, Running
from tests.support import ROOT

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")

ORCH = (sys.executable, "-P", "-m", "orchestrator.cli")
AWKWARD = "50% of ü b"

MOST_EXPOSED = {"system": 3.0, "user": 7.0}
"""On systemd's scale from 0 to 10. A user's manager can take less away: no file systems, no capabilities."""
MOST_EXPOSED_WORKER = {"system": 4.5, "user": 8.0}
"""The worker runs programs of the user's choice: they need the network, and may have sandboxes of their own."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A repo at a path that needs care."""
    folder = tmp_path_factory.mktemp("services") / AWKWARD / "night"
    folder.mkdir(parents=True)
    with Project(folder) as project:
        yield project


@dataclass(frozen=True)
class Installed:
    """What was written for a repo, in a home of its own."""

    units: Path
    environment: Path
    said: str

    def unit(self, program: str) -> str:
        """The text of a program's unit."""
        (path,) = self.units.glob(f"sudocode-{program}@*.service")
        return path.read_text("utf-8")

    def variables(self) -> dict[str, str]:
        """The environment file as systemd reads it."""
        words = shlex.split(self.environment.read_text("utf-8"), comments=True)
        return dict(word.split("=", 1) for word in words)

    def started(self, program: str, environ: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        """A program's command line and environment as systemd would have them."""
        unit = self.unit(program)
        (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
        unset = re.findall(r"^UnsetEnvironment=(.*)$", unit, re.MULTILINE)
        known = {name: value for name, value in environ.items() if name not in " ".join(unset).split()}
        words = shlex.split(line.replace("%%", "%"))
        return [string.Template(word).substitute(known) for word in words], known


def install(project: Project, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ORCH, "install-service", *words], env=project.env | env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def installed(project: Project) -> Installed:
    """The services of the project, and two free ports."""
    done = install(project, ORCH_GITHUB_TOKEN='a "token" of $5')
    assert 0 == done.returncode, done.stderr
    config = project.folder / "home/.config"
    (environment,) = (config / "sudocode-orchestrator").glob("*.env")
    text = environment.read_text("utf-8")
    for port in ("8080", "5555"):
        text = text.replace(f'"{port}"', f'"{free_port()}"')
    environment.write_text(text, "utf-8")
    return Installed(config / "systemd/user", environment, done.stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_environment_is_kept_to_its_user(project: Project, installed: Installed) -> None:
    """It has what services cannot know, whatever is in it; nobody else may read it, and it is never written again."""
    variables = installed.variables()
    again = install(project, ORCH_GITHUB_TOKEN="another")
    token = installed.environment.with_suffix("") / "ORCH_GITHUB_TOKEN"

    assert {
        "ORCH_PROJECT_ROOT": str(project.repo),
        "ORCH_STATE_DIR": str(project.state),
        "ORCH_GITHUB_TOKEN_FILE": str(token),
        "ORCH_GITHUB_WEBHOOK_SECRET_FILE": "",
        "PATH": project.env["PATH"],
    }.items() <= variables.items()
    assert ('a "token" of $5\n', 0o600) == (token.read_text(), stat.S_IMODE(token.stat().st_mode))
    assert 0o600 == stat.S_IMODE(installed.environment.stat().st_mode)
    assert variables == installed.variables()
    assert f"kept {installed.environment}" == again.stdout.splitlines()[0]


def test_cut_off_it_is_done_again(tmp_path: Path) -> None:
    """Without room for a secret there is no environment either that names its file; the next time has both."""
    with Project(tmp_path / "cut-off") as project:
        config = project.folder / "home/.config/sudocode-orchestrator"
        token = config / _instance(project) / "ORCH_GITHUB_TOKEN"
        config.mkdir(parents=True)
        token.parent.write_text("in the way")
        first = install(project, ORCH_GITHUB_TOKEN="one")
        assert (1, []) == (first.returncode, list(config.glob("*.env")))
        token.parent.unlink()

        assert 0 == install(project, ORCH_GITHUB_TOKEN="one").returncode
        assert "one\n" == token.read_text()
        assert f'ORCH_GITHUB_TOKEN_FILE="{token}"' in next(config.glob("*.env")).read_text()


def _instance(project: Project) -> str:
    """The name of the project's services."""
    (name,) = re.findall(r"^# .*/sudocode-worker@(.+)\.service$", install(project, "--dry-run").stdout, re.MULTILINE)
    return str(name)


def test_what_to_type_is_said(installed: Installed) -> None:
    """How to start, to see and to stop them; and plainly, when there is no systemd."""
    (target,) = installed.units.glob("*.target")

    for command in ("enable --now", "disable --now"):
        assert f"systemctl --user {command} {target.name}" in installed.said
    assert "systemctl --user status 'sudocode-*@night-" in installed.said


def test_two_repos_do_not_meet(project: Project, installed: Installed, tmp_path: Path) -> None:
    """Another repo of the same name, of the same user, has other units and other ports."""
    with Project(tmp_path / "night") as other:
        done = install(other, HOME=project.env["HOME"])
        files = {line.removeprefix("wrote ") for line in done.stdout.splitlines() if line.startswith("wrote ")}
        (environment,) = (Path(name) for name in files if name.endswith(".env"))
        ports = re.findall(r"^.*_PORT=.*$", environment.read_text("utf-8"), re.MULTILINE)
        removed = install(other, "--remove", HOME=project.env["HOME"])

    assert len(PROGRAMS) + 2 == len(files)
    assert set() == set(ports) & set(installed.environment.read_text("utf-8").splitlines())
    assert len(PROGRAMS) + 1 == removed.stdout.count("removed ")
    assert environment.exists()
    assert list(installed.units.iterdir())


def test_dry_run_writes_nothing_and_shows_no_secret(project: Project, tmp_path: Path) -> None:
    """All of it is printed, for the whole machine too."""
    done = install(project, "--dry-run", "--system", HOME=str(tmp_path), ORCH_GITHUB_TOKEN="s3cret")

    assert len(PROGRAMS) + 1 == done.stdout.count("# /etc/systemd/system/sudocode-")
    assert "s3cret" not in done.stdout
    assert f"User={project.repo.owner()}\n" in done.stdout
    assert [] == list(tmp_path.iterdir())


def written(folder: Path, scope: str) -> list[Path]:
    """The units of a repo whose paths need care."""
    python = folder / AWKWARD / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    user = folder.owner() if scope == "system" else None
    environment = escaped(str(folder / AWKWARD / "night.env"))
    paths = []
    for name, text in Units("night-1a2b3c4d", quoted(str(python)), environment, user).files():
        paths.append(folder / name)
        paths[-1].write_text(text, "utf-8")
    return paths


@needs_systemd
@pytest.mark.parametrize("scope", ["system", "user"])
def test_systemd_takes_the_units(scope: str, tmp_path: Path) -> None:
    """Without a warning: no misspelt option, and their programs can be run."""
    done = subprocess.run(
        ["systemd-analyze", f"--{scope}", "verify", *written(tmp_path, scope)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


@needs_systemd
@pytest.mark.parametrize("scope", ["system", "user"])
def test_units_are_not_more_exposed_than_need_be(scope: str, tmp_path: Path) -> None:
    """By systemd's own score."""
    for path in written(tmp_path, scope):
        if path.suffix == ".service":
            most = (MOST_EXPOSED_WORKER if "worker" in path.name else MOST_EXPOSED)[scope]
            options = ["--offline=true", f"--threshold={most * 10:g}", "--no-pager"]
            argv = ["systemd-analyze", "security", *options, str(path)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)

            assert 0 == done.returncode, done.stdout[-200:] + done.stderr


@pytest.mark.timeout(180)
def test_every_service_runs_and_stops(project: Project, installed: Installed, tmp_path: Path) -> None:
    """As systemd would start them, with nothing in their environment but what they were given: an issue is done, and
    SIGTERM ends each; the worker hands over the session that it is in.
    """
    environ = installed.variables() | {"HOME": project.env["HOME"], "PYTHONPATH": str(ROOT)}
    short, notified = project.file("Short"), tmp_path / "notify"
    with ExitStack() as services, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(notified))
        notify.settimeout(60)

        def start(name: str, **env: str) -> Running:
            argv, project.env = installed.started(name, environ | env)
            return services.enter_context(Running(project, argv))

        running = {"redis": start("redis", NOTIFY_SOCKET=str(notified))}
        assert b"READY=1" == notify.recv(64)
        running |= {it.name: start(it.name) for it in PROGRAMS if it.name != "redis"}
        worker = running["worker"]
        assert b"ORCH_GITHUB_TOKEN" not in Path(f"/proc/{worker.process.pid}/environ").read_bytes()

        worker.until(lambda: project.over(short), "the issue should have been done")
        assert CLEAN == project.events(short)
        for name, path, code in (("web", "/healthz", 200), ("flower", "/api/workers", 401)):
            url = f"http://127.0.0.1:{environ[f'{name.upper()}_PORT']}{path}"
            running[name].until(partial(answers, url, code), f"{url} should answer {code}")

        long = project.file("Long", implementer=[GOOD | {"seconds": 3}], spec_reviewer=[{"seconds": 60}])
        worker.until(lambda: project.asked(long), "the long one should be at work")
        # As systemd does it: all at once, and last what they came after. What dies of the signal has ended cleanly.
        for name in running.keys() - {"redis"}:
            running[name].process.terminate()
        ended = {name: running[name].ends() for name in running.keys() - {"redis"}}
        ended["redis"] = running["redis"].ends(signal.SIGTERM)
        assert {} == {name: code for name, code in ended.items() if code not in (0, -signal.SIGTERM)}
        assert 1 == len(worker.lines("session_left", long))
    assert redis_server.find(project.state) is None
    assert project.is_down()


def answers(url: str, status: int) -> bool:
    """Whether it answers, and so."""
    try:
        return httpx2.get(url).status_code == status
    except httpx2.TransportError:
        return False
