"""What is found out about somebody's repo and machine, and the orch.toml written from it."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import settings
from orchestrator.cli import discover
from orchestrator.cli.recipes import recipe_for_tests
from orchestrator.cli.set_ups import recipe_for_set_up
from orchestrator.models import Role
from orchestrator.settings.tables import LimitSettings, RepoSettings


def which(*installed: str) -> Callable[[str], str | None]:
    return lambda name: f"/usr/bin/{name}" if name in installed else None


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"README.md": "make test"}, None),
        ({"Makefile": "all:\n\techo\n\ntest: all\n\tpytest\n"}, "make test"),
        ({"Makefile": "check test lint:\n"}, "make test"),
        ({"GNUmakefile": "test::\n"}, "make test"),
        ({"Makefile": "test := x\n.PHONY: test\n# test: it\n\ttest: x\ntest-unit: a\nall: test\n"}, None),
        ({"Makefile": "test ::= x\n"}, None),
        ({"justfile": "test filter='':\n    pytest\n"}, "just test"),
        ({"justfile": "test := 'x'\n"}, None),
        ({"package.json": '{"scripts": {"test": "vitest"}}'}, "npm test"),
        ({"package.json": '{"scripts": {"test": "vitest"}}', "pnpm-lock.yaml": ""}, "pnpm run test"),
        ({"package.json": '{"scripts": {"test": "vitest"}}', "yarn.lock": ""}, "yarn run test"),
        ({"package.json": '{"scripts": {"test": "vitest"}}', "bun.lockb": ""}, "bun run test"),
        ({"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'}, None),
        ({"package.json": '{"scripts": ["test"]}'}, None),
        ({"package.json": "[1, 2"}, None),
        ({"package.json": "[" * 100_000}, None),
        ({"deno.json": "{}"}, "deno test"),
        ({"deno.json": '{"tasks": {"test": "deno test -A"}}'}, "deno task test"),
        ({"pyproject.toml": "[tool.pytest.ini_options]\n"}, "python3 -m pytest"),
        ({"pyproject.toml": "[tool.pytest.ini_options]\n", "uv.lock": ""}, "uv run pytest"),
        ({"pyproject.toml": "pytest", "poetry.lock": ""}, "poetry run pytest"),
        ({"tests/conftest.py": ""}, "python3 -m pytest"),
        ({"tox.ini": "[pytest]\n"}, "python3 -m pytest"),
        ({"tox.ini": "[testenv]\n"}, "tox"),
        ({"noxfile.py": ""}, "nox"),
        ({"tests/__init__.py": "", "tests/test_a.py": ""}, "python3 -m unittest"),
        ({"Cargo.toml": ""}, "cargo test"),
        ({"go.mod": ""}, "go test ./..."),
        ({"gradlew": "", "build.gradle": ""}, "./gradlew test"),
        ({"pom.xml": ""}, "mvn test"),
        ({"pom.xml": "", "mvnw": ""}, "./mvnw test"),
        ({"build.gradle.kts": ""}, "gradle test"),
        ({"Gemfile": "", ".rspec": ""}, "bundle exec rspec"),
        ({"Rakefile": "Rake::TestTask.new"}, "rake test"),
        ({"Gemfile": "", "Rakefile": "task :build"}, None),
        ({"mix.exs": ""}, "mix test"),
        ({"composer.json": '{"scripts": {"test": ["phpunit"]}}'}, "composer test"),
        ({"App.sln": ""}, "dotnet test"),
        ({"Makefile": "test:\n", "package.json": '{"scripts": {"test": "x"}}', "Cargo.toml": ""}, "make test"),
        ({"Makefile": "build:\n", "Cargo.toml": ""}, "cargo test"),
        ({"pyproject.toml": "[project]\n[tool.pytest]\n"}, ".venv/bin/python -m pytest"),
        ({"requirements.txt": "", "tests/conftest.py": ""}, ".venv/bin/python -m pytest"),
        ({"setup.py": "", "tests/__init__.py": "", "tests/test_a.py": ""}, ".venv/bin/python -m unittest"),
        ({"uv.lock": "", "tests/__init__.py": "", "tests/test_a.py": ""}, "uv run python -m unittest"),
        ({"Makefile": "test:\n", "uv.lock": ""}, "uv run make test"),
        ({"justfile": "test:\n", "poetry.lock": ""}, "poetry run just test"),
    ],
)
def test_test_command(tmp_path: Path, files: Mapping[str, str], expected: str | None) -> None:
    """A repo's own files say how it is tested; what they do not say is not made up."""
    write(tmp_path, files)

    assert (tuple(expected.split()) if expected else None) == recipe_for_tests(tmp_path)


def test_a_recipe_is_run_where_pip_has_installed(tmp_path: Path) -> None:
    """As a person does it: the environment first."""
    write(tmp_path, {"Makefile": "test:\n\tpytest\n", "requirements.txt": "pytest\n"})

    assert ("sh", "-c", ". .venv/bin/activate && make test") == recipe_for_tests(tmp_path)


VENV = "sh -c 'python3 -m venv .venv && echo '\"'\"'*'\"'\"' > .venv/.gitignore'"
PIP = ".venv/bin/python -m pip install"
NPM = "--no-audit --no-fund"
PYTEST_EXTRA = '[project]\n[project.optional-dependencies]\ncheck = ["pytest>=8"]\ndocs = ["sphinx"]\n'


@pytest.mark.parametrize(
    ("files", "expected", "cache"),
    [
        ({}, [], ""),
        ({"Makefile": "test:\n", "README.md": "npm ci"}, [], ""),
        ({"package.json": "{}"}, [], ""),
        ({"package.json": '{"scripts": {"test": "x"}, "devDependencies": {}}'}, [], ""),
        (
            {"package.json": '{"devDependencies": {"xo": "1"}}'},
            [f"npm install --no-package-lock {NPM}"],
            "npm_config_cache",
        ),
        ({"package-lock.json": "", "package.json": "{}"}, [f"npm ci {NPM}"], "npm_config_cache"),
        ({"pnpm-lock.yaml": ""}, ["pnpm install --frozen-lockfile"], ""),
        ({"yarn.lock": ""}, ["yarn install --frozen-lockfile"], "YARN_CACHE_FOLDER"),
        ({"yarn.lock": "", ".yarnrc.yml": ""}, ["yarn install --immutable"], "YARN_CACHE_FOLDER"),
        ({"bun.lock": ""}, ["bun install --frozen-lockfile"], "BUN_INSTALL_CACHE_DIR"),
        ({"uv.lock": ""}, ["uv sync --locked"], "UV_CACHE_DIR"),
        (
            {"uv.lock": "", "pyproject.toml": '[dependency-groups]\ndev = ["pytest"]\n'},
            ["uv sync --locked"],
            "UV_CACHE_DIR",
        ),
        (
            {"uv.lock": "", "pyproject.toml": '[dependency-groups]\ntest = ["pytest-cov", "pytest"]\n'},
            ["uv sync --locked --all-groups"],
            "UV_CACHE_DIR",
        ),
        ({"uv.lock": "", "pyproject.toml": PYTEST_EXTRA}, ["uv sync --locked --all-extras"], "UV_CACHE_DIR"),
        ({"uv.lock": "", "pyproject.toml": "pytest ["}, ["uv sync --locked"], "UV_CACHE_DIR"),
        (
            {"poetry.lock": ""},
            ["env POETRY_VIRTUALENVS_IN_PROJECT=true poetry install --no-interaction"],
            "POETRY_CACHE_DIR",
        ),
        ({"pyproject.toml": "[tool.pytest]\n"}, [], ""),
        ({"pyproject.toml": "[project]\n"}, [VENV, f"{PIP} -e ."], "PIP_CACHE_DIR"),
        ({"pyproject.toml": PYTEST_EXTRA}, [VENV, f"{PIP} -e '.[check]'"], "PIP_CACHE_DIR"),
        ({"setup.py": "", "tests/conftest.py": ""}, [VENV, f"{PIP} -e . pytest"], "PIP_CACHE_DIR"),
        (
            {"requirements.txt": "x\n", "requirements/dev.txt": "pytest==8\n", "conftest.py": ""},
            [VENV, f"{PIP} -r requirements.txt -r requirements/dev.txt"],
            "PIP_CACHE_DIR",
        ),
        ({"Cargo.toml": ""}, ["cargo fetch"], ""),
        ({"Cargo.toml": "", "Cargo.lock": ""}, ["cargo fetch --locked"], ""),
        ({"go.mod": ""}, [], ""),
        ({"go.mod": "", "go.sum": ""}, ["go mod download"], "GOMODCACHE GOCACHE"),
        ({"Gemfile": ""}, ["bundle install"], "BUNDLE_PATH"),
        ({"pom.xml": "", "mvnw": ""}, ["./mvnw -B -q test-compile"], ""),
        (
            {"package-lock.json": "", "uv.lock": "", "Cargo.toml": ""},
            [f"npm ci {NPM}", "uv sync --locked", "cargo fetch"],
            "npm_config_cache UV_CACHE_DIR",
        ),
    ],
)
def test_set_up(tmp_path: Path, files: Mapping[str, str], expected: list[str], cache: str) -> None:
    """A repo's lock files say what a fresh checkout needs; several at once in one repo."""
    write(tmp_path, files)
    found = recipe_for_set_up(tmp_path)

    assert expected == [shlex.join(command) for command in (found.commands if found else ())]
    assert tuple(cache.split()) == (found.cache if found else ())
    assert not found or set(found.said_by) <= set(files)


@pytest.mark.parametrize("files", [{"package-lock.json": ""}, {"package-lock.json": "", "uv.lock": ""}, {}])
def test_a_set_up_is_written_as_it_is_read(tmp_path: Path, files: Mapping[str, str]) -> None:
    """One command, several, or none."""
    write(tmp_path, files)
    found = recipe_for_set_up(tmp_path)
    read_back = read(tmp_path, discover.render_orch_toml(project="acme", set_up=found)).workspace

    assert (found.commands if found else None) == read_back.setup
    assert (found.cache if found else ()) == read_back.cache


def test_unreadable_files_say_nothing(tmp_path: Path) -> None:
    """A folder, a dead link or binary data where a build file should be is no obstacle."""
    (tmp_path / "Makefile").mkdir()
    (tmp_path / "package.json").symlink_to("nowhere")
    (tmp_path / "justfile").write_bytes(b"\xff\xfe\x00")

    assert recipe_for_tests(tmp_path) is None
    assert recipe_for_set_up(tmp_path) is None


def test_agents_in_order_of_choice() -> None:
    """Only installed agents are found, the preferred one first."""
    assert ["claude", "codex", "gemini", "opencode"] == [cli.name for cli in discover.agent_clis(lambda name: name)]
    assert ["codex"] == [cli.name for cli in discover.agent_clis(which("codex", "sudocode-mcp"))]
    assert [] == discover.agent_clis(which())


@pytest.mark.parametrize("cli", discover.CLIS, ids=lambda cli: cli.name)
def test_agents_take_long_prompts(cli: discover.AgentCli) -> None:
    """Every agent gets its prompt on stdin, where a long diff fits; a reviewer is not started as an implementer is."""
    assert ("stdin", "stdin") == (cli.implementer.prompt, cli.reviewer.prompt)
    assert cli.name == cli.implementer.command[0] == cli.reviewer.command[0]
    assert cli.implementer.command != cli.reviewer.command


def test_reviewers_may_not_write() -> None:
    """No reviewer is started with a flag that lets it edit."""
    words = {word for cli in discover.CLIS for word in cli.reviewer.command}

    assert not words & {"acceptEdits", "workspace-write", "auto_edit", "yolo", "--auto", "bypassPermissions"}


@pytest.mark.parametrize(
    ("installed", "folder", "expected"),
    [
        (["sudocode-mcp"], ".sudocode", "sudocode"),
        (["sudocode-mcp"], "src", "bundled"),
        ([], ".sudocode", "bundled"),
    ],
)
def test_tracker(tmp_path: Path, installed: list[str], folder: str, expected: str) -> None:
    """Issues live in sudocode when its server is installed and the repo is set up for it."""
    (tmp_path / folder).mkdir()

    assert expected == discover.tracker(which(*installed), tmp_path)


def read(folder: Path, text: str) -> settings.Settings:
    (folder / "orch.toml").write_text(text, "utf-8")
    return settings.load(folder, {"HOME": "/h"})


@pytest.mark.parametrize("agent", [None, *discover.CLIS], ids=lambda agent: agent.name if agent else "none")
def test_rendered_file_is_read_back(tmp_path: Path, agent: discover.AgentCli | None) -> None:
    """What `orch init` writes says what was found, and nothing else."""
    found = read(
        tmp_path,
        discover.render_orch_toml(project="acme", base="main", tracker="bundled", verify=("make", "test"), agent=agent),
    )

    assert ("acme", "main", "bundled") == (found.project, found.base, found.tracker)
    assert ("make", "test") == found.verify_command("-")
    assert (agent and agent.implementer) == found.agent(Role.IMPLEMENTER)
    assert (agent and agent.reviewer) == found.agent(Role.SPEC_REVIEWER) == found.agent(Role.QUALITY_REVIEWER)
    silence = found.limits.agent_seconds if agent and agent.silent else LimitSettings().silence_seconds
    assert silence == found.limits.silence_seconds


def test_nothing_found(tmp_path: Path) -> None:
    """With nothing found the file has the defaults, all in comments."""
    found = read(tmp_path, discover.render_orch_toml(project="acme"))

    assert settings.load(tmp_path, {"HOME": "/h"}).model_copy(update={"project": "acme"}) == found
    assert {
        "project": "acme",
        "tracker": "auto",
        "workspace": {},
        "verify": {},
        "agents": {},
        "limits": {},
    } == tomllib.loads((tmp_path / "orch.toml").read_text())


def test_comments_hold_too(tmp_path: Path) -> None:
    """Every commented line is a valid one, and where it shows a number, that is the default."""
    text = discover.render_orch_toml(project="acme")
    found = read(tmp_path, re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE))

    assert LimitSettings() == found.limits
    assert (4, 5, "main") == (found.concurrency, found.poll_interval, found.base)
    assert ("ANTHROPIC_API_KEY",) == found.agents.env
    assert ("make", "e2e") == found.verify_command("L2")
    assert settings.AgentSettings(command=("claude", "-p")) == found.agent(Role.IMPLEMENTER)


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(verify=st.lists(WORDS, min_size=1).filter(lambda words: words[0]).map(tuple), word=WORDS)
def test_any_text_survives(verify: tuple[str, ...], word: str) -> None:
    """Whatever is in a command, quotes, controls and emoji, it is read back unchanged."""
    as_told = settings.AgentSettings(command=("x", word))
    agent = discover.AgentCli("x", as_told, as_told)
    read_back = RepoSettings.model_validate(
        tomllib.loads(discover.render_orch_toml(project="acme", verify=verify, agent=agent))
    )

    assert verify == read_back.verify.default
    assert as_told == read_back.agents.implementer
