"""What `orch up` does when a part of it cannot be started."""

from __future__ import annotations

from pathlib import Path

from orchestrator.settings import load
from orchestrator.stack import Stack
from tests.git_project import Project


def test_a_part_that_cannot_be_started_is_tried_again_later(tmp_path: Path) -> None:
    """It ends neither the stack nor the other parts, whatever the system says: here its folder is not there."""
    environ = {"ORCH_STATE_DIR": str(tmp_path / "gone"), "ORCH_REDIS_URL": "redis://127.0.0.1:1"}
    said: dict[str, list[str]] = {}
    stack = Stack(
        load(Project(tmp_path).repo, environ), environ, say=lambda name, line: said.setdefault(name, []).append(line)
    )
    stack.check()
    stack.check()

    assert {"beat", "worker", "control", "merges", "flower"} == said.keys()
    assert all("could not be started" in line for lines in said.values() for line in lines)
    assert {2} == {len(lines) for lines in said.values()}
    assert all("starting it again in 1 s" in lines[1] for lines in said.values())
