"""`orch init`, typed in all kinds of places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.models import Role
from orchestrator.settings import load
from tests.orch import Orch, OrchHere


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    return OrchHere(tmp_path)


def test_init_writes_down_what_it_found(orch: Orch) -> None:
    """The test command, the agents, the base branch and the tracker, told line by line and read back as settings."""
    orch.install("claude")
    orch.install("codex")

    said = orch.says("init")

    for line in (
        f"repo         {orch.repo}",
        "base branch  main",
        "tests        make test",
        "agents       claude (also here: codex)",
        "issues       bundled tracker, in .sudocode (made: commit it too)",
        "orch.toml    written: read it over, then commit it",
    ):
        assert line in said.splitlines()
    settings = load(orch.repo, orch.env)
    assert ("make", "test") == settings.verify_command("L1")
    assert ("main", "bundled") == (settings.base, settings.tracker)
    agent = settings.agent(Role.IMPLEMENTER)
    assert agent is not None
    assert "claude" == agent.command[0]


def test_init_changes_nothing_else(orch: Orch) -> None:
    """Two new things to commit; HEAD, index and every other file stay as they were."""
    orch.says("init")

    assert "?? .sudocode/\n?? orch.toml\n" == orch.git("status", "--porcelain")


def test_an_orch_toml_that_is_there_stays(orch: Orch) -> None:
    """It is somebody's work; only --force rewrites it."""
    toml = orch.repo / "orch.toml"
    toml.write_text('base = "trunk"\n')

    said = orch.says("init")

    assert "orch.toml    there already, stays as it is (--force rewrites)" in said
    assert 'base = "trunk"\n' == toml.read_text()

    orch.says("init", "--force")

    assert 'base = "main"' in toml.read_text()


def test_init_for_programs(orch: Orch) -> None:
    """The same facts as JSON."""
    said = json.loads(orch.says("init", "--json"))

    assert {
        "root": str(orch.repo),
        "found": {"agents": [], "base": "main", "set_up": None, "tracker": "bundled", "verify": ["make", "test"]},
        "made": {"orch_toml": True, "sudocode": True},
    } == said


def test_init_from_a_folder_of_the_repo_is_for_the_whole_repo(orch: Orch) -> None:
    """Where one stands does not matter; naming a mere part of the repo is refused with what to type instead."""
    part = orch.repo / "src"
    part.mkdir()

    named = orch("-C", str(part), "init")
    stood = orch("init", cwd=part)

    assert 1 == named.returncode
    assert f"Error: {part} is a part of the repo {orch.repo}; run `orch -C {orch.repo} init`\n" == named.stderr
    assert 0 == stood.returncode
    assert (orch.repo / "orch.toml").exists()


def test_outside_a_repo_init_says_so(orch: Orch, tmp_path: Path) -> None:
    """One line with what to do; nothing is written."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    done = orch("init", cwd=elsewhere)

    assert (1, "") == (done.returncode, done.stdout)
    assert f"Error: {elsewhere} is in no git repo; run `git init` and commit something, or go to your repo\n" == (
        done.stderr
    )
    assert [] == list(elsewhere.iterdir())


def test_in_a_repo_without_a_commit_init_says_so(orch: Orch, tmp_path: Path) -> None:
    """There is nothing that sessions could start from."""
    empty = tmp_path / "empty"
    orch.git("init", "--quiet", str(empty))

    done = orch("init", cwd=empty)

    assert (1, "") == (done.returncode, done.stdout)
    assert f"Error: {empty} has no commit for sessions to start from; commit something first\n" == done.stderr
    assert not (empty / "orch.toml").exists()


@pytest.mark.parametrize("command", [["init"], ["issue", "list"], ["enqueue", "i-a1b2"]])
def test_a_wrong_orch_toml_is_named_by_every_command(orch: Orch, command: list[str]) -> None:
    """One line per mistake, with the key that was meant; the file stays as it is."""
    (orch.repo / "orch.toml").write_text("concurency = 4\npoll_interval = 0\n")

    done = orch(*command)

    assert (1, "") == (done.returncode, done.stdout)
    first, second = done.stderr.splitlines()
    assert "Error: orch.toml: unknown key `concurency`; did you mean `concurrency`?" in (first, f"Error: {second}")
    assert "poll_interval: must be at least 0.2" in done.stderr
    assert "concurency = 4\npoll_interval = 0\n" == (orch.repo / "orch.toml").read_text()
