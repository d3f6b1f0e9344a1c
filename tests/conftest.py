"""Every test has a home of its own, none leaves a process behind, and workers share the files among them."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ENDS_IN_S = 3.0
"""How long a process may take to follow the test that ended it."""

LEFT_BY_WORKERS = pytest.StashKey[list[str]]()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Give `-n auto` two workers per core, as most tests wait for processes of their own.

    None for a single file, as workers take whole files; none for the unit ring, which is over before they have started.
    """
    paths = [Path(arg.partition("::")[0]) for arg in config.args]
    if len(set(paths)) == 1 and paths[0].is_file():
        return 0
    if all("unit" in path.parts for path in paths):
        return 0
    return max(4, 2 * (os.cpu_count() or 1))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal out the rings in turn, file by file, so that workers do not all run whole stacks at the same time."""
    rings: dict[Path, dict[Path, list[pytest.Item]]] = {}
    for item in items:
        rings.setdefault(item.path.parent, {}).setdefault(item.path, []).append(item)
    rounds = itertools.zip_longest(*(files.values() for files in rings.values()), fillvalue=())
    items[:] = [item for files in rounds for file in files for item in file]


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at all that was imported again and again."""
    gc.collect()
    gc.freeze()


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
    """End the processes that a run left behind, name them, and fail the run. A worker leaves the naming to the run."""
    left = _end_what_is_left()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = left
        return
    for line in left + session.config.stash.get(LEFT_BY_WORKERS, []):
        session.config.get_terminal_writer().line(f"\nleft behind: {line}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Note what a worker found left behind; one that crashed found nothing."""
    node.config.stash.setdefault(LEFT_BY_WORKERS, []).extend(getattr(node, "workeroutput", {}).get("left", []))


def _end_what_is_left() -> list[str]:
    """Kill the children of this process that do not end by themselves; gives a line for each."""
    _, left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=ENDS_IN_S)
    lines = []
    for process in left:
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            lines.append(f"process {process.pid}: {' '.join(process.cmdline())}")
            process.kill()
    psutil.wait_procs(left)
    return lines
