"""`orch doctor`: check this repo and machine, and say how to mend what is wrong."""

from __future__ import annotations

import click
from rich.console import Console
from rich.text import Text

from orchestrator.cli import verify_base
from orchestrator.cli.checks import Finding, Level, examine
from orchestrator.cli.terminal import json_option, line, print_json

COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command
@click.option("--verify", is_flag=True, help="Also set a clean checkout of the base up and verify it.")
@json_option
@click.pass_context
def command(ctx: click.Context, verify: bool, as_json: bool) -> None:
    """Check everything that orch needs here: ok, or what is wrong and how to mend it.

    Changes nothing and starts nothing that stays. Exit code 1 when something keeps sessions from running; a `warn`
    does not. With --verify it says whether your base branch is green, and how long that takes: once it is green, what
    waited for a red one is claimed.

    \b
      orch doctor
      orch doctor --verify
      orch doctor --json
    """
    # Progress goes to stderr with --json, so that stdout is one JSON value.
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    found: list[tuple[str, Finding]] = []
    with console.status("looking") as status:
        instead = {"base": verify_base.now} if verify else {}
        for name, finding in examine(lambda name: status.update(f"looking at {name}"), **instead):
            found.append((name, finding))
            if not as_json:
                console.print(row(name, finding))
    failures = sum(finding.level is Level.FAIL for _, finding in found)
    if as_json:
        print_json({"ok": not failures, "findings": [_record(name, finding) for name, finding in found]})
    else:
        console.print(f"\n{failures} to mend" if failures else "\nAll that is needed is there.")
    if failures:
        ctx.exit(1)


def row(name: str, finding: Finding) -> Text:
    """A finding as lines for a person."""
    told = Text.assemble((f"{finding.level:<5}", COLOURS[finding.level]), f"{name:<10}", line(finding.says))
    return told.append(f"\n{'':15}-> {finding.fix}", "dim") if finding.fix else told


def _record(name: str, finding: Finding) -> dict[str, str]:
    return {"check": name, "level": finding.level, "says": finding.says, "fix": finding.fix}
