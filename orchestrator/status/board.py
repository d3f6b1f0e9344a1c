"""What is going on: issues as the tracker has them, sessions as Redis has them, and why an issue is not running.

Looking changes nothing: no Redis is started for it, and what cannot be reached is one line among the problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Generic, TypeVar

import redis

from orchestrator.adapters.redis import RedisLeases, why_no_writes
from orchestrator.adapters.redis import server as redis_server
from orchestrator.errors import InvalidMCPResponseError, RedisUnavailable, TrackerRefused, TransientMCPError
from orchestrator.issue import shown
from orchestrator.leases import LIVE, Holding, Paused, SessionRecord
from orchestrator.models import Limits, Stage, Step, Verdict, branch_of, utc_now
from orchestrator.poll.candidates import too_many_fixes
from orchestrator.session_loop import under_way
from orchestrator.snapshot import ENDS, Event, Snapshot, Status, read_snapshot
from orchestrator.wiring import Wiring

if TYPE_CHECKING:
    from orchestrator.adapters.mcp import McpTracker

LOST = "in progress, but no session of ours has it"
BLOCKERS_ASKED = 25
"""Of how many waiting issues the blockers are looked up: sudocode takes up to a second for each."""

T = TypeVar("T")


@dataclass(frozen=True)
class IssueStatus:
    """One issue. What is None is not known: `status` when the tracker is down, the rest when there was no session.

    `stage` and `attempt` are the step under way, or the last one; `spec` and `quality` count the reviews so far;
    `age_s` is how long the session has run, or how long ago it ended; `reason` says why it ended, or does not start,
    and `trouble` what of that a person should see to; `delivered_to` is its pull request or branch. `held` is set when
    only a person can start it again. While a session runs, `worker` has it and was heard of `heard_s` ago; `limit` is
    how many reviews of this kind it may ask for.
    """

    id: str
    title: str
    status: str | None = None
    session_id: str | None = None
    state: str | None = None
    stage: str | None = None
    attempt: int | None = None
    spec: int = 0
    quality: int = 0
    age_s: float | None = None
    verdict: Verdict | None = None
    reason: str = ""
    branch: str | None = None
    blockers: tuple[str, ...] = ()
    fix_issue_id: str | None = None
    delivered_to: str | None = None
    held: bool = False
    worker: str | None = None
    heard_s: float | None = None
    limit: int | None = None
    trouble: str = ""

    @property
    def live(self) -> bool:
        """Whether a session has it."""
        return self.state in LIVE

    @property
    def settled(self) -> bool:
        """Whether it is certain that nothing will happen to it without a person."""
        if self.live or self.status is None:
            return False
        if self.status == "open":
            return self.held or bool(self.blockers)
        return self.status != "in_progress" or self.verdict is not None


@dataclass(frozen=True)
class EngineStatus:
    """All at one moment. `refused` is what the tracker would not be told, `problems` what a person should see to.

    `complete` says that both Redis and the tracker answered; `paused` that nothing new is claimed, and by whom.
    """

    project: str
    issues: tuple[IssueStatus, ...] = ()
    slots_used: int = 0
    slots_total: int = 0
    outbox: int = 0
    refused: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    complete: bool = False
    paused: Paused | None = None

    @property
    def settled(self) -> bool:
        """Whether it is certain that nothing runs, nothing is to be told, and nothing could be claimed."""
        idle = not self.outbox and not self.slots_used
        return self.complete and idle and all(issue.settled for issue in self.issues)


@dataclass(frozen=True)
class Sessions:
    """What Redis knows. `told` has the snapshots of each issue's last session, in order.

    Whoever runs a session has renewed its lease `lease_s` before it would expire.
    """

    holdings: tuple[Holding, ...] = ()
    told: Mapping[str, Sequence[Snapshot]] = field(default_factory=dict)
    slots: int = 0
    outbox: int = 0
    refused: tuple[str, ...] = ()
    paused: Paused | None = None
    lease_s: float = 0.0


@dataclass(frozen=True)
class Tracked:
    """What the tracker knows: the issues that are not closed, in claiming order, and their open blockers."""

    rows: tuple[Mapping[str, object], ...] = ()
    blockers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen(Generic[T]):
    """What Redis or the tracker answered, or None when it did not; and what a person should see to there."""

    answer: T | None
    problems: tuple[str, ...] = ()


def collect(wiring: Wiring) -> EngineStatus:
    """What Redis and the tracker say now; what does not answer is a problem, not an error."""
    # Redis first: an issue that it no longer has to tell of, the tracker knows when it is asked afterwards.
    sessions, tracked = ask_redis(wiring), ask_tracker(wiring.tracker)
    found = put_together(wiring.settings.project, sessions, tracked, now=utc_now())
    if all(issue.reason != LOST for issue in found.issues):
        return found
    # Or it was claimed between the two looks.
    return put_together(wiring.settings.project, ask_redis(wiring), tracked, now=utc_now())


def ask_redis(wiring: Wiring) -> Seen[Sessions]:
    """What Redis says now."""
    problems: list[str] = []
    try:
        sessions = _sessions(wiring, problems)
    except (redis.RedisError, RedisUnavailable) as error:
        return Seen(None, (*problems, f"Redis does not answer, so no session is shown: {error}"))
    return Seen(sessions, tuple(problems))


def ask_tracker(tracker: McpTracker) -> Seen[Tracked]:
    """What the tracker says now; with sudocode this takes a second for each issue that waits."""
    problems: list[str] = []
    try:
        tracked = _tracked(tracker, problems)
    except (TransientMCPError, TrackerRefused, InvalidMCPResponseError) as error:
        return Seen(None, (*problems, f"the tracker does not answer, so only issues with a session are shown: {error}"))
    return Seen(tracked, tuple(problems))


def put_together(project: str, sessions: Seen[Sessions], tracked: Seen[Tracked], *, now: datetime) -> EngineStatus:
    """One status from what both have said."""
    known = sessions.answer or Sessions()
    return EngineStatus(
        project=project,
        issues=issues_of(sessions.answer, tracked.answer, now=now),
        slots_used=sum(holding.live for holding in known.holdings),
        slots_total=known.slots,
        outbox=known.outbox,
        refused=known.refused,
        problems=sessions.problems + tracked.problems,
        complete=sessions.answer is not None and tracked.answer is not None,
        paused=known.paused,
    )


def issues_of(sessions: Sessions | None, tracked: Tracked | None, *, now: datetime) -> tuple[IssueStatus, ...]:
    """Every issue that is not closed; without a tracker, every one that had a session. None stands for no answer."""
    known, listed = sessions or Sessions(), tracked or Tracked()
    held = {holding.issue_id: holding for holding in known.holdings}
    rows = listed.rows if tracked else [_untracked(holding) for holding in known.holdings if holding.record]
    issues = []
    for row in rows:
        issue_id = str(row["id"])
        issue = IssueStatus(
            id=issue_id,
            title=str(row.get("title") or ""),
            status=str(row["status"]) if "status" in row else None,
            blockers=listed.blockers.get(issue_id, ()),
        )
        if holding := held.get(issue_id):
            issue = _with_session(issue, holding, known.told.get(issue_id, ()), lease_s=known.lease_s, now=now)
        issue = _held_fix(issue)
        lost = sessions is not None and issue.status == "in_progress" and issue.state is None
        if lost:
            issue = replace(issue, reason=LOST, trouble=LOST)
        issues.append(replace(issue, reason=_waits(issue) or issue.reason))
    return tuple(issues)


def step_told(told: Iterable[Snapshot], record: SessionRecord) -> Step:
    """The step that a session's snapshots lead to by the lifecycle, or the last one when none follows."""
    steps = (it for it in told if it.event_type is not Event.SESSION_START and it.event_type not in ENDS)
    return under_way((it.status is Status.PASS for it in steps), Limits(record.spec_limit, record.quality_limit))


def leases_if_up(wiring: Wiring) -> RedisLeases | None:
    """The leases in the Redis of the settings, or in our own if that runs."""
    if wiring.settings.redis_url or redis_server.find(wiring.settings.state_dir):
        return wiring.leases
    return None


def snapshots_of(leases: RedisLeases, session_id: str) -> list[Snapshot]:
    """A session's snapshots, in order."""
    return [snapshot for text in leases.snapshots(session_id) if (snapshot := read_snapshot(text))]


def _sessions(wiring: Wiring, problems: list[str]) -> Sessions | None:
    leases = leases_if_up(wiring)
    if leases is None:
        problems.append(
            "orch is not running here: start it with `orch up`; until then neither sessions nor verdicts"
            " are shown, but `orch history ISSUE` tells what the tracker knows"
        )
        return None
    if refuses := why_no_writes(wiring.client):
        problems.append(f"Redis takes no writes, so sessions wait: {refuses}")
    leases.free()  # drops the workers that fell silent
    slots = sum(leases.workers().values())
    if not slots:
        problems.append("no worker takes sessions; start one with `orch up`")
    refused = wiring.outbox.refused()
    if refused:
        problems.append(f"the tracker refused {len(refused)} entries, last: {refused[0]}")
    holdings = tuple(leases.holdings())
    records = [(holding.issue_id, holding.record) for holding in holdings if holding.record]
    return Sessions(
        holdings=holdings,
        told={issue_id: snapshots_of(leases, record.session_id) for issue_id, record in records},
        slots=slots,
        outbox=wiring.outbox.waiting(),
        refused=tuple(refused),
        paused=wiring.controls.paused(),
        lease_s=wiring.settings.lease_seconds,
    )


def _tracked(tracker: McpTracker, problems: list[str]) -> Tracked:
    listed = [row for row in tracker.list_issues() if isinstance(row, Mapping) and row.get("id")]
    status = {str(row["id"]): row.get("status") for row in listed}
    rows = sorted((row for row in listed if row.get("status") != "closed"), key=_claiming_order)
    waiting = [str(row["id"]) for row in rows if row.get("status") in ("open", "blocked")]
    if len(waiting) > BLOCKERS_ASKED:
        problems.append(f"of {len(waiting)} waiting issues, only the first {BLOCKERS_ASKED} were asked for blockers")
    asked = {issue_id: shown(tracker.show_issue, issue_id) for issue_id in waiting[:BLOCKERS_ASKED]}
    found = {
        issue_id: tuple(other for other in issue.blockers if status.get(other, "closed") != "closed")
        for issue_id, issue in asked.items()
    }
    return Tracked(tuple(rows), found)


def _claiming_order(row: Mapping[str, object]) -> tuple[int, str, str]:
    priority = row.get("priority")
    return priority if isinstance(priority, int) else 9, str(row.get("created_at")), str(row["id"])


def _untracked(holding: Holding) -> Mapping[str, object]:
    return {"id": holding.issue_id, "title": holding.record.issue.title if holding.record else ""}


def _with_session(
    issue: IssueStatus, holding: Holding, told: Sequence[Snapshot], *, lease_s: float, now: datetime
) -> IssueStatus:
    record, live = holding.record, holding.live
    now_ms = now.timestamp() * 1000
    wait_s = 0.0 if live or holding.held_until_ms is None else (holding.held_until_ms - now_ms) / 1000
    issue = replace(issue, held=math.isinf(wait_s))
    if not live:
        trouble = _trouble(holding, wait_s, issue.status)
        issue = replace(issue, reason=_reason(holding, wait_s), trouble=trouble)
    if record is None:
        return replace(issue, state=holding.state if live else None)
    step = step_told(told, record)
    running = holding.state == "running" and holding.deadline_ms is not None
    heard_ms = (holding.deadline_ms or 0) - lease_s * 1000
    since_ms = holding.claimed_at_ms if live else holding.ended_at_ms
    return replace(
        issue,
        session_id=record.session_id,
        state=holding.state,
        stage=step.stage,
        attempt=step.attempt,
        spec=told[-1].attempts.spec if told else 0,
        quality=told[-1].attempts.quality if told else 0,
        age_s=max(0.0, (now_ms - since_ms) / 1000) if since_ms else None,
        verdict=Verdict(holding.verdict) if holding.verdict and not live else None,
        branch=branch_of(issue.id) if holding.started_at_ms else None,
        fix_issue_id=holding.fix_issue_id,
        delivered_to=holding.delivered_to or None,
        worker=holding.owner or None if live else None,
        heard_s=max(0.0, (now_ms - heard_ms) / 1000) if running else None,
        limit=_limit(step.stage, record),
    )


def _limit(stage: Stage, record: SessionRecord) -> int | None:
    match stage:
        case Stage.SPEC_REVIEW | Stage.SPEC_FIX:
            return record.spec_limit
        case Stage.QUALITY_REVIEW | Stage.QUALITY_FIX:
            return record.quality_limit
        case _:
            return None


def _held_fix(issue: IssueStatus) -> IssueStatus:
    why = "" if issue.live or issue.status != "open" else too_many_fixes(issue.title)
    if not why:
        return issue
    return replace(issue, held=True, trouble=why, reason=f"{why}; held back until `orch enqueue {issue.id}`")


def _waits(issue: IssueStatus) -> str:
    return f"waits for {', '.join(issue.blockers)} to be closed" if issue.blockers and not issue.live else ""


def _trouble(holding: Holding, wait_s: float, status: str | None) -> str:
    if math.isinf(wait_s):
        return holding.held_because
    if status == "open":  # whatever its last session came to, it runs again
        return ""
    needs_a_person = holding.undelivered or holding.verdict == Verdict.VERIFY_FAILED
    return _ended(holding) if needs_a_person else ""


def _ended(holding: Holding) -> str:
    return f"not delivered yet: {holding.undelivered}" if holding.undelivered else holding.reason


def _reason(holding: Holding, wait_s: float) -> str:
    if math.isinf(wait_s):
        return f"{holding.held_because}; held back until `orch enqueue {holding.issue_id}`"
    if wait_s > 0:
        return f"{holding.reason}; is tried again in {wait_s:.0f} s"
    if holding.fix_issue_id:
        return f"{holding.reason}; goes on as {holding.fix_issue_id}"
    return _ended(holding) or holding.delivered_to
