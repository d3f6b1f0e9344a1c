"""`orch pause`: start no new session until `orch resume`."""

from __future__ import annotations

from dataclasses import asdict

import click

from orchestrator.cli import project
from orchestrator.cli.terminal import json_option, line, me, pause_words, print_json


@click.command
@click.option("--reason", default="", metavar="TEXT", help="The reason, shown wherever the pause is.")
@json_option
def command(reason: str, *, as_json: bool) -> None:
    """Let no new session start, on any host, until `orch resume`.

    Sessions that run go on to their end; `orch stop --all` ends them too. The pause outlives a restart. Pausing twice
    keeps the first pause.

    \b
      orch pause --reason "the disk is nearly full"
    """
    paused = project.here().controls.pause(by=me(), reason=reason)
    if as_json:
        print_json(asdict(paused))
    else:
        click.echo(f"{line(pause_words(paused))}; no new session starts until `orch resume`")
