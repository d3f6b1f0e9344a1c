"""`orch report`: the morning digest, from Redis and the tracker."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import click

from orchestrator.cli import project
from orchestrator.cli.terminal import json_option, plain, print_json
from orchestrator.status import as_markdown, as_object, as_text, digest_of, gaps_of, look_back, night_of, since_when

Form = Literal["text", "markdown", "json"]


class Since(click.ParamType[datetime]):
    """A moment in the past."""

    name = "when"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, in the zone of this machine."""
        if isinstance(value, datetime):
            return value
        now = datetime.now(UTC).astimezone()
        try:
            since = since_when(value, now=now)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; say 12h, 2d, yesterday, 2026-11-22 or 2026-11-22T18:00", param, ctx)
        if since > now:
            self.fail(f"{value} is still to come", param, ctx)
        return since


@click.command("report")
@click.option("--since", type=Since(), default="16h", show_default=True, help="From when on: 12h, yesterday, a date.")
@click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@json_option
def command(*, since: datetime, form: Form, as_json: bool) -> None:
    """The night in a minute: what was merged, what is ready and why you may trust it, what needs you, what failed.

    \b
    orch report
    orch report --since yesterday --format markdown > night.md
    orch report --since 2d --json | jq .counts

    Counts every session that ran since then, and works while orch is down. Closed issues are those that a session of
    ours had finished.
    """
    sources = project.here().sources()
    facts = look_back(sources, since)
    issues = night_of(facts, since)
    until = datetime.now(UTC).astimezone()
    found = digest_of(sources.project, issues, since=since.astimezone(), until=until, gaps=gaps_of(facts))
    if as_json or form == "json":
        print_json(as_object(found, issues))
    else:
        click.echo(plain(as_markdown(found) if form == "markdown" else as_text(found)))
