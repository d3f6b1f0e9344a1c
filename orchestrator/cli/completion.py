"""`orch completion`: a shell's script to complete commands, options and issues. Quick: it loads next to nothing."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

SHELLS = {
    "bash": 'eval "$(orch completion bash)"    # in ~/.bashrc',
    "zsh": 'eval "$(orch completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "orch completion fish > ~/.config/fish/completions/orch.fish",
}
"""How each is switched on."""


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


def takes_issues(name: str) -> click.Command:
    """A stand-in for a command while one of its issues is completed, so that the command need not be loaded."""
    from orchestrator.cli.terminal import IssueId

    return click.Command(name, params=[click.Argument(["issues"], nargs=-1, type=IssueId())])
