"""`orch explain`: why one issue is, or is not, running."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import click

from orchestrator.cli import project
from orchestrator.cli.terminal import IssueId, json_option, line, print_json, span
from orchestrator.models import utc_now
from orchestrator.status import Explanation, explained


@click.command
@click.argument("issue", type=IssueId())
@json_option
def command(*, issue: str, as_json: bool) -> None:
    """Say why an issue is, or is not, running: the cause, since when, what happens next, and what you can do.

    \b
      orch explain i-a1b2
      orch explain i-a1b2 --json | jq -r '.do[0]'

    Works while orch is down, and while Redis or the tracker is away: that is then part of the answer. The last lines
    are commands to paste, the best one first.
    """
    found = explained(project.here().sources(), issue)
    if as_json:
        print_json(as_object(issue, found))
    else:
        click.echo("\n".join(page(issue, found, now=utc_now())))


def as_object(issue: str, found: Explanation) -> dict[str, object]:
    """The explanation as JSON values."""
    return asdict(found) | {"issue": issue, "since": found.since.isoformat() if found.since else None}


def page(issue: str, found: Explanation, *, now: datetime) -> list[str]:
    """The explanation for people: a headline, then a line for all there is to say."""
    since = ""
    if found.since:
        ago = span((now - found.since).total_seconds())
        since = f"{found.since.astimezone():%Y-%m-%d %H:%M:%S}, {ago} ago"
    rows = {
        "why": [found.why],
        "since": [since],
        "next": [found.next],
        "evidence": found.evidence,
        "also": found.also,
        "do": found.do,
    }
    told = [(name, says) for name, lines in rows.items() for says in lines if says]
    names = ["", *(name for name, _ in told)]
    # A name stands only before the first of its lines.
    return [f"{issue}  {found.kind}: {line(found.cause)}"] + [
        f"  {'' if name == before else name:<10}{line(says)}" for before, (name, says) in zip(names, told, strict=False)
    ]
