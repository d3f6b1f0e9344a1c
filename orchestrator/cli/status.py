"""`orch status`: what runs, what waits and why."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Literal

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator import status, wiring
from orchestrator.cli.terminal import json_option, line, print_json
from orchestrator.digest import span
from orchestrator.models import Stage, Verdict
from orchestrator.status import EngineStatus, IssueStatus

REFRESH_S = 1.0
Overflow = Literal["fold", "ellipsis"]
COLOURS = {Verdict.DONE: "green", Verdict.OVERFLOW: "yellow", Verdict.VERIFY_FAILED: "red", Verdict.ERROR: "red"}
PLACES = {
    Stage.RUNNING: 0,
    Stage.SPEC_REVIEW: 1,
    Stage.SPEC_FIX: 1,
    Stage.QUALITY_REVIEW: 2,
    Stage.QUALITY_FIX: 2,
    Stage.VERIFICATION: 3,
}


@click.command("status")
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@json_option
def command(*, watch: bool, as_json: bool) -> None:
    """Every open issue: its session, how far it is, how it ended, why it waits.

    \b
    orch status
    orch status --watch
    orch status --json | jq '.issues[] | select(.verdict)'

    The bar shows implement, spec review, quality review, verify: a filled dot is done, a half one is under way, a
    cross is where it ended. Works while nothing runs, and while the tracker is down; it then says so.
    """
    if watch and as_json:
        raise click.UsageError("--watch is for people, --json for machines: give one of them")
    here = wiring.here()
    if as_json:
        print_json(as_object(status.collect(here)))
    elif watch:
        _watch(here)
    else:
        Console().print(page(status.collect(here)))


def _watch(here: wiring.Wiring) -> None:
    try:
        with Live(page(status.collect(here)), auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(REFRESH_S)
                live.update(page(status.collect(here)), refresh=True)
    except KeyboardInterrupt:
        return


def as_object(found: EngineStatus) -> dict[str, object]:
    """The status as JSON values."""
    return asdict(found) | {"settled": found.settled}


def page(found: EngineStatus, *, reasons: Overflow = "fold") -> Group:
    """The whole status for a terminal; what to do with reasons that are wider than their column."""
    head = Text.assemble(
        (found.project, "bold"), f"   sessions {found.slots_used} of {found.slots_total}   to tell {found.outbox}"
    )
    body = issue_table(found, reasons) if found.issues else Text('no open issues; file one with `orch issue add "..."`')
    return Group(head, body, *(Text(f"! {line(problem)}", "yellow") for problem in found.problems))


def issue_table(found: EngineStatus, reasons: Overflow) -> Table:
    """One row per issue."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("issue", no_wrap=True)
    table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=2)
    for name in ("status", "session", "step", "age"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow=reasons, no_wrap=reasons == "ellipsis", ratio=3)
    for issue in found.issues:
        title, reason = Text(line(issue.title)), Text(line(issue.reason))
        table.add_row(issue.id, title, issue.status or "?", bar(issue), step(issue), age(issue), reason)
    return table


def bar(issue: IssueStatus) -> Text:
    """The lifecycle as four dots; blank without a session."""
    if issue.stage is None:
        return Text("")
    place, cut_short = PLACES[Stage(issue.stage)], issue.verdict not in (None, Verdict.DONE)
    dots = Text()
    for n in range(4):
        if n < place or issue.verdict is Verdict.DONE:
            dots.append("●", "green")
        elif n == place:
            dots.append("✗" if cut_short else "◐", "red" if cut_short else "yellow")
        else:
            dots.append("○", "dim")
    return dots


def step(issue: IssueStatus) -> Text:
    """The step under way, or the verdict."""
    if issue.verdict:
        return Text(issue.verdict, COLOURS[issue.verdict])
    if not issue.live:
        return Text("-", "dim")
    if issue.stage is None or issue.state == "claimed":
        return Text("starting", "dim")
    if issue.stage == Stage.RUNNING:
        return Text("implement")
    return Text(f"{issue.stage.lower().replace('_', ' ')} {issue.attempt}")


def age(issue: IssueStatus) -> str:
    """How long it has run, or how long ago it ended, as briefly as can be."""
    if issue.age_s is None:
        return ""
    return span(issue.age_s) + ("" if issue.live else " ago")
