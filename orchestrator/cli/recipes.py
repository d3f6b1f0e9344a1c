"""Find out how a repo is tested, from its own files. Nothing here runs the repo's code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

LARGEST_FILE = 1_000_000
"""Characters read of a build file; what matters stands near its top."""

PYTHON_LOCKS = {"uv.lock": "uv", "poetry.lock": "poetry", "pdm.lock": "pdm", "Pipfile.lock": "pipenv"}
"""The tool that has locked a Python repo, by its file."""

VENV_PYTHON = ".venv/bin/python"

_REQUIREMENTS = (
    "requirements.txt",
    "requirements-dev.txt",
    "requirements_dev.txt",
    "dev-requirements.txt",
    "requirements-test.txt",
    "test-requirements.txt",
    "requirements-tests.txt",
)


def recipe_for_tests(root: Path) -> tuple[str, ...] | None:
    """The command that tests this repo, by its own files; None when they do not say.

    Recipes come before a language's habits. It finds what the set-up has installed.
    """
    if recipe := _make(root) or _just(root):
        return _in_environment(root, recipe)
    for said in (_node, _python, _rust, _go, _jvm, _ruby, _elixir, _php, _dotnet):
        if command := said(root):
            return command
    return None


def _in_environment(root: Path, recipe: tuple[str, ...]) -> tuple[str, ...]:
    """A recipe as one runs it in a Python repo: within the environment that was installed."""
    if runner := _python_runner(root):
        return (runner, "run", *recipe)
    return ("sh", "-c", f". .venv/bin/activate && {' '.join(recipe)}") if needs_venv(root) else recipe


def _make(root: Path) -> tuple[str, ...] | None:
    for name in ("GNUmakefile", "makefile", "Makefile"):
        if any(_is_test_rule(line) for line in text_of(root / name).splitlines()):
            return ("make", "test")
    return None


def _is_test_rule(line: str) -> bool:
    """`test:`, `check test: deps` and `test::`; not `test := x`, a comment or a line of a recipe."""
    targets, _, rest = line.partition(":")
    return "test" in targets.split() and line[0] not in "#\t " and ":" in line and not rest.lstrip(":").startswith("=")


def _just(root: Path) -> tuple[str, ...] | None:
    for name in ("justfile", "Justfile", ".justfile"):
        if re.search(r"^@?test(?:\s[^:\n]*)?:(?!=)", text_of(root / name), re.MULTILINE):
            return ("just", "test")
    return None


def _node(root: Path) -> tuple[str, ...] | None:
    script = entry_of(json_of(root / "package.json"), "scripts", "test")
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
        task = entry_of(json_of(root / "deno.json"), "tasks", "test")
        return ("deno", "task", "test") if task else ("deno", "test")
    return None


def _python(root: Path) -> tuple[str, ...] | None:
    runner, python = _python_runner(root), VENV_PYTHON if needs_venv(root) else "python3"
    if uses_pytest(root):
        return (runner, "run", "pytest") if runner else (python, "-m", "pytest")
    for name, command in (("tox.ini", ("tox",)), ("noxfile.py", ("nox",))):
        if (root / name).exists():
            return command
    if any((root / "tests").glob("test*.py")) and (root / "tests" / "__init__.py").exists():
        return (runner, "run", "python", "-m", "unittest") if runner else (python, "-m", "unittest")
    return None


def _python_runner(root: Path) -> str | None:
    return next((tool for lock, tool in PYTHON_LOCKS.items() if (root / lock).exists()), None)


def uses_pytest(root: Path) -> bool:
    """True when the repo's own files speak of pytest."""
    if any((root / name).exists() for name in ("pytest.ini", ".pytest.ini", "conftest.py", "tests/conftest.py")):
        return True
    return (
        "pytest" in text_of(root / "pyproject.toml")
        or "[tool:pytest]" in text_of(root / "setup.cfg")
        or "[pytest]" in text_of(root / "tox.ini")
    )


def needs_venv(root: Path) -> bool:
    """True when pip has something to install for this repo and no other tool has locked it."""
    if any((root / lock).exists() for lock in PYTHON_LOCKS):
        return False
    return bool(requirements(root)) or installable(root)


def requirements(root: Path) -> list[str]:
    """The files that say what pip is to install, for the program and for its tests."""
    named = [name for name in _REQUIREMENTS if (root / name).is_file()]
    folder = [path.relative_to(root).as_posix() for path in sorted((root / "requirements").glob("*.txt"))]
    return named + [name for name in folder if Path(name).stem in ("base", "main", "dev", "test", "tests")]


def installable(root: Path) -> bool:
    """True when pip can install the repo itself."""
    project = re.search(r"^\[(project|build-system)\]", text_of(root / "pyproject.toml"), re.MULTILINE)
    return bool(project) or (root / "setup.py").exists()


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
    return (*bundle, "rake", "test") if "test" in text_of(root / "Rakefile").lower() else None


def _elixir(root: Path) -> tuple[str, ...] | None:
    return ("mix", "test") if (root / "mix.exs").exists() else None


def _php(root: Path) -> tuple[str, ...] | None:
    return ("composer", "test") if "test" in table_of(json_of(root / "composer.json"), "scripts") else None


def _dotnet(root: Path) -> tuple[str, ...] | None:
    return ("dotnet", "test") if any(any(root.glob(kind)) for kind in ("*.sln", "*.slnx", "*.csproj")) else None


def text_of(path: Path) -> str:
    """A file of the repo as far as it can be read; a file that cannot says nothing."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_FILE)
    except OSError:
        return ""


def json_of(path: Path) -> Mapping[str, object]:
    """A JSON object of the repo; one that cannot be read is empty."""
    try:
        found = json.loads(text_of(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def table_of(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A table in a document; empty when there is none of this name."""
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def entry_of(document: Mapping[str, object], table: str, name: str) -> str:
    """A text in a table of a document; empty when there is none of this name."""
    found = table_of(document, table).get(name)
    return found if isinstance(found, str) else ""
