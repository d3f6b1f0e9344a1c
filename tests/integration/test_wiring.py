"""What a process is wired with."""

from __future__ import annotations

from pathlib import Path

from orchestrator.settings import load
from orchestrator.wiring.project import Wiring
from tests.git_project import Project


def test_the_state_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else reads what agents printed, which is kept there unredacted; whichever part makes the folder first."""
    project = Project(tmp_path)
    for name in ("lock", "worktrees"):
        wiring = Wiring(load(project.repo, {"ORCH_STATE_DIR": str(tmp_path / name)}))
        _ = wiring.workspace if name == "worktrees" else wiring.state("up.lock")

        assert 0o700 == wiring.settings.state_dir.stat().st_mode & 0o777
