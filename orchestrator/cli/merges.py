"""`orch merges`: which merges close which issues."""

from __future__ import annotations

import click

from orchestrator.cli.merges_audit import audit


@click.group
def command() -> None:
    """What becomes of the merges that name an issue.

    \b
      orch merges audit --event-file "$GITHUB_EVENT_PATH" --dry-run
    """


command.add_command(audit)
