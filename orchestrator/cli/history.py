"""`orch history`: what happened to an issue, event by event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from orchestrator.cli import project
from orchestrator.cli.terminal import IssueId, json_option, line, print_json, span
from orchestrator.errors import OrchestratorError
from orchestrator.merge_close.record import MergeMarker
from orchestrator.snapshot import Event, Snapshot, Status, VerifyBlock
from orchestrator.status import Facts, SessionTold, look_at

Source = Literal["redis", "tracker"]

COLOURS = {Status.PASS: "green", Status.FAIL: "red", Status.VERIFY_FAILED: "red", Status.FIX_CREATED: "yellow"}


@click.command("history")
@click.argument("issue", type=IssueId())
@click.option("--session", "number", type=click.IntRange(min=1), help="Only this session; they count from 1.")
@json_option
def command(*, issue: str, number: int | None, as_json: bool) -> None:
    """Show what happened to an issue: every step of its sessions, how long it took, what failed.

    \b
    orch history i-a1b2
    orch history i-a1b2 --session 1 --json

    Sessions older than thirty days, and those of another machine, are read from the issue's feedback in the tracker.
    """
    sources = project.here().sources()
    facts = look_at(sources, issue, waits=False)
    source, sessions, merges = told(facts, issue)
    logs = sources.logs / issue
    shown = {count: session for count, session in sessions.items() if number in (None, count)}
    if as_json:
        print_json(as_object(issue, source, shown, merges, branch=facts.of(issue).branch, logs=logs))
    elif not sessions:
        click.echo(f"{issue}: no session is known; `orch status` says what it waits for")
    elif not shown:
        raise click.UsageError(f"{issue} has had {len(sessions)} sessions, no number {number}")
    else:
        Console().print(page(issue, source, shown, merges, branch=facts.of(issue).branch, logs=logs))


Sessions = Mapping[int, SessionTold]
"""Sessions by their numbers, which count from 1."""
Merges = Sequence[MergeMarker] | None


def told(facts: Facts, issue: str) -> tuple[Source, Sessions, Merges]:
    """The issue's sessions, as Redis has them or else as the tracker was told, and what became of its merges.

    OrchestratorError when neither knows anything of it. `merges` is None when the tracker does not say.
    """
    redis, tracked = facts.redis, facts.of(issue).tracked
    source: Source = "redis" if redis.answer and issue in redis.answer.sessions else "tracker"
    if redis.away:
        click.echo(f"Redis does not answer ({redis.away}); this is what the tracker was told", err=True)
    missing = tracked.refusal if tracked else f"the tracker does not answer: {facts.tracker.away}"
    if missing and source == "tracker":
        raise OrchestratorError(f"{issue}: {missing}")
    if missing:
        click.echo(f"what became of its merges is not known: {missing}", err=True)
    sessions = dict(enumerate(facts.of(issue).sessions, start=1))
    return source, sessions, tracked.merges if tracked and not missing else None


def as_object(
    issue: str, source: Source, sessions: Sessions, merges: Merges, *, branch: str, logs: Path
) -> dict[str, object]:
    """The history as JSON values."""
    return {
        "issue": issue,
        "source": source,
        "branch": branch,
        "merges": None if merges is None else [merge.model_dump(mode="json") for merge in merges],
        "sessions": [
            {
                "number": number,
                "session_id": session.session_id,
                "duration_s": round(session.seconds, 3),
                "logs": str(logs / session.session_id),
                "events": [
                    m.snapshot.model_dump(mode="json", exclude_unset=True) | {"after_s": round(m.after_s, 3)}
                    for m in session.moments
                ],
            }
            for number, session in sessions.items()
        ],
    }


def page(issue: str, source: Source, sessions: Sessions, merges: Merges, *, branch: str, logs: Path) -> Group:
    """The history for a terminal."""
    parts: list[Text | Table] = []
    if source == "tracker":
        parts.append(
            Text("Redis knows nothing of it: this is the issue's feedback, which agents may write too", "yellow")
        )
    for number, session in sessions.items():
        title, printed = line(session.moments[0].snapshot.task_id), logs / session.session_id
        parts += [
            Text.assemble((f"{issue} {title}, session {number}", "bold"), f"   {session.session_id}"),
            _timeline(session, printed),
            Text(f"logs    {printed}", "dim", overflow="fold"),
        ]
    parts += [Text(line(f"{merge.marker}: {merge.reason} ({merge.pr_url})")) for merge in merges or ()]
    return Group(*parts, Text(f"branch  {branch}", "dim"))


def _timeline(session: SessionTold, logs: Path) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for style in ("dim", "dim", None):
        table.add_column(style=style, no_wrap=True, justify="right" if style else "left")
    table.add_column(overflow="fold")
    shown: VerifyBlock | None = None
    for moment in session.moments:
        told = moment.snapshot
        # A snapshot repeats the latest evidence; a reader needs it once.
        evidence, shown = (told.verify if told.verify != shown else None), told.verify
        when = moment.at.astimezone().strftime("%H:%M:%S")
        event = Text(told.event_type, COLOURS.get(told.status, ""))
        table.add_row(when, f"+{span(moment.after_s)}", event, Text("\n".join(details(told, evidence, logs))))
    return table


def details(told: Snapshot, evidence: VerifyBlock | None, logs: Path) -> list[str]:
    """The details that an event's name does not say, a line each."""
    attempt = told.attempts.spec if told.stage.startswith("SPEC") else told.attempts.quality
    lines = [f"attempt {attempt}"] if told.stage.startswith(("SPEC", "QUALITY")) else []
    lines += [f"- {line(item)}" for item in told.reasons]
    if evidence is None:
        return lines
    at = datetime.fromisoformat(evidence.produced_at).astimezone().strftime("%H:%M:%S")
    who = "orch" if told.event_type in (Event.SESSION_DONE, Event.VERIFY_FAILED) else "the agent says"
    output = Path(evidence.output_ref or "")
    where = output.name if output.parent == logs else line(str(output))
    ran = f"{who}: `{line(evidence.command)}` exited with {evidence.exit_code} at {at}"
    return [*lines, f"{ran}, output in {where}" if evidence.output_ref else ran]
