"""What is found out about a repo by asking git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.adapters.git import base_branch, github_repo


def git(root: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root), *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-b", "work")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    return tmp_path


def test_base_branch(repo: Path) -> None:
    """Sessions start from origin's default branch, else main, else master, else the current branch."""
    assert "work" == base_branch(repo)

    git(repo, "branch", "master")
    assert "master" == base_branch(repo)

    git(repo, "branch", "main")
    assert "main" == base_branch(repo)

    git(repo, "update-ref", "refs/remotes/origin/release/2", "HEAD")
    git(repo, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/release/2")
    assert "release/2" == base_branch(repo)


def test_no_base_branch(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A detached HEAD without main or master has no base branch, nor has a folder without a repo."""
    git(repo, "checkout", "--detach")

    assert base_branch(repo) is None
    assert base_branch(tmp_path_factory.mktemp("bare")) is None


GITHUB = "https://api.github.com"


@pytest.mark.parametrize(
    ("url", "api", "repo"),
    [
        ("https://github.com/acme/shop.git", GITHUB, "acme/shop"),
        ("https://token@github.com/acme/shop", GITHUB, "acme/shop"),
        ("git@github.com:acme/my.shop.git", GITHUB, "acme/my.shop"),
        ("ssh://git@github.com:22/acme/shop.git", GITHUB, "acme/shop"),
        ("git@git.acme.example:acme/shop.git", "https://git.acme.example/api/v3", "acme/shop"),
        ("https://gitlab.com/acme/shop.git", GITHUB, None),
        ("/srv/git/shop.git", GITHUB, None),
    ],
)
def test_the_repo_on_github(tmp_path: Path, url: str, api: str, repo: str | None) -> None:
    """It is known by the URL of the remote, if that is of the GitHub that is asked."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", url], check=True)

    assert repo == github_repo(tmp_path, "origin", api)
    assert github_repo(tmp_path, "elsewhere", api) is None
