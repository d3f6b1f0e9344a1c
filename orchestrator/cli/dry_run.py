"""`orch dry-run`: one session in memory, to see that the installed program works."""

from __future__ import annotations

import click

from orchestrator.cli.terminal import print_json
from orchestrator.runner import run_dry_run


@click.command
def command() -> None:
    """Run one made-up issue through a whole session, in memory, and print what became of it as JSON.

    Touches no repo, no Redis and no tracker. `last_event_type` is SESSION_DONE when all is well.

    \b
      orch dry-run
    """
    print_json(run_dry_run())
