"""What a repo and a machine say about themselves: how to test, who can write code, where issues live.

For `orch init`, which writes it down, and for `orch doctor`, which compares. Nothing here runs the repo's code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.settings import AgentSettings

Which = Callable[[str], str | None]
"""As `shutil.which`: the path of a program, or None."""


LARGEST_FILE = 1_000_000
"""Characters read of a build file; what matters stands near its top."""


@dataclass(frozen=True)
class AgentCli:
    """A coding agent found on this machine, and how it is started for each kind of role.

    `silent` is set when it prints nothing until it is done, so that its silence says nothing about its health.
    """

    name: str
    implementer: AgentSettings
    reviewer: AgentSettings
    silent: bool = False


# Prompts go in on stdin: a diff may be longer than the 128 KiB that one argument may have.
# Reviewers must not write. Gemini's plan mode is no help: with nobody there it ends by itself, and writing begins.
CLIS = (
    AgentCli(
        "claude",
        AgentSettings(command=("claude", "-p", "--permission-mode", "acceptEdits")),
        AgentSettings(
            command=(
                "claude",
                "-p",
                "--permission-mode",
                "default",
                "--disallowedTools",
                "Edit,Write,NotebookEdit,Bash",
            )
        ),
        silent=True,
    ),
    AgentCli(
        "codex",
        AgentSettings(command=("codex", "exec", "--sandbox", "workspace-write", "-")),
        AgentSettings(command=("codex", "exec", "--sandbox", "read-only", "-")),
    ),
    AgentCli(
        "gemini",
        AgentSettings(command=("gemini", "--skip-trust", "--approval-mode", "auto_edit")),
        AgentSettings(command=("gemini", "--skip-trust", "--approval-mode", "default")),
    ),
    AgentCli(
        "opencode",
        AgentSettings(command=("opencode", "run", "--auto")),
        AgentSettings(command=("opencode", "run", "--agent", "plan")),
    ),
)


def agent_clis(which: Which) -> list[AgentCli]:
    """The agent CLIs on this machine, in the order in which we would choose."""
    return [cli for cli in CLIS if which(cli.name)]


def tracker(which: Which, root: Path) -> Literal["sudocode", "bundled"]:
    """Where issues live: sudocode when its server is installed and the repo has been set up for it, else bundled."""
    return "sudocode" if which("sudocode-mcp") and (root / ".sudocode").is_dir() else "bundled"


def test_command(root: Path) -> tuple[str, ...] | None:
    """How this repo is tested, by its own files; None when they do not say. Recipes come before a language's habits."""
    for said in (_make, _just, _node, _python, _rust, _go, _jvm, _ruby, _elixir, _php, _dotnet):
        if command := said(root):
            return command
    return None


def render_orch_toml(
    *,
    project: str,
    base: str | None = None,
    tracker: str = "auto",
    verify: tuple[str, ...] | None = None,
    agent: AgentCli | None = None,
) -> str:
    """The orch.toml that `orch init` writes: what was found, and the rest as comments with its defaults."""
    return "\n".join(_lines(project, base, tracker, verify, agent)) + "\n"


def _lines(
    project: str, base: str | None, tracker: str, verify: tuple[str, ...] | None, agent: AgentCli | None
) -> Iterator[str]:
    yield "# How orch works on this repo. What is commented out is the default. `orch doctor` checks this file."
    yield ""
    yield f"project = {_toml(project)}  # the name on a shared Redis"
    yield f"base = {_toml(base)}  # sessions start from this branch" if base else '# base = "main"  # unset: detected'
    yield f"tracker = {_toml(tracker)}  # auto, sudocode or bundled"
    yield "# concurrency = 4  # sessions at once"
    yield "# poll_interval = 5  # seconds"
    yield ""
    yield "[verify]"
    yield "# Run by us, in the worktree, on the very commit: a session is done when this exits with 0. No shell."
    yield f"default = {_toml(verify)}" if verify else '# default = ["make", "test"]'
    yield '# L2 = ["make", "e2e"]  # for issues that say Verify: L2; L0 and L1 likewise'
    yield ""
    yield "[agents]"
    yield '# env = ["ANTHROPIC_API_KEY"]  # variables that agents get; all others are kept from them'
    yield from _agent_lines(agent)
    yield ""
    yield "[limits]"
    yield "# spec_attempts = 3"
    yield "# quality_attempts = 2"
    yield "# agent_seconds = 3600"
    if agent and agent.silent:
        yield f"silence_seconds = 3600  # {agent.name} prints nothing until it is done"
    else:
        yield "# silence_seconds = 900"
    yield "# verify_seconds = 1800"


def _agent_lines(agent: AgentCli | None) -> Iterator[str]:
    if agent is None:
        yield "# No agent CLI was found on PATH. Install one, or name your own:"
        yield "# [agents.default]"
        yield '# command = ["claude", "-p"]'
        yield '# prompt = "stdin"  # or "file", "argument"'
        return
    for role, settings in (
        ("implementer", agent.implementer),
        ("spec_reviewer", agent.reviewer),
        ("quality_reviewer", agent.reviewer),
    ):
        yield ""
        yield f"[agents.{role}]" + ("" if role == "implementer" else "  # reads, never writes; another model sees more")
        yield f"command = {_toml(settings.command)}"
        yield f"prompt = {_toml(settings.prompt)}"


def _toml(value: str | tuple[str, ...]) -> str:
    """A TOML string or list of strings. JSON's are TOML's, but for DEL and for pairs of surrogates."""
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(word) for word in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
