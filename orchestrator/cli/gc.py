"""`orch gc`: remove what closed issues left in git."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

import click

from orchestrator import wiring
from orchestrator.cli.terminal import json_option, line, print_json
from orchestrator.errors import WorkspaceError
from orchestrator.leftovers import CLOSED, Kept, plan
from orchestrator.ports import Leftover
from orchestrator.status import leases_if_up


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed, and what would stay.")
@json_option
@click.pass_context
def command(ctx: click.Context, *, dry_run: bool, as_json: bool) -> None:
    """Remove the worktrees, branches and refs that closed issues left, here and on the remote.

    Work goes only if your base branch has it, squashed counts, or a branch of the remote does; what stays is listed
    with the reason. Issues that are not closed are not touched, nor is any log. Exit code 1 when something could not
    be removed.

    \b
      orch gc --dry-run
      orch gc
    """
    here = wiring.here()
    status = _statuses(here)
    leases = leases_if_up(here)
    live = {holding.issue_id for holding in leases.holdings() if holding.live} if leases else set()
    leftovers = here.workspace.leftovers()
    found, problems = leftovers.find({issue_id for issue_id in status if status[issue_id] == CLOSED})
    planned = plan(found, status=status, live=live)
    failed = [] if dry_run else list(_failing(planned.remove, leftovers.remove))
    staying = {kept.leftover for kept in failed}
    gone = [leftover for leftover in planned.remove if leftover not in staying]
    if as_json:
        print_json(_as_object(gone, [*planned.keep, *failed], problems, dry_run=dry_run))
    else:
        _print(gone, [*planned.keep, *failed], problems, verb="would remove" if dry_run else "removed")
    if failed:
        ctx.exit(1)


def _statuses(here: wiring.Wiring) -> dict[str, str]:
    """Every issue's status; the tracker leaves archived ones out unless it is asked for them."""
    with here.tracker as tracker:
        rows = [*tracker.list_issues(), *tracker.list_issues(archived=True)]
    return {str(row["id"]): str(row["status"]) for row in rows}


def _failing(remove: Iterable[Leftover], perform: Callable[[Leftover], None]) -> Iterable[Kept]:
    """Remove one after another; what could not be removed, and why."""
    for leftover in remove:
        try:
            perform(leftover)
        except WorkspaceError as error:
            yield Kept(leftover, str(error))


def _as_object(
    gone: Iterable[Leftover], keep: Iterable[Kept], problems: list[str], *, dry_run: bool
) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "removed": [_record(leftover, leftover.why) for leftover in gone],
        "kept": [_record(kept.leftover, kept.why) for kept in keep],
        "problems": problems,
    }


def _record(leftover: Leftover, why: str) -> dict[str, object]:
    record = asdict(leftover)
    del record["may_go"]
    return record | {"why": why}


def _print(gone: list[Leftover], keep: list[Kept], problems: list[str], *, verb: str) -> None:
    for leftover in gone:
        click.echo(line(f"{verb} {leftover.kind} {leftover.name}: {leftover.why}"))
    for kept in keep:
        click.echo(line(f"kept {kept.leftover.kind} {kept.leftover.name}: {kept.why}"))
    if not gone and not keep:
        click.echo("closed issues have left nothing")
    for problem in problems:
        click.echo(f"! {line(problem)}", err=True)
