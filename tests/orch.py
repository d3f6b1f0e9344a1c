"""`orch` as a person types it, in a repo and a home that nobody else has: as a process, or faster, in this one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog
from click.testing import CliRunner

from orchestrator import wiring
from orchestrator.adapters.git import create_project
from orchestrator.adapters.process import sandbox
from orchestrator.cli import main
from orchestrator.wiring import merges
from tests.support import ROOT
from tests.tracker_here import trackers_here


class Orch:
    """A repo with one commit on main, and the command line in it. On its PATH is git, and what `install` put there."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.bin = folder / "bin"
        self.state = folder / "state"
        self.bin.mkdir()
        (folder / "home").mkdir()
        git = shutil.which("git")
        assert git, "git must be on PATH"
        (self.bin / "git").symlink_to(git)
        create_project(self.repo, {"Makefile": "test:\n\ttrue\n"})
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(folder / "home"),
            "ORCH_STATE_DIR": str(self.state),
            "PYTHONPATH": str(ROOT),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "GIT_CEILING_DIRECTORIES": str(folder),
        }

    def install(self, name: str, script: str = "#!/bin/sh\necho 1.2.3\n") -> None:
        """Put a program on PATH."""
        program = self.bin / name
        program.write_text(script)
        program.chmod(0o755)

    def start(self, *words: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        """`orch words...`, under way."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.cli", *words],
            cwd=cwd or self.repo,
            env=self.env | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *words: str, cwd: Path | None = None, stdin: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """`orch words...`, run to its end."""
        with self.start(*words, cwd=cwd, **env) as process:
            try:
                out, err = process.communicate(stdin, timeout=60)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def says(self, *words: str, stdin: str = "", **env: str) -> str:
        """What a command prints that does its work without complaint."""
        done = self(*words, cwd=None, stdin=stdin, **env)
        assert (0, "") == (done.returncode, done.stderr), done
        return done.stdout

    def git(self, *words: str) -> str:
        """What git says in the repo."""
        return subprocess.run(["git", *words], cwd=self.repo, capture_output=True, text=True, check=True).stdout


class OrchHere(Orch):
    """The same in this process, for what a process of its own proves nothing about: half a second less per command."""

    def __call__(
        self, *words: str, cwd: Path | None = None, stdin: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """`orch words...`, with no other environment than a process of its own would have."""
        return orch_here(*words, cwd=cwd or self.repo, env=self.env | env, stdin=stdin)


def orch_here(*words: str, cwd: Path, env: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`orch words...` in this process, as if it had been started in that folder and environment.

    Not for a command that leaves something running, as `enqueue` leaves Redis to the next one, or that wakes a worker:
    Celery's app keeps the first project that it sends something for.
    """
    before, logging = dict(os.environ), structlog.get_config()
    try:
        os.environ.clear()
        os.environ.update(env)
        _forget_projects()
        with contextlib.chdir(cwd), trackers_here():
            done = CliRunner(catch_exceptions=False).invoke(main, words, input=stdin, prog_name="orch")
    finally:
        os.environ.clear()
        os.environ.update(before)
        structlog.configure(**logging)
        _forget_projects()
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def _forget_projects() -> None:
    """What a process knows of the project it is in is known once; here, one comes after the other."""
    wiring.here.cache_clear()
    sandbox.why_not.cache_clear()
    sandbox._program.cache_clear()
    merges.here.cache_clear()
