"""Find the agents and the tracker of this machine, and write the orch.toml that `orch init` makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.cli.set_ups import SetUp
from orchestrator.settings import AgentSettings, toml

Which = Callable[[str], str | None]
"""As `shutil.which`: the path of a program, or None."""


@dataclass(frozen=True)
class AgentCli:
    """A known coding agent, and its command for each kind of role.

    `silent`: it prints nothing until it is done, so its silence is no sign that it hangs.
    """

    name: str
    implementer: AgentSettings
    reviewer: AgentSettings
    silent: bool = False


# Prompts go in on stdin: a diff may be longer than the 128 KiB that one argument may have.
# Reviewers must not write. Gemini's plan mode does not hold: without a person it ends by itself, and writing begins.
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
    """The agent CLIs on this machine, the preferred one first."""
    return [cli for cli in CLIS if which(cli.name)]


def tracker(which: Which, root: Path) -> Literal["sudocode", "bundled"]:
    """The tracker to use: sudocode if its server is installed and the repo has been set up for it, else bundled."""
    return "sudocode" if which("sudocode-mcp") and (root / ".sudocode").is_dir() else "bundled"


def render_orch_toml(
    *,
    project: str,
    base: str | None = None,
    tracker: str = "auto",
    verify: tuple[str, ...] | None = None,
    set_up: SetUp | None = None,
    agent: AgentCli | None = None,
) -> str:
    """The orch.toml that `orch init` writes: what was found, and the rest as comments with its defaults."""
    return "\n".join(_lines(project, base, tracker, verify, set_up, agent)) + "\n"


def _lines(
    project: str,
    base: str | None,
    tracker: str,
    verify: tuple[str, ...] | None,
    set_up: SetUp | None,
    agent: AgentCli | None,
) -> Iterator[str]:
    yield "# How orch works on this repo. What is commented out is the default. `orch doctor` checks this file."
    yield ""
    yield f"project = {toml(project)}  # the name on a shared Redis"
    yield f"base = {toml(base)}  # sessions start from this branch" if base else '# base = "main"  # unset: detected'
    yield f"tracker = {toml(tracker)}  # auto, sudocode or bundled"
    yield "# concurrency = 4  # sessions at once"
    yield "# poll_interval = 5  # seconds"
    yield from _workspace_lines(set_up)
    yield ""
    yield "[verify]"
    yield "# Run by us, in a clean checkout of the very commit: a session is done when this exits with 0. No shell."
    yield f"default = {toml(verify)}" if verify else '# default = ["make", "test"]'
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
    yield "# setup_seconds = 1800"
    yield "# verify_seconds = 1800"


def _workspace_lines(set_up: SetUp | None) -> Iterator[str]:
    yield ""
    yield "[workspace]"
    if set_up is None:
        yield "# What a fresh checkout needs, before agents work in it and before each verification. No shell."
        yield '# setup = ["npm", "ci"]  # or several: [["npm", "ci"], ["uv", "sync"]]'
    else:
        yield "# Run in a fresh checkout, before agents work in it and before each verification. No shell."
        yield f"# Guessed from {', '.join(set_up.said_by)}."
        yield f"setup = {toml(set_up.commands if len(set_up.commands) > 1 else set_up.commands[0])}"
    yield '# copy = [".env"]  # files of your checkout that git ignores, to be brought along'
    if set_up and set_up.cache:
        yield f"cache = {toml(set_up.cache)}  # variables that name a tool's cache, which is then kept"


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
        yield f"command = {toml(settings.command)}"
        yield f"prompt = {toml(settings.prompt)}"
