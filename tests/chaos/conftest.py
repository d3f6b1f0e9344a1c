"""A stack in parts, whole again before each test, and the table of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.project import Project
from tests.chaos.parts import LEASE_S, POLL_S, Measured, Parts, once


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """A project and its stack in parts, for one file: idle, they would take the CPU from the files that follow.

    The verification of L1 hangs in its first run, that of L0 waits at a gate.
    """
    folder = tmp_path_factory.mktemp("faults")
    hang_once = 'echo run >> "$0"; test $(wc -l < "$0") -gt 1 || exec sleep 600; test -s work.txt'
    verify = f"L1 = {['sh', '-c', hang_once, str(folder / 'verifications')]}\nL0 = {once(folder / 'verification')}"
    with Project(folder, verify=verify, lease_s=LEASE_S, poll_s=POLL_S) as project, Parts(project) as parts:
        yield parts


@pytest.fixture
def stack(parts: Parts) -> Parts:
    """The same, with everything up that an earlier test broke."""
    parts.mend()
    return parts


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Puts a fault and what it cost into the table at the end of the run."""
    return lambda fault, cost: record_property("measured", (fault, cost))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table."""
    reports = [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]
    rows = [row for report in reports for name, row in report.user_properties if name == "measured"]
    if rows:
        width = max(len(fault) for fault, _ in rows)
        terminalreporter.section(f"faults, with leases of {LEASE_S:g} s")
        for fault, cost in rows:
            terminalreporter.line(f"{fault:<{width}}  {cost}")
