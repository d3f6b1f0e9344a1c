"""What a process is wired with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

from orchestrator.adapters.redis.password import made_password
from orchestrator.merge_close.events import Delivered
from orchestrator.models import Lease, Worktree
from orchestrator.settings import load
from orchestrator.text import REDACTED
from orchestrator.wiring.merges import MergeWiring
from orchestrator.wiring.project import Wiring
from tests.engine import a_record
from tests.git_project import Project
from tests.support import wait_until


def test_the_state_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else reads what agents printed, which is kept there; whichever part makes the folder first."""
    project = Project(tmp_path)
    for name in ("lock", "worktrees"):
        wiring = Wiring(load(project.repo, {"ORCH_STATE_DIR": str(tmp_path / name)}))
        _ = wiring.workspace if name == "worktrees" else wiring.state("up.lock")

        assert 0o700 == wiring.settings.state_dir.stat().st_mode & 0o777


def test_the_password_of_the_private_redis_is_redacted(tmp_path: Path) -> None:
    """Whatever it looks like, once there is one."""
    settings = load(Project(tmp_path).repo, {"ORCH_STATE_DIR": str(tmp_path / "state")})
    (tmp_path / "state/redis").mkdir(mode=0o700, parents=True)
    password = made_password(tmp_path / "state/redis")

    assert f"AUTH {REDACTED} is refused" == Wiring(settings).redact(f"AUTH {password} is refused")


def test_a_base_in_doubt_closes_nothing(tmp_path: Path, redis_url: str) -> None:
    """A merge in the repo is seen again once a person has said that the base is as it should be."""
    project = Project(tmp_path)
    wiring = Wiring(load(project.repo, {"ORCH_STATE_DIR": str(tmp_path / "state"), "ORCH_REDIS_URL": redis_url}))
    worktree = wiring.workspace.prepare("i-a1b2")
    (worktree.path / "work.py").write_text("x\n")
    commit = wiring.workspace.commit(worktree, "Work\n\nSudocode-Issue: i-a1b2\n").commit
    project.git("merge", "--quiet", "--no-ff", "--no-edit", commit)
    work = [Delivered("i-a1b2", commit, worktree.base)]
    local = MergeWiring(wiring).merge_look.local

    wiring.controls.hold_base("main moved")
    assert [] == list(local(work))
    wiring.controls.resume()
    assert ["i-a1b2"] == [merge.issue_id for merge in local(work)]


def test_a_holder_that_wakes_ends_nothing_of_the_one_that_followed(tmp_path: Path) -> None:
    """It stood still before it ended what an earlier one had left; by then a newer token's verification runs there."""
    project = Project(tmp_path)
    (project.repo / "orch.toml").write_text('[agents.default]\ncommand = ["true"]\n')
    wiring = Wiring(load(project.repo, {"ORCH_STATE_DIR": str(tmp_path / "state")}))
    lease = Lease("i-a1b2", 18, a_record("i-a1b2"))
    worktree = Worktree("i-a1b2", project.repo, "orch/i-a1b2", "HEAD")
    begun = project.repo / "begun"  # in the workspace: a sandbox has its own /tmp
    verify = wiring.tools.verification(lease, Event()).run
    with ThreadPoolExecutor(1) as worker:
        running = worker.submit(verify, ["sh", "-c", f"touch {begun}; exec sleep 60"], worktree, "HEAD")
        wait_until(begun.exists, "it should run")

        assert 0 == wiring.tools.sweep(replace(lease, token=17))
        assert not running.done()
        assert wiring.tools.sweep(lease)
        assert 137 == running.result().exit_code
