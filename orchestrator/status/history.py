"""The sessions of one issue, event by event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Literal

import click
import redis

from orchestrator import wiring
from orchestrator.errors import InvalidMCPResponseError, RedisUnavailable, TrackerRefused, TransientMCPError
from orchestrator.issue import feedback_of
from orchestrator.merge_close.record import MergeMarker, markers_of
from orchestrator.snapshot import Snapshot, read_snapshot
from orchestrator.status.board import leases_if_up, snapshots_of


@dataclass(frozen=True)
class Moment:
    """One snapshot, and how long after the one before it."""

    snapshot: Snapshot
    after_s: float


@dataclass(frozen=True)
class Run:
    """One session of an issue, from its snapshots. `number` counts from 1."""

    number: int
    session_id: str
    moments: tuple[Moment, ...]
    logs: Path

    @property
    def duration_s(self) -> float:
        """From the first snapshot to the last."""
        return sum(moment.after_s for moment in self.moments)


Source = Literal["redis", "tracker"]


def recorded(here: wiring.Wiring, issue: str) -> tuple[Source, list[Snapshot]]:
    """Every snapshot of the issue, oldest first, as Redis has them; else as they were published."""
    try:
        leases = leases_if_up(here)
        known = [s for run in leases.runs(issue) for s in snapshots_of(leases, run)] if leases else []
    except (redis.RedisError, RedisUnavailable) as error:
        click.echo(f"Redis does not answer ({error}); this is what the tracker was told", err=True)
        known = []
    if known:
        return "redis", known
    published = reversed(list(feedback_of(here.gateway.show_issue(issue))))
    return "tracker", [snapshot for content in published if (snapshot := read_snapshot(content))]


def merges_of(here: wiring.Wiring, issue: str) -> list[MergeMarker] | None:
    """What became of the issue's merges, oldest first; None when the tracker does not say."""
    try:
        return markers_of(feedback_of(here.gateway.show_issue(issue)))
    except (TransientMCPError, TrackerRefused, InvalidMCPResponseError) as error:
        click.echo(f"what became of its merges is not known: {error}", err=True)
        return None


def runs_of(snapshots: Iterable[Snapshot], logs: Path) -> list[Run]:
    """Snapshots in order as the sessions they belong to."""
    sessions = [list(group) for _, group in groupby(snapshots, key=lambda snapshot: snapshot.session_id)]
    return [
        Run(number, told[0].session_id, tuple(_moments(told)), logs / told[0].session_id)
        for number, told in enumerate(sessions, start=1)
    ]


def _moments(told: Sequence[Snapshot]) -> Iterable[Moment]:
    before = told[0]
    for snapshot in told:
        yield Moment(snapshot, max(0.0, (at(snapshot) - at(before)).total_seconds()))
        before = snapshot


def at(snapshot: Snapshot) -> datetime:
    """When a snapshot was taken."""
    return datetime.fromisoformat(snapshot.timestamp)
