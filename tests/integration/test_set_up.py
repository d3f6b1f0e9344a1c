"""Setting a checkout up: what is copied from the main one, what is run, and in what order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.adapters.agents.set_up import CheckoutSetUp
from orchestrator.adapters.agents.verify import CommandVerifier
from orchestrator.adapters.process.foreign import Bounds
from orchestrator.errors import WorkspaceError
from orchestrator.models import Worktree
from tests.git_project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose main checkout has ignored files, an untracked one, and a tracked one that was changed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    project = Project(tmp_path)
    for name in (".env.cache", "config/local.cache", "config/new.txt", "README.md"):
        path = project.repo / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"main's {name}\n")
    return project


@pytest.fixture
def checkout(tmp_path: Path) -> Worktree:
    """A checkout to be set up: it has README.md."""
    path = tmp_path / "checkout"
    path.mkdir()
    (path / "README.md").write_text("the commit's\n")
    return Worktree("i-abc", path, "", "c0ffee")


def set_up(
    project: Project,
    *commands: Sequence[str],
    copy: Sequence[str] = (),
    wall_s: float = 20,
) -> CheckoutSetUp:
    """The set-up of a project's checkouts."""
    run = CommandVerifier(
        logs=project.repo.parent / "logs",
        bounds=Bounds(wall_s),
        env={"PATH": "/usr/bin:/bin"},
        redact=str,
        cancel=None,
        what="set-up",
    )
    return CheckoutSetUp(project.repo, copy, commands, run)


def test_commands_run_in_order_in_the_checkout(project: Project, checkout: Worktree) -> None:
    """All is well: there is nothing to show for it but what they made, and a log of each."""
    write = ("sh", "-c", "pwd > here; echo made")
    read = ("sh", "-c", "cp here there")

    assert set_up(project, write, read)(checkout, "c0ffee") is None
    assert f"{checkout.path}\n" == (checkout.path / "there").read_text()
    assert ["1-set-up.log", "2-set-up.log"] == sorted(path.name for path in (project.repo.parent / "logs").iterdir())


def test_the_first_command_that_fails_is_the_evidence(project: Project, checkout: Worktree) -> None:
    """Those after it are not run."""
    failed = set_up(project, ("sh", "-c", "echo no such package; exit 3"), ("touch", "after"))(checkout, "c0ffee")

    assert failed is not None
    assert (3, "no such package\n", True) == (failed.exit_code, failed.output, failed.set_up)
    assert "this is the set-up; the verification was not run" in failed.remarks
    assert not (checkout.path / "after").exists()


def test_a_set_up_has_a_time_limit(project: Project, checkout: Worktree) -> None:
    """Over it, it failed, and the output says why."""
    failed = set_up(project, ("sleep", "60"), wall_s=0.3)(checkout, "c0ffee")

    assert failed is not None
    assert (124, "\norch: ended after 0.3 s, the time limit of a set-up\n") == (failed.exit_code, failed.output)


def test_ignored_files_are_brought_along(project: Project, checkout: Worktree) -> None:
    """Before the commands run, with their folders; neither tracked nor untracked ones."""
    read = ("sh", "-c", "cat .env.cache config/local.cache > read")

    assert set_up(project, read, copy=["*.cache", "config", "README.md"])(checkout, "c0ffee") is None
    assert "main's .env.cache\nmain's config/local.cache\n" == (checkout.path / "read").read_text()
    assert "the commit's\n" == (checkout.path / "README.md").read_text()
    assert not (checkout.path / "config/new.txt").exists()


def test_nothing_is_copied_over_a_file_of_the_commit(project: Project, checkout: Worktree) -> None:
    """What the commit has is what is verified."""
    (checkout.path / ".env.cache").write_text("the commit's\n")
    set_up(project, copy=[".env.cache"])(checkout, "c0ffee")

    assert "the commit's\n" == (checkout.path / ".env.cache").read_text()


def test_nothing_is_copied_out_of_the_checkout(project: Project, checkout: Worktree, tmp_path: Path) -> None:
    """A commit may have a link where the main checkout has a folder."""
    (checkout.path / "config").symlink_to(tmp_path)
    set_up(project, copy=["*.cache"])(checkout, "c0ffee")

    assert not (tmp_path / "local.cache").exists()
    assert (checkout.path / ".env.cache").exists()


def test_a_wrong_pattern_is_said(project: Project, checkout: Worktree) -> None:
    """With the key that it stands in."""
    with pytest.raises(WorkspaceError, match="copy in orch"):
        set_up(project, copy=["../secrets"])(checkout, "c0ffee")
