"""`orch completion`: what a shell needs to complete commands, options and issues. Quick: it loads next to nothing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class

SHELLS = {
    "bash": 'eval "$(orch completion bash)"    # in ~/.bashrc',
    "zsh": 'eval "$(orch completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "orch completion fish > ~/.config/fish/completions/orch.fish",
}
"""How each is switched on."""

ISSUES = Path(".sudocode", "issues.jsonl")
"""Where the tracker keeps its issues for git. Asking the tracker itself would take longer than a person waits."""


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)), default=lambda: _mine())
def command(shell: str) -> None:
    """Print what makes the Tab key complete commands, options and the ids of issues.

    Without SHELL it is for the one you use. The first line of what is printed says how to switch it on for good.

    \b
      eval "$(orch completion bash)"
    """
    from orchestrator.cli import main

    kind = get_completion_class(shell)
    assert kind, f"click completes {shell}"
    click.echo(f"# {SHELLS[shell]}\n{kind(main, {}, 'orch', '_ORCH_COMPLETE').source()}")


def _mine() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    return name if name in SHELLS else "bash"


def known_issues(project: str | None) -> Iterator[tuple[str, str]]:
    """The ids and titles of the repo's issues, those that are not closed first; none where they cannot be read."""
    start = Path(project or os.environ.get("ORCH_PROJECT_ROOT") or ".").absolute()
    file = next((folder / ISSUES for folder in (start, *start.parents) if (folder / ISSUES).is_file()), None)
    rows = []
    # A shell that completes is no place for complaints; `orch doctor` has them.
    with contextlib.suppress(OSError, ValueError):
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file else []
    for row in sorted(rows, key=lambda row: row.get("status") == "closed"):
        yield str(row.get("id")), str(row.get("title"))


def takes_issues(name: str) -> click.Command:
    """What stands for a command while one of its issues is completed, so that the command need not be loaded."""
    from orchestrator.cli.terminal import IssueId

    return click.Command(name, params=[click.Argument(["issues"], nargs=-1, type=IssueId())])
