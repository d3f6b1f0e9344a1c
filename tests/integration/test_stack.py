"""What `orch up` does when a part of it cannot be started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.local.up import Stack
from orchestrator.settings import load
from tests.git_project import Project


def unstartable(folder: Path, say: Callable[[str, str], None]) -> Stack:
    """A stack whose folder is not there, so that the system starts none of its parts."""
    environ = {"ORCH_STATE_DIR": str(folder / "gone"), "ORCH_REDIS_URL": "redis://127.0.0.1:1"}
    return Stack(load(Project(folder).repo, environ), environ, say=say)


def test_a_part_that_cannot_be_started_is_tried_again_later(tmp_path: Path) -> None:
    """It ends neither the stack nor the other parts, whatever the system says."""
    said: dict[str, list[str]] = {}
    stack = unstartable(tmp_path, lambda name, line: said.setdefault(name, []).append(line))
    stack.check()
    stack.check()

    assert {"beat", "worker", "control", "merges", "flower"} == said.keys()
    assert all("could not be started" in line for lines in said.values() for line in lines)
    assert {2} == {len(lines) for lines in said.values()}
    assert all("starting it again in 1 s" in lines[1] for lines in said.values())


def test_a_terminal_that_takes_no_lines_ends_nothing(tmp_path: Path) -> None:
    """Its reader is gone, or its disk full: each part is seen to all the same."""
    tried: list[str] = []

    def full(name: str, _line: str) -> None:
        tried.append(name)
        raise OSError("No space left on device")

    unstartable(tmp_path, full).check()

    assert {"beat", "worker", "control", "merges", "flower"} == set(tried)
