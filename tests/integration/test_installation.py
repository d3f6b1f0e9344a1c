"""Which installation this is, as git keeps it."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.adapters.git import create_project
from orchestrator.adapters.git.installation import installation_of, name_installation
from orchestrator.errors import WorkspaceError


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    create_project(tmp_path / "repo", {"README.md": "# Here\n"})
    return tmp_path / "repo"


def test_a_name_is_given_once(repo: Path) -> None:
    """Nobody has a name until one is asked for; from then on it stays, and nothing in the checkout changed."""
    assert installation_of(repo) is None

    name = name_installation(repo)

    assert name.startswith("orch-")
    assert (name, name) == (installation_of(repo), name_installation(repo))
    assert "" == subprocess.run(["git", "status", "--porcelain"], cwd=repo, capture_output=True, text=True).stdout


def test_no_copy_of_the_repo_has_the_name(repo: Path, tmp_path: Path) -> None:
    """A clone, a copied folder and a linked worktree are installations of their own."""
    subprocess.run(["git", "clone", "-q", repo, tmp_path / "clone"], check=True)
    name_installation(repo)
    shutil.copytree(repo, tmp_path / "copy")
    subprocess.run(["git", "worktree", "add", "-q", tmp_path / "linked"], cwd=repo, check=True)

    assert [None] * 3 == [installation_of(tmp_path / name) for name in ("clone", "copy", "linked")]
    assert 4 == len(
        {name_installation(path) for path in (repo, *(tmp_path / name for name in ("clone", "copy", "linked")))}
    )


def test_who_asks_at_once_gets_the_same_name(repo: Path) -> None:
    """Of several that name it at the same moment, the first one holds for all."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _named(repo), range(4)))

    assert 1 == len({name_installation(repo) for _ in range(3)})
    assert name_installation(repo) == installation_of(repo)


def _named(repo: Path) -> str | None:
    """git's configuration has one writer at a time; whoever came too late finds the name."""
    try:
        return name_installation(repo)
    except WorkspaceError:
        return None


def test_what_git_does_not_keep_is_said(tmp_path: Path) -> None:
    """Where there is no repo there is no name."""
    with pytest.raises(WorkspaceError, match=f"git keeps no configuration in {tmp_path}"):
        name_installation(tmp_path)
