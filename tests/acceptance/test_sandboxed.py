"""Sessions in the sandbox, from claim to verdict, and a worker that must have one where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.process import sandbox
from tests.acceptance.project import CELERY, Project, Running, up

pytestmark = pytest.mark.timeout(300)
NO_BOX = sandbox.why_not()

GETS_OUT = 'echo > "$0/../repo/left" && echo > "$0/escaped"; test -e "$0/../state/r.sock" && touch escaped'


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Its verification fails where an agent left anything, or where it finds our state itself."""
    check = ["sh", "-c", f"test -s work.txt && ! test -e escaped && ! test -e {tmp_path}/p/state/r.sock"]
    with Project(tmp_path / "p", sandbox="bubblewrap", verify=f"L1 = {json.dumps(check)}") as project:
        text = project.toml.read_text()
        project.toml.write_text(text.replace("[agents]", f"[agents]\nwrite = [{json.dumps(str(project.playbooks))}]"))
        yield project


@pytest.mark.skipif(bool(NO_BOX), reason=f"no sandbox: {NO_BOX}")
def test_a_session_in_the_sandbox(project: Project) -> None:
    """It comes to DONE by the same steps, and what its agents tried beside their work came to nothing."""
    tries = [["sh", "-c", GETS_OUT, str(project.playbooks)]]
    review = {"checks": [{"item": "it can be read", "run": ["cat", "work.txt"], "fix": "write it"}]}
    issue = project.file(
        "Boxed",
        verify="L1",
        implementer=[{"write": {"work.txt": "done\n"}, "run": tries}],
        spec_reviewer=[review],
        quality_reviewer=[review],
    )
    with up(project) as stack:
        stack.says("is up")
        stack.until(lambda: project.over(issue), "it should be done")

        assert "needs_review" == project.status(issue), project.feedback(issue)
        assert {"README.md": "# Somebody's project", "work.txt": "done"} == project.files(issue)
        assert not (project.repo / "left").exists()


def test_a_worker_without_the_sandbox_that_it_must_have(project: Project, tmp_path: Path) -> None:
    """It ends with a line that says why, and claims nothing: that is no issue's fault."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "git").symlink_to(str(shutil.which("git")))
    with Running(project, [*CELERY, "worker", "-Q", "sessions", "-c", "1"], {"PATH": str(tools)}) as worker:
        assert 1 == worker.ends()
        assert worker.lines("no_sessions_here", "bubblewrap is not installed")
