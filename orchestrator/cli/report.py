"""`orch report`: the morning digest, from Redis and the tracker."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import click
import redis

from orchestrator import digest, wiring
from orchestrator.adapters.redis_leases import RedisLeases
from orchestrator.adapters.redis_merges import RedisMerges
from orchestrator.candidates import too_many_fixes
from orchestrator.cli.terminal import json_option, plain, print_json
from orchestrator.digest import since_when
from orchestrator.digest_facts import IssueFact, SessionFact, session_of
from orchestrator.errors import InvalidMCPResponseError, RedisUnavailable, TrackerRefused, TransientMCPError
from orchestrator.gateway import feedback_of
from orchestrator.ports import Holding
from orchestrator.snapshot import read_snapshot
from orchestrator.status import leases_if_up, snapshots_of

if TYPE_CHECKING:
    from orchestrator.adapters.mcp import McpTracker

Form = Literal["text", "markdown", "json"]
Rows = Mapping[str, Mapping[str, object]]


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
    here = wiring.here()
    gaps: list[str] = []
    with here.tracker:
        rows = _rows(here.tracker, gaps)
        issues = sorted(_facts(here, rows, since, gaps), key=lambda issue: issue.sessions[0].started_at)
    until = datetime.now(UTC).astimezone()
    found = digest.digest(here.settings.project, issues, since=since.astimezone(), until=until, gaps=gaps)
    if as_json or form == "json":
        print_json(digest.as_object(found, issues))
    else:
        click.echo(plain(digest.as_markdown(found) if form == "markdown" else digest.as_text(found)))


def _rows(tracker: McpTracker, gaps: list[str]) -> Rows | None:
    """Every issue as the tracker lists it, by its id; None when it does not."""
    try:
        rows = [*tracker.list_issues(), *tracker.list_issues(archived=True)]
    except (TransientMCPError, TrackerRefused, InvalidMCPResponseError) as error:
        gaps.append(f"the tracker does not answer, so what was merged is not known: {error}")
        return None
    return {str(row["id"]): row for row in rows if isinstance(row, Mapping) and row.get("id")}


def _facts(here: wiring.Wiring, rows: Rows | None, since: datetime, gaps: list[str]) -> Iterator[IssueFact]:
    """Every issue that had a session since then, or was closed after one."""
    try:
        leases = leases_if_up(here)
        if leases is None:
            gaps.append("orch is not running here: sessions are as the tracker was told of them")
            yield from _published(here, rows or {}, since)
            return
        finished = RedisMerges(here.client, here.keys)
        for holding in leases.holdings():
            row = (rows or {}).get(holding.issue_id, {})
            sessions = tuple(_sessions(leases, holding, since, row))
            if holding.record and sessions:
                done = finished.work(holding.issue_id)
                fact = _fact(holding, row, sessions, commit=done[1][-1].commit if done else "")
                yield replace(fact, fix_held=_held((rows or {}).get(fact.fix_issue_id, {})))
    except (redis.RedisError, RedisUnavailable) as error:
        gaps.append(f"Redis does not answer, so sessions are missing: {error}")


def _published(here: wiring.Wiring, rows: Rows, since: datetime) -> Iterator[IssueFact]:
    """The same from the snapshots in the tracker, which agents may have written too."""
    for issue_id, row in rows.items():
        changed = _moment(row.get("updated_at"))
        if changed is not None and changed < since:
            continue
        given = reversed(list(feedback_of(here.gateway.show_issue(issue_id))))
        told = [snapshot for content in given if (snapshot := read_snapshot(content))]
        runs = [session_of(list(run)) for _, run in groupby(told, key=lambda snapshot: snapshot.session_id)]
        if sessions := tuple(session for session in runs if session.heard_at >= since):
            title = " ".join(str(row.get("title")).split())
            yield IssueFact(issue_id, title, str(row.get("status")), sessions, place=f"orch/{issue_id}")


def _sessions(leases: RedisLeases, holding: Holding, since: datetime, row: Mapping[str, object]) -> list[SessionFact]:
    """The issue's sessions since then; the last one, however old, if the issue was closed since."""
    since_ms = since.timestamp() * 1000
    closed = _moment(row.get("closed_at")) if row.get("status") == "closed" else None
    closed_since = closed is not None and closed >= since
    if not holding.live and holding.ended_at_ms < since_ms and not closed_since:
        return []
    known = [session_of(told) for run in leases.runs(holding.issue_id) if (told := snapshots_of(leases, run))]
    return [session for session in known if session.heard_at >= since] or (known[-1:] if closed_since else [])


def _fact(holding: Holding, row: Mapping[str, object], sessions: Sequence[SessionFact], *, commit: str) -> IssueFact:
    assert holding.record
    live, place = holding.live, holding.delivered_to or f"orch/{holding.issue_id}"
    return IssueFact(
        id=holding.issue_id,
        title=" ".join(str(row.get("title") or holding.record.issue.title).split()),
        status=str(row["status"]) if "status" in row else None,
        sessions=tuple(sessions),
        live=live,
        held=not live and math.isinf(holding.held_until_ms or 0),
        place=f"not delivered yet: {holding.undelivered}" if holding.undelivered else place,
        commit=commit,
        fix_issue_id=holding.fix_issue_id or "",
    )


def _held(fix: Mapping[str, object]) -> bool:
    """Whether an overflow's [FIX] issue is one too many to run by itself."""
    return fix.get("status") == "open" and bool(too_many_fixes(fix.get("title")))


def _moment(text: object) -> datetime | None:
    """A time of the tracker, which writes UTC and does not say so."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
