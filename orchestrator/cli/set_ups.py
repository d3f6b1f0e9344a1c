"""Find out what a fresh checkout of a repo needs, from its lock files. Nothing here runs the repo's code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.recipes import (
    PYTHON_LOCKS,
    VENV_PYTHON,
    installable,
    json_of,
    needs_venv,
    requirements,
    table_of,
    text_of,
    uses_pytest,
)


@dataclass(frozen=True)
class SetUp:
    """What to run in a fresh checkout, which files say so, and the variables that name the tools' caches."""

    commands: tuple[tuple[str, ...], ...]
    said_by: tuple[str, ...]
    cache: tuple[str, ...] = ()


def recipe_for_set_up(root: Path) -> SetUp | None:
    """All that has to be installed in a checkout of this repo, in order; None when its files ask for nothing."""
    found = [part for part in (_node(root), _python(root), _rust(root), _go(root), _ruby(root), _maven(root)) if part]
    if not found:
        return None
    return SetUp(
        commands=tuple(command for part in found for command in part.commands),
        said_by=tuple(file for part in found for file in part.said_by),
        cache=tuple(name for part in found for name in part.cache),
    )


def _node(root: Path) -> SetUp | None:
    berry = (root / ".yarnrc.yml").exists()
    locked = {
        "pnpm-lock.yaml": (("pnpm", "install", "--frozen-lockfile"), ()),
        "yarn.lock": (("yarn", "install", "--immutable" if berry else "--frozen-lockfile"), ("YARN_CACHE_FOLDER",)),
        "bun.lock": (("bun", "install", "--frozen-lockfile"), ("BUN_INSTALL_CACHE_DIR",)),
        "bun.lockb": (("bun", "install", "--frozen-lockfile"), ("BUN_INSTALL_CACHE_DIR",)),
        "package-lock.json": (("npm", "ci", *_QUIET), ("npm_config_cache",)),
        "npm-shrinkwrap.json": (("npm", "ci", *_QUIET), ("npm_config_cache",)),
    }
    for lock, (command, cache) in locked.items():
        if (root / lock).exists():
            return SetUp((command,), (lock,), cache)
    package = json_of(root / "package.json")
    if any(table_of(package, kind) for kind in ("dependencies", "devDependencies")):
        # Without --no-package-lock it would write a lock file, which the repo does not want.
        command = ("npm", "install", "--no-package-lock", *_QUIET)
        return SetUp((command,), ("package.json",), ("npm_config_cache",))
    return None


_QUIET = ("--no-audit", "--no-fund")


def _python(root: Path) -> SetUp | None:
    for lock, tool in PYTHON_LOCKS.items():
        if (root / lock).exists():
            command, cache = {
                "uv": (("uv", "sync", "--locked", *_uv_options(root)), "UV_CACHE_DIR"),
                # In the checkout: its own place for environments goes by the checkout's path, and never forgets one.
                "poetry": (
                    ("env", "POETRY_VIRTUALENVS_IN_PROJECT=true", "poetry", "install", "--no-interaction"),
                    "POETRY_CACHE_DIR",
                ),
                "pdm": (("pdm", "sync"), "PDM_CACHE_DIR"),
                "pipenv": (("env", "PIPENV_VENV_IN_PROJECT=1", "pipenv", "sync", "--dev"), "PIPENV_CACHE_DIR"),
            }[tool]
            return SetUp((command,), (lock,), (cache,))
    return _pip(root) if needs_venv(root) else None


def _uv_options(root: Path) -> Iterator[str]:
    """What has pytest installed, where that is not among what uv installs by itself."""
    document = _toml(root / "pyproject.toml")
    groups = _lists(table_of(document, "dependency-groups"))
    extras = _lists(table_of(table_of(document, "project"), "optional-dependencies"))
    if _names_pytest(groups.get("dev", ())) or not uses_pytest(root):
        return
    if any(map(_names_pytest, groups.values())):
        yield "--all-groups"
    elif any(map(_names_pytest, extras.values())):
        yield "--all-extras"


def _pip(root: Path) -> SetUp:
    files = requirements(root)
    document = _toml(root / "pyproject.toml")
    extras = _lists(table_of(table_of(document, "project"), "optional-dependencies"))
    wanted = [name for name, needs in extras.items() if name in _TEST_EXTRAS or _names_pytest(needs)]
    itself = ["-e", f".[{','.join(wanted)}]" if wanted else "."] if installable(root) else []
    said = [line for file in files for line in text_of(root / file).splitlines()]
    said += [need for name in wanted for need in extras[name]]
    # Test tools are often left to the person who runs the tests.
    pytest = ["pytest"] if uses_pytest(root) and not _names_pytest(said) else []
    install = [word for file in files for word in ("-r", file)] + itself + pytest
    # No commit may take it in, whatever the repo's own .gitignore says.
    make = ("sh", "-c", "python3 -m venv .venv && echo '*' > .venv/.gitignore")
    said_by = files or ["pyproject.toml" if (root / "pyproject.toml").exists() else "setup.py"]
    return SetUp((make, (VENV_PYTHON, "-m", "pip", "install", *install)), tuple(said_by), ("PIP_CACHE_DIR",))


_TEST_EXTRAS = ("test", "tests", "testing", "dev")


def _rust(root: Path) -> SetUp | None:
    if not (root / "Cargo.toml").exists():
        return None
    locked = (root / "Cargo.lock").exists()
    return SetUp((("cargo", "fetch", *(("--locked",) if locked else ())),), ("Cargo.lock" if locked else "Cargo.toml",))


def _go(root: Path) -> SetUp | None:
    if not (root / "go.sum").exists():
        return None
    return SetUp((("go", "mod", "download"),), ("go.sum",), ("GOMODCACHE", "GOCACHE"))


def _ruby(root: Path) -> SetUp | None:
    if not (root / "Gemfile").exists():
        return None
    said_by = "Gemfile.lock" if (root / "Gemfile.lock").exists() else "Gemfile"
    return SetUp((("bundle", "install"),), (said_by,), ("BUNDLE_PATH",))


def _maven(root: Path) -> SetUp | None:
    if not (root / "pom.xml").exists():
        return None
    maven = "./mvnw" if (root / "mvnw").exists() else "mvn"
    return SetUp(((maven, "-B", "-q", "test-compile"),), ("pom.xml",))


def _names_pytest(needs: Iterable[str]) -> bool:
    return any(re.match(r"\s*pytest\b(?!-)", need) for need in needs)


def _lists(table: Mapping[str, object]) -> dict[str, list[str]]:
    """The lists of texts in a table; a group may also have tables, which name other groups."""
    return {
        name: [need for need in needs if isinstance(need, str)]
        for name, needs in table.items()
        if isinstance(needs, list)
    }


def _toml(path: Path) -> Mapping[str, object]:
    """A TOML file of the repo; one that cannot be read says nothing."""
    try:
        return tomllib.loads(text_of(path))
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}
