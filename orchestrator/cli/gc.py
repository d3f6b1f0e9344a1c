"""`orch gc`: remove what closed issues left in git, and decide which of it may go."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass

import click

from orchestrator.adapters.git import Leftover, LeftoverKind
from orchestrator.cli import project
from orchestrator.cli.terminal import json_option, line, print_json
from orchestrator.errors import WorkspaceError
from orchestrator.issue import listed
from orchestrator.models import IssueStatus


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
    here = project.here()
    status = _statuses(here)
    live = {holding.issue_id for holding in here.leases.holdings() if holding.live} if here.is_up else set()
    leftovers = here.workspace.leftovers()
    found, problems = leftovers.find({issue_id for issue_id in status if status[issue_id] is IssueStatus.CLOSED})
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


def _statuses(here: project.Wiring) -> dict[str, IssueStatus | None]:
    """Every issue's status; the tracker leaves archived ones out unless it is asked for them."""
    with here.tracker as tracker:
        issues = listed([*tracker.list_issues(), *tracker.list_issues(archived=True)])
    return {issue.id: issue.status for issue in issues}


def _failing(remove: Iterable[Leftover], perform: Callable[[Leftover], None]) -> Iterable[Kept]:
    """Remove one after another; gives those that could not be removed, and why."""
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


_ORDER = list(LeftoverKind)


@dataclass(frozen=True)
class Kept:
    """A leftover that stays, why, and what to do about it."""

    leftover: Leftover
    why: str


@dataclass(frozen=True)
class Plan:
    """The leftovers to remove and to keep, in order; those of issues that are not closed are not mentioned."""

    remove: tuple[Leftover, ...]
    keep: tuple[Kept, ...]


def plan(found: Iterable[Leftover], *, status: Mapping[str, IssueStatus | None], live: Container[str]) -> Plan:
    """Plan by each issue's `status` in the tracker, and by the `live` issues: those in a session."""
    remove: list[Leftover] = []
    keep: list[Kept] = []
    for leftover in sorted(found, key=lambda found: (found.issue_id, _ORDER.index(found.kind), found.name)):
        issue_id = leftover.issue_id
        if issue_id in live:
            keep.append(Kept(leftover, "its session is in flight; see `orch status`"))
        elif issue_id not in status:
            keep.append(Kept(leftover, "the tracker does not know its issue; remove it by hand if it is not needed"))
        elif status[issue_id] is not IssueStatus.CLOSED:
            continue
        elif leftover.may_go:
            remove.append(leftover)
        else:
            keep.append(Kept(leftover, leftover.why))
    return Plan(tuple(remove), tuple(keep))
