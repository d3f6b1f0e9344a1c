"""`orch history`: what happened to an issue, event by event."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from orchestrator import wiring
from orchestrator.cli.terminal import IssueId, json_option, print_json
from orchestrator.merge_close.record import MergeMarker
from orchestrator.models import branch_of
from orchestrator.snapshot import Event, Snapshot, Status, VerifyBlock
from orchestrator.status.history import Run, Source, at, merges_of, recorded, runs_of
from orchestrator.text import line, span

COLOURS = {Status.PASS: "green", Status.FAIL: "red", Status.VERIFY_FAILED: "red", Status.FIX_CREATED: "yellow"}


@click.command("history")
@click.argument("issue", type=IssueId())
@click.option("--session", "number", type=click.IntRange(min=1), help="Only this session; they count from 1.")
@json_option
def command(*, issue: str, number: int | None, as_json: bool) -> None:
    """What happened to an issue: every step of its sessions, how long it took, what failed.

    \b
    orch history i-a1b2
    orch history i-a1b2 --session 1 --json

    Sessions older than thirty days, and those of another machine, are read from the issue's feedback in the tracker.
    """
    here = wiring.here()
    source, snapshots = recorded(here, issue)
    runs = runs_of(snapshots, here.settings.logs / issue)
    merges = merges_of(here, issue)
    shown = [run for run in runs if number in (None, run.number)]
    if as_json:
        print_json(as_object(issue, source, shown, merges))
    elif not runs:
        click.echo(f"{issue}: no session is known; `orch status` says what it waits for")
    elif not shown:
        raise click.UsageError(f"{issue} has had {len(runs)} sessions, no number {number}")
    else:
        Console().print(page(issue, source, shown, merges))


def as_object(
    issue: str, source: Source, runs: Sequence[Run], merges: Sequence[MergeMarker] | None
) -> dict[str, object]:
    """The history as JSON values."""
    return {
        "issue": issue,
        "source": source,
        "branch": branch_of(issue),
        "merges": None if merges is None else [merge.model_dump(mode="json") for merge in merges],
        "sessions": [
            {
                "number": run.number,
                "session_id": run.session_id,
                "duration_s": round(run.duration_s, 3),
                "logs": str(run.logs),
                "events": [
                    m.snapshot.model_dump(mode="json", exclude_unset=True) | {"after_s": round(m.after_s, 3)}
                    for m in run.moments
                ],
            }
            for run in runs
        ],
    }


def page(issue: str, source: Source, runs: Sequence[Run], merges: Sequence[MergeMarker] | None) -> Group:
    """The history for a terminal."""
    parts: list[Text | Table] = []
    if source == "tracker":
        parts.append(
            Text("Redis knows nothing of it: this is the issue's feedback, which agents may write too", "yellow")
        )
    for run in runs:
        title = line(run.moments[0].snapshot.task_id)
        parts += [
            Text.assemble((f"{issue} {title}, session {run.number}", "bold"), f"   {run.session_id}"),
            _timeline(run),
            Text(f"logs    {run.logs}", "dim", overflow="fold"),
        ]
    parts += [Text(line(f"{merge.marker}: {merge.reason} ({merge.pr_url})")) for merge in merges or ()]
    return Group(*parts, Text(f"branch  {branch_of(issue)}", "dim"))


def _timeline(run: Run) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for style in ("dim", "dim", None):
        table.add_column(style=style, no_wrap=True, justify="right" if style else "left")
    table.add_column(overflow="fold")
    shown: VerifyBlock | None = None
    for moment in run.moments:
        told = moment.snapshot
        # A snapshot repeats the latest evidence; a reader needs it once.
        evidence, shown = (told.verify if told.verify != shown else None), told.verify
        when = at(told).astimezone().strftime("%H:%M:%S")
        event = Text(told.event_type, COLOURS.get(told.status, ""))
        table.add_row(when, f"+{_lap(moment.after_s)}", event, Text("\n".join(details(told, evidence, run.logs))))
    return table


def _lap(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else span(seconds)


def details(told: Snapshot, evidence: VerifyBlock | None, logs: Path) -> list[str]:
    """What an event's name does not say, a line each."""
    attempt = told.attempts.spec if told.stage.startswith("SPEC") else told.attempts.quality
    lines = [f"attempt {attempt}"] if told.stage.startswith(("SPEC", "QUALITY")) else []
    lines += [f"- {line(item)}" for item in told.failed_items]
    if evidence is None:
        return lines
    at = datetime.fromisoformat(evidence.produced_at).astimezone().strftime("%H:%M:%S")
    who = "orch" if told.event_type in (Event.SESSION_DONE, Event.VERIFY_FAILED) else "the agent says"
    output = Path(evidence.output_ref or "")
    where = output.name if output.parent == logs else line(str(output))
    ran = f"{who}: `{line(evidence.command)}` exited with {evidence.exit_code} at {at}"
    return [*lines, f"{ran}, output in {where}" if evidence.output_ref else ran]
