"""What is known of a night's sessions, for the digest: read from their snapshots, which outlive the worker."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby, pairwise

import redis

from orchestrator import wiring
from orchestrator.adapters.mcp.tracker import McpTracker
from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.adapters.redis.merges import RedisMerges
from orchestrator.errors import InvalidMCPResponseError, RedisUnavailable, TrackerRefused, TransientMCPError
from orchestrator.issue import feedback_of
from orchestrator.leases import Holding
from orchestrator.models import Stage, Verdict, branch_of
from orchestrator.poll.candidates import too_many_fixes
from orchestrator.snapshot import ENDS, Event, Snapshot, read_snapshot
from orchestrator.status.board import leases_if_up, snapshots_of

_VERIFIED = (Event.SESSION_DONE, Event.VERIFY_FAILED)


@dataclass(frozen=True)
class StepFact:
    """One step that was done."""

    name: str
    seconds: float


@dataclass(frozen=True)
class SessionFact:
    """One session; `verdict` is None while it runs. `said_no` counts the reviews that failed."""

    session_id: str
    started_at: datetime
    heard_at: datetime
    steps: tuple[StepFact, ...]
    verdict: Verdict | None
    reason: str
    reviews: int
    said_no: int
    command: str

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until it was last heard of."""
        return (self.heard_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class IssueFact:
    """An issue and its sessions since then, oldest first; `status` is None when the tracker does not say.

    `place` is where its work is, `commit` the verified one; `held` is set when only a person starts it again;
    `fix_issue_id` is the issue that goes on with it, and `fix_held` whether only a person starts that one.
    """

    id: str
    title: str
    status: str | None
    sessions: tuple[SessionFact, ...]
    live: bool = False
    held: bool = False
    place: str = ""
    commit: str = ""
    fix_issue_id: str = ""
    fix_held: bool = False

    @property
    def last(self) -> SessionFact:
        """Its last session."""
        return self.sessions[-1]

    @property
    def needs_a_person(self) -> bool:
        """Whether nothing more happens to it unless somebody answers."""
        if self.live or self.status == "closed":
            return False
        return self.held or self.fix_held or self.last.verdict is Verdict.VERIFY_FAILED


def session_of(told: Sequence[Snapshot]) -> SessionFact:
    """A session from its snapshots, in order."""
    first, last = told[0], told[-1]
    steps = [_step(before, after) for before, after in pairwise(told)]
    verified = [snapshot.verify.command for snapshot in told if snapshot.verify and snapshot.event_type in _VERIFIED]
    return SessionFact(
        session_id=first.session_id,
        started_at=_at(first),
        heard_at=_at(last),
        steps=tuple(step for step in steps if step),
        verdict=ENDS.get(last.event_type),
        reason=" ".join("; ".join(last.failed_items).split()),
        reviews=last.attempts.spec + last.attempts.quality,
        said_no=sum(snapshot.event_type in (Event.SPEC_REVIEW_FAIL, Event.QUALITY_REVIEW_FAIL) for snapshot in told),
        command=verified[-1] if verified else "",
    )


def _step(before: Snapshot, after: Snapshot) -> StepFact | None:
    if after.event_type in (Event.OVERFLOW_FIX_CREATED, Event.SESSION_ERROR):
        return None
    seconds = (_at(after) - _at(before)).total_seconds()
    if after.event_type in _VERIFIED:
        return StepFact("verification", seconds)
    if after.stage is Stage.RUNNING:
        return StepFact(after.stage.words, seconds)
    attempt = after.attempts.spec if after.stage in (Stage.SPEC_REVIEW, Stage.SPEC_FIX) else after.attempts.quality
    return StepFact(f"{after.stage.words} {attempt}", seconds)


def _at(snapshot: Snapshot) -> datetime:
    return datetime.fromisoformat(snapshot.timestamp)


Rows = Mapping[str, Mapping[str, object]]


def rows_of(tracker: McpTracker, gaps: list[str]) -> Rows | None:
    """Every issue as the tracker lists it, by its id; None when it does not."""
    try:
        rows = [*tracker.list_issues(), *tracker.list_issues(archived=True)]
    except (TransientMCPError, TrackerRefused, InvalidMCPResponseError) as error:
        gaps.append(f"the tracker does not answer, so what was merged is not known: {error}")
        return None
    return {str(row["id"]): row for row in rows if isinstance(row, Mapping) and row.get("id")}


def facts(here: wiring.Wiring, rows: Rows | None, since: datetime, gaps: list[str]) -> Iterator[IssueFact]:
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
            yield IssueFact(issue_id, title, str(row.get("status")), sessions, place=branch_of(issue_id))


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
    live, place = holding.live, holding.delivered_to or branch_of(holding.issue_id)
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
    return fix.get("status") == "open" and bool(too_many_fixes(str(fix.get("title"))))


def _moment(text: object) -> datetime | None:
    """A time of the tracker, which writes UTC and does not say so."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
