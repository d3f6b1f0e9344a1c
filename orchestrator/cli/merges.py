"""`orch merges`: look for merges, close what they name, and check that looking works."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

import click

from orchestrator.cli import project
from orchestrator.cli.merges_audit import audit
from orchestrator.cli.terminal import json_option, line, print_json
from orchestrator.errors import OrchestratorError
from orchestrator.merge_close import Health, MergeClosePayload


@click.group("merges")
def command() -> None:
    """Close what was merged: look now, look all the time, or say what was merged.

    \b
      orch merges poll --once --dry-run
      orch merges health
    """


@command.command("poll", short_help="Look for merged work and close its issues.")
@click.option("--once", is_flag=True, help="Look once, then end.")
@click.option("--dry-run", is_flag=True, help="Only say what a look would close now, and why not the rest.")
@json_option
def poll(*, once: bool, dry_run: bool, as_json: bool) -> None:
    """Look for merged work and close its issues, every poll_interval until Ctrl-C.

    `orch up` does this too; both at once is harmless, as looks take turns. What goes wrong in a look is one line, and
    the next look tries again; with --once it is exit code 1.

    \b
      orch merges poll --once
    """
    if not once:
        project.start_anew_without()
    here = project.merges()
    if dry_run:
        _say(here.merge_look.foresee(), as_json=as_json)
        return
    while True:
        try:
            closed = here.look()
            if closed or once:
                _say([f"{issue_id}: closed" for issue_id in closed], as_json=as_json)
            if closed:
                project.poll_soon()  # what waited for it starts now
        except OrchestratorError as error:
            if once:
                raise
            click.echo(line(str(error)), err=True)
        if once:
            break
        time.sleep(project.here().settings.poll_interval)
    _, state, why = here.health()
    if state is not Health.HEALTHY:
        raise OrchestratorError(why)


@command.command("close", short_help="Close one issue by hand, by the same rules.")
@click.argument("issue_id", metavar="ISSUE")
@click.option("--pr-url", required=True, help="The pull request that was merged, or the branch.")
@click.option("--merge-sha", required=True, help="The commit it became on the base branch.")
@click.option("--merged-at", required=True, help="When, as ISO-8601 with a zone: 2026-11-22T20:00:00Z")
@json_option
@click.pass_context
def close(ctx: click.Context, issue_id: str, *, pr_url: str, merge_sha: str, merged_at: str, as_json: bool) -> None:
    """Close one issue by hand, as if its merge had been seen: the same rules, the same markers.

    For a merge that cannot be seen from here. Exit code 1 when the rules do not allow it.

    \b
      orch merges close i-x7k9 --pr-url https://github.com/me/repo/pull/7 \\
        --merge-sha 1f2e3d4 --merged-at 2026-11-22T20:00:00Z
    """
    try:
        at = datetime.fromisoformat(merged_at)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--merged-at") from error
    if at.tzinfo is None:
        raise click.BadParameter("it needs a zone, such as Z", param_hint="--merged-at")
    result = project.merges().close_by_hand(MergeClosePayload(issue_id, pr_url, merge_sha, at, True, "operator"))
    if as_json:
        print_json(
            {"issue_id": issue_id, "applied": result.applied, "reason": result.reason, "closed": list(result.closed)}
        )
    else:
        click.echo(line(f"{issue_id}: {'closed' if result.applied else 'not closed'}: {result.reason}"))
    if not result.closed:
        ctx.exit(1)


@command.command("health", short_help="Say if merges are seen.")
@json_option
@click.pass_context
def health_command(ctx: click.Context, *, as_json: bool) -> None:
    """Say if merges are seen: healthy (exit code 0), degraded (1: the last looks failed) or stale (2: none looks).

    \b
      orch merges health
    """
    look, state, why = project.merges().health()
    if as_json:
        seen = {
            name: at.isoformat() if at else None for name, at in (("looked_at", look.at), ("well_at", look.well_at))
        }
        print_json({"health": state.name.lower(), "reason": why, "failed": look.failed, **seen})
    else:
        click.echo(line(f"{state.name.lower()}: {why}"))
    ctx.exit(state)


@command.command("repair", short_help="Make the record of settled merges anew.")
def repair() -> None:
    """Make the record of settled merges anew, when it cannot be read or is wrong.

    The merges of the last 30 days are looked at again; what is closed already stays as it is, so nothing is closed
    twice.

    \b
      orch merges repair
    """
    project.merges().repair()
    click.echo("the record of settled merges is new; the next look goes through the last 30 days")


command.add_command(audit)


def _say(lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        print_json(list(lines))
        return
    for text in lines:
        click.echo(line(text))
