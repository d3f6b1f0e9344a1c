"""Questions about the repo that a person stands in: what git says, and what stands in its way."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.git import base_branch, base_commit, base_holds, git_version, top_of
from orchestrator.adapters.git.command import question, reason
from orchestrator.errors import WorkspaceError
from tests.git_project import Project, put_before_git


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Project(tmp_path)


def test_the_top_is_found_from_below(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder of the repo, also where the environment points at another one (as in a git hook)."""
    monkeypatch.setenv("GIT_DIR", str(project.repo.parent))

    assert project.repo == top_of(project.repo / "src")


def test_a_folder_in_no_repo_is_named(tmp_path: Path) -> None:
    """With what to do about it, in whatever language git speaks to its user."""
    with pytest.raises(WorkspaceError, match=rf"^{tmp_path} is in no git repo; run `git init`"):
        top_of(tmp_path)


def test_a_machine_without_git_says_so(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no answer: a base branch that cannot be asked for is not one that does not exist."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))

    with pytest.raises(WorkspaceError, match="git is not on PATH"):
        git_version()
    with pytest.raises(WorkspaceError, match="git is not on PATH"):
        base_branch(project.repo)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing folder is told from a missing git."""
    with pytest.raises(WorkspaceError, match=f"there is no folder {tmp_path}/gone"):
        base_branch(tmp_path / "gone")


def test_a_git_that_hangs_is_ended(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question has a limit of time, and its error says so."""
    monkeypatch.setenv("PATH", put_before_git(tmp_path / "bin", "sleep 60"))

    with pytest.raises(WorkspaceError, match=r"git did not answer in 0\.2 s"):
        question(project.repo, "status", timeout_s=0.2)


def test_the_token_of_a_remote_is_in_no_error() -> None:
    """Not every git takes it out of the address that it quotes."""
    token = "a1b2" * 10
    said = f"remote: Not Found\nfatal: repository 'https://me:{token}@github.com/acme/shop.git/' not found\n"

    assert "fatal: repository 'https://[redacted]@github.com/acme/shop.git/' not found" == reason(said)


def test_the_base_holds_what_was_merged(project: Project) -> None:
    """Here or at origin; of a commit that this clone does not have, nothing can be said."""
    later = project.commit("later.py")
    project.git("branch", "side", later)
    project.git("reset", "--quiet", "--hard", project.first)

    assert base_holds(project.repo, "main", project.first) is True
    assert base_holds(project.repo, "main", later) is False
    assert base_holds(project.repo, "main", "c0ffee" * 6 + "beef") is None
    assert project.first.startswith(base_commit(project.repo, "main") or "-")
    assert base_commit(project.repo, "elsewhere") is None
