"""`orch resume`: start sessions again after `orch pause`."""

from __future__ import annotations

from dataclasses import asdict

import click

from orchestrator import wiring
from orchestrator.cli.terminal import json_option, pause_words, print_json
from orchestrator.text import line


@click.command
@json_option
def command(*, as_json: bool) -> None:
    """Let new sessions start again after `orch pause` or `orch stop --all`. Ready issues are looked for at once.

    \b
      orch resume
    """
    ended = wiring.here().controls.resume()
    if ended:
        from orchestrator.celery import tick

        tick("poll")
    if as_json:
        print_json({"ended": asdict(ended) if ended else None})
    else:
        click.echo(f"resumed; it was {line(pause_words(ended))}" if ended else "orch was not paused")
