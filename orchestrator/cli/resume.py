"""`orch resume`: start sessions again after `orch pause`."""

from __future__ import annotations

from dataclasses import asdict

import click

from orchestrator.cli import project
from orchestrator.cli.terminal import json_option, line, me, pause_words, print_json


@click.command
@json_option
def command(*, as_json: bool) -> None:
    """Let new sessions start again after `orch pause` or `orch stop --all`, or from a base branch that is red.

    Ready issues are looked for at once. A red base is let pass until it is verified anew.

    \b
      orch resume
    """
    controls = project.here().controls
    ended, waived = controls.resume(), controls.waive_base(by=me())
    if ended or waived:
        project.poll_soon()
    if as_json:
        print_json({"ended": asdict(ended) if ended else None} | ({"waived": asdict(waived)} if waived else {}))
        return
    if ended or not waived:
        click.echo(f"resumed; it was {line(pause_words(ended))}" if ended else "orch was not paused")
    if waived:
        click.echo(f"sessions start though the base is red: {line(waived.failed)}")
