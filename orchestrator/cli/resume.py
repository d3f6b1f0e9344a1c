"""`orch resume`: start sessions again after `orch pause`."""

from __future__ import annotations

from dataclasses import asdict

import click

from orchestrator.cli import project
from orchestrator.cli.terminal import json_option, line, pause_words, print_json


@click.command
@json_option
def command(*, as_json: bool) -> None:
    """Let new sessions start again after `orch pause` or `orch stop --all`. Ready issues are looked for at once.

    \b
      orch resume
    """
    ended = project.here().controls.resume()
    if ended:
        project.poll_soon()
    if as_json:
        print_json({"ended": asdict(ended) if ended else None})
    else:
        click.echo(f"resumed; it was {line(pause_words(ended))}" if ended else "orch was not paused")
