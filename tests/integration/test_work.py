"""Going on with a session in a clone of its own: what was recorded elsewhere must be here, or the error says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import WorkspaceError
from orchestrator.models import Lease, Progress, Stage, Step
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session.steps import SessionTools, WorktreeSteps
from tests.engine import Engine
from tests.git_project import Project
from tests.support import noon


def never(*_: object) -> None:
    raise AssertionError("no agent and no verification should have been asked for")


def steps(project: Project, engine: Engine, lease: Lease) -> WorktreeSteps:
    """A session's steps, of which none may get as far as an agent."""
    workspace = project.workspace()
    keeper = LeaseKeeper(engine.leases, lease, lease_s=30, stopping=lambda: False, grace_s=0)
    tools = SessionTools(
        workspace=workspace,
        remote=lambda lease: workspace.remote(lease, host="here"),
        transport=never,  # type: ignore[arg-type]
        verification=never,  # type: ignore[arg-type]
        verify_command=never,
        prompt_template=lambda: "",
        sweep=lambda _lease: None,
        now=noon,
    )
    return WorktreeSteps(lease, tools, keeper)


def test_work_that_only_another_host_has_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    """Neither this clone nor its remote has the recorded commit: the error says who has it, and what to do."""
    monkeypatch.setenv("HOME", str(tmp_path))
    engine.slots(1)
    engine.opened("i-a1b2")
    engine.acquired("i-a1b2", owner="sessions@there/7")
    engine.fall_silent("i-a1b2")
    lease = engine.acquired("i-a1b2", owner="sessions@here/8")
    progress = Progress(stage=Stage.RUNNING, commit="c0ffee" + "0" * 34)

    expected = (
        "^i-a1b2: its work so far, commit c0ffee000000, is neither in this clone nor on its remote; the clone of "
        "sessions@there/7 has it: fetch branch orch/i-a1b2 from there, then `orch enqueue i-a1b2`$"
    )
    with pytest.raises(WorkspaceError, match=expected):
        steps(Project(tmp_path), engine, lease)(Step(Stage.SPEC_REVIEW), progress)
