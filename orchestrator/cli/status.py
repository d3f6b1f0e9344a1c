"""`orch status`: what runs, what waits and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from orchestrator.cli import project
from orchestrator.cli.issue_row import age, bar, brief, headline, step
from orchestrator.cli.terminal import json_option, line, print_json
from orchestrator.cli.watch import watch
from orchestrator.status import EngineStatus, collect

Overflow = Literal["fold", "ellipsis"]


@click.command("status")
@click.option(
    "--watch",
    "watch_s",
    type=click.FloatRange(min=0.2),
    is_flag=False,
    flag_value=1.0,
    metavar="[SECONDS]",
    help="One screen, looked at anew every so often, until Ctrl-C. Default: every second.",
)
@json_option
def command(*, watch_s: float | None, as_json: bool) -> None:
    """Every open issue: its session, how far it is, how it ended, why it waits.

    \b
    orch status
    orch status --watch
    orch status --json | jq '.issues[] | select(.verdict)'

    The bar shows implement, spec review, quality review, verify: a filled dot is done, a half one is under way, a
    cross is where it ended. Works while nothing runs, and while the tracker is down; it then says so. --watch adds
    what waits in the order in which it will run, and a list of problems that is empty on a good night.
    """
    if watch_s and as_json:
        raise click.UsageError("--watch is for people, --json for machines: give one of them")
    sources = project.here().sources()
    if watch_s:
        watch(sources, every_s=watch_s)
    elif as_json:
        print_json(as_object(collect(sources)))
    else:
        Console().print(page(collect(sources)))


def as_object(found: EngineStatus) -> dict[str, object]:
    """The status as JSON values."""
    return asdict(found) | {"settled": found.settled}


def page(found: EngineStatus, *, reasons: Overflow = "fold") -> Group:
    """The whole status for a terminal; what to do with reasons that are wider than their column."""
    head = headline(found)
    body = issue_table(found, reasons) if found.issues else Text('no open issues; file one with `orch issue add "..."`')
    return Group(head, body, *(Text(f"! {line(problem)}", "yellow") for problem in found.problems))


def issue_table(found: EngineStatus, reasons: Overflow) -> Table:
    """One row per issue."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("issue", no_wrap=True, min_width=max(len(issue.id) for issue in found.issues))
    table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=2)
    for name in ("status", "session", "step", "age"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow=reasons, no_wrap=reasons == "ellipsis", ratio=3)
    for issue in found.issues:
        title, reason = Text(line(issue.title)), Text(brief(issue.reason))
        table.add_row(issue.id, title, issue.status or "?", bar(issue), step(issue), age(issue), reason)
    return table
