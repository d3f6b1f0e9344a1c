"""Every test has a home of its own, and none leaves a process behind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ENDS_IN_S = 3.0
"""How long a process may take to follow the test that ended it."""


def _move(to: Path, environ: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's user is read or written from now on: no settings, no state, no git identity."""
    to.mkdir(parents=True)
    environ.setenv("HOME", str(to))
    environ.setenv("XDG_STATE_HOME", str(to / "state"))
    environ.setenv("XDG_CONFIG_HOME", str(to / "config"))
    for name in [name for name in os.environ if name.startswith(("ORCH_", "GIT_"))]:
        environ.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Path]]:
    """Homes that nobody has lived in; what is shared by several tests lives in the first."""
    folder = tmp_path_factory.mktemp("homes")
    unused = (folder / str(number) for number in itertools.count())
    with pytest.MonkeyPatch.context() as environ:
        _move(next(unused), environ)
        yield unused


@pytest.fixture(autouse=True)
def home(homes: Iterator[Path]) -> Iterator[Path]:
    """This test's own HOME."""
    mine = next(homes)
    with pytest.MonkeyPatch.context() as environ:
        _move(mine, environ)
        yield mine


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves processes behind has failed; they are named, and ended."""
    _, left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=ENDS_IN_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            line = f"left behind: process {process.pid}: {' '.join(process.cmdline())}"
            process.kill()
            session.config.get_terminal_writer().line(f"\n{line}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    psutil.wait_procs(left)
