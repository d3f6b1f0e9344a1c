"""Find out how a repo is tested, from its own files. Nothing here runs the repo's code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

LARGEST_FILE = 1_000_000
"""Characters read of a build file; what matters stands near its top."""


def recipe_for_tests(root: Path) -> tuple[str, ...] | None:
    """The command that tests this repo, by its own files; None when they do not say.

    Recipes come before a language's habits.
    """
    for said in (_make, _just, _node, _python, _rust, _go, _jvm, _ruby, _elixir, _php, _dotnet):
        if command := said(root):
            return command
    return None


def _make(root: Path) -> tuple[str, ...] | None:
    for name in ("GNUmakefile", "makefile", "Makefile"):
        if any(_is_test_rule(line) for line in _text(root / name).splitlines()):
            return ("make", "test")
    return None


def _is_test_rule(line: str) -> bool:
    """`test:`, `check test: deps` and `test::`; not `test := x`, a comment or a line of a recipe."""
    targets, _, rest = line.partition(":")
    return "test" in targets.split() and line[0] not in "#\t " and ":" in line and not rest.lstrip(":").startswith("=")


def _just(root: Path) -> tuple[str, ...] | None:
    for name in ("justfile", "Justfile", ".justfile"):
        if re.search(r"^@?test(?:\s[^:\n]*)?:(?!=)", _text(root / name), re.MULTILINE):
            return ("just", "test")
    return None


def _node(root: Path) -> tuple[str, ...] | None:
    script = _entry(_json(root / "package.json"), "scripts", "test")
    if script and "no test specified" not in script:
        for lock, tool in (
            ("pnpm-lock.yaml", "pnpm"),
            ("yarn.lock", "yarn"),
            ("bun.lock", "bun"),
            ("bun.lockb", "bun"),
        ):
            if (root / lock).exists():
                return (tool, "run", "test")
        return ("npm", "test")
    if (root / "deno.json").exists() or (root / "deno.jsonc").exists():
        task = _entry(_json(root / "deno.json"), "tasks", "test")
        return ("deno", "task", "test") if task else ("deno", "test")
    return None


def _python(root: Path) -> tuple[str, ...] | None:
    runner = next((tool for tool in ("uv", "poetry", "pdm") if (root / f"{tool}.lock").exists()), None)
    if _uses_pytest(root):
        return (runner, "run", "pytest") if runner else ("python3", "-m", "pytest")
    for name, command in (("tox.ini", ("tox",)), ("noxfile.py", ("nox",))):
        if (root / name).exists():
            return command
    if any((root / "tests").glob("test*.py")) and (root / "tests" / "__init__.py").exists():
        return ("python3", "-m", "unittest")
    return None


def _uses_pytest(root: Path) -> bool:
    if any((root / name).exists() for name in ("pytest.ini", ".pytest.ini", "conftest.py", "tests/conftest.py")):
        return True
    return (
        "pytest" in _text(root / "pyproject.toml")
        or "[tool:pytest]" in _text(root / "setup.cfg")
        or "[pytest]" in _text(root / "tox.ini")
    )


def _rust(root: Path) -> tuple[str, ...] | None:
    return ("cargo", "test") if (root / "Cargo.toml").exists() else None


def _go(root: Path) -> tuple[str, ...] | None:
    return ("go", "test", "./...") if (root / "go.mod").exists() else None


def _jvm(root: Path) -> tuple[str, ...] | None:
    for mark, command in (
        ("gradlew", ("./gradlew", "test")),
        ("mvnw", ("./mvnw", "test")),
        ("pom.xml", ("mvn", "test")),
        ("build.gradle", ("gradle", "test")),
        ("build.gradle.kts", ("gradle", "test")),
        ("build.sbt", ("sbt", "test")),
    ):
        if (root / mark).exists():
            return command
    return None


def _ruby(root: Path) -> tuple[str, ...] | None:
    bundle = ("bundle", "exec") if (root / "Gemfile").exists() else ()
    if (root / ".rspec").exists() or (root / "spec" / "spec_helper.rb").exists():
        return (*bundle, "rspec")
    return (*bundle, "rake", "test") if "test" in _text(root / "Rakefile").lower() else None


def _elixir(root: Path) -> tuple[str, ...] | None:
    return ("mix", "test") if (root / "mix.exs").exists() else None


def _php(root: Path) -> tuple[str, ...] | None:
    return ("composer", "test") if "test" in _table(_json(root / "composer.json"), "scripts") else None


def _dotnet(root: Path) -> tuple[str, ...] | None:
    return ("dotnet", "test") if any(any(root.glob(kind)) for kind in ("*.sln", "*.slnx", "*.csproj")) else None


def _text(path: Path) -> str:
    """A file of the repo as far as it can be read; a file that cannot says nothing."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_FILE)
    except OSError:
        return ""


def _json(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _table(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _entry(document: Mapping[str, object], table: str, name: str) -> str:
    found = _table(document, table).get(name)
    return found if isinstance(found, str) else ""
