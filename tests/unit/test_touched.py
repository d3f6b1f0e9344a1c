"""What decides a verification: pure, from the command and the paths that the work changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.session.touched import touched

PLAIN = ["src/app.py", "README.md", "tests/test_app.py", "docs/Makefile.md", "src/conftest.py.txt", "spec/app_spec.rb"]
"""The work itself, tests included."""


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (["make", "test"], "Makefile"),
        (["make", "test"], "mk/tests.mk"),
        (["sh", "-c", "cd app && make test"], "app/GNUmakefile"),
        (["/usr/bin/make"], "makefile"),
        (["just", "test"], ".justfile"),
        (["sh", "./check.sh"], "check.sh"),
        (["sh", "-c", "set -e; ./ci/check.sh --all"], "ci/check.sh"),
        (["bin/test"], "bin/test"),
        (["python3", "-m", "tools.check"], "tools/check.py"),
        (["python3", "-m", "pytest"], "pytest.py"),
        (["python3", "-m", "pytest"], "pytest/__main__.py"),
        (["uv", "run", "pytest"], "conftest.py"),
        (["uv", "run", "pytest"], "tests/unit/conftest.py"),
        (["uv", "run", "pytest"], "pyproject.toml"),
        (["pytest", "-c", "ci/strict.ini"], "ci/strict.ini"),
        (["tox"], "tox.ini"),
        (["npm", "test"], "package.json"),
        (["npm", "test"], "jest.config.ts"),
        (["npm", "test"], "packages/web/vitest.config.mjs"),
        (["cargo", "test"], "crates/core/build.rs"),
        (["mvn", "test"], "core/pom.xml"),
        (["./gradlew", "test"], "build.gradle.kts"),
        (["bundle", "exec", "rspec"], "spec/spec_helper.rb"),
        (["bundle", "exec", "rake", "test"], "Rakefile"),
        (["true"], "orch.toml"),
        (["true"], ".github/workflows/ci.yml"),
        (["true"], ".gitlab-ci.yml"),
        (["true"], ".circleci/config.yml"),
    ],
)
def test_what_decides_a_verification_is_named(command: list[str], path: str) -> None:
    """And nothing else is."""
    assert [path] == touched([command], [*PLAIN, path])


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (["npm", "test"], "Makefile"),
        (["make", "test"], "pom.xml"),
        (["pytest", "tests"], "tests/test_new.py"),
        (["true"], "docs/orch.toml"),
        (["true"], "vendor/.github/workflows/ci.yml"),
    ],
)
def test_what_another_tool_reads_is_not(command: list[str], path: str) -> None:
    """A remark that is always there is not read."""
    assert [] == touched([command], [path])


def test_what_sets_a_checkout_up_decides_too() -> None:
    """The scripts of a set-up run before every verification."""
    assert ["ci/set-up.sh"] == touched([["pytest"], ["bash", "ci/set-up.sh"]], ["ci/set-up.sh", "ci/other.sh"])


def test_names_are_fit_for_one_line() -> None:
    """An agent names the files."""
    assert ["x y.mk"] == touched([["make"]], ["x\ny.mk"])


@given(st.lists(st.lists(st.text())), st.lists(st.text()))
def test_any_command_and_any_paths(commands: list[list[str]], changed: list[str]) -> None:
    """No more is named than was changed, and nothing fails."""
    assert len(touched(commands, changed)) <= len(changed)
