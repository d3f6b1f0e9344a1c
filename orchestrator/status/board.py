"""The rows of `orch status`: each issue that is not closed, with its session and the reason why it does not run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.models import LIVE, IssueStatus, Paused, SessionState, Verdict, branch_of
from orchestrator.status.explanation import State
from orchestrator.status.facts import Asked, Facts, IssueFacts, RedisSays, TrackerSays
from orchestrator.status.why import explain

_IN_THE_ROW = (State.RUNNING, State.STARTING)
"""A row has the step of a session, so that is no reason besides."""
_NOT_THERE = (State.LOST, State.SOMEBODY_ELSE)


@dataclass(frozen=True)
class IssueRow:
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
        """True while a session has it."""
        return self.state in LIVE

    @property
    def settled(self) -> bool:
        """True if it is certain that nothing will happen to it without a person."""
        if self.live or self.status is None:
            return False
        if self.status == IssueStatus.OPEN:
            return self.held or bool(self.blockers)
        return self.status != IssueStatus.IN_PROGRESS or self.verdict is not None


@dataclass(frozen=True)
class EngineStatus:
    """All at one moment. `refused` is what the tracker would not be told, `problems` what a person should see to.

    `complete` says that both Redis and the tracker answered; `paused` that nothing new is claimed, and by whom.
    """

    project: str
    issues: tuple[IssueRow, ...] = ()
    slots_used: int = 0
    slots_total: int = 0
    outbox: int = 0
    refused: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    complete: bool = False
    paused: Paused | None = None

    @property
    def settled(self) -> bool:
        """True if it is certain that nothing runs, nothing is to be told, and nothing could be claimed."""
        idle = not self.outbox and not self.slots_used
        return self.complete and idle and all(issue.settled for issue in self.issues)


def board_of(project: str, facts: Facts) -> EngineStatus:
    """The rows of these facts, and what all issues share."""
    known = facts.redis.answer or RedisSays(facts.now)
    return EngineStatus(
        project=project,
        issues=tuple(row(facts.of(issue_id)) for issue_id in _listed(facts)),
        slots_used=sum(holding.live for holding in known.holdings.values()),
        slots_total=known.slots,
        outbox=known.outbox,
        refused=known.refused,
        problems=(*_redis_problems(facts.redis), *_tracker_problems(facts.tracker)),
        complete=facts.redis.answer is not None and facts.tracker.answer is not None,
        paused=known.paused,
    )


def not_there(facts: Facts) -> bool:
    """True if an issue is in progress of which Redis has no session: it may have been claimed between two looks."""
    return any(explain(facts.of(issue_id)).state in _NOT_THERE for issue_id in _listed(facts))


def row(facts: IssueFacts) -> IssueRow:
    """The issue's row."""
    said = explain(facts)
    reason = "" if said.state in _IN_THE_ROW else said.row
    found = IssueRow(
        id=facts.issue_id,
        title=facts.title,
        status=(facts.tracked.issue.status_said or None) if facts.tracked and facts.tracked.issue else None,
        state=facts.holding.state if facts.live and facts.holding else None,
        reason=reason,
        blockers=facts.tracked.blockers if facts.tracked else (),
        held=facts.held,
        trouble=reason if said.trouble else "",
    )
    return _with_session(found, facts)


def _with_session(row: IssueRow, facts: IssueFacts) -> IssueRow:
    holding = facts.holding
    if holding is None or holding.record is None:
        return row
    live, told = facts.live, facts.told
    heard_ms = (holding.deadline_ms or 0) - facts.all.policy.lease_s * 1000
    since_ms = holding.claimed_at_ms if live else holding.ended_at_ms
    return replace(
        row,
        session_id=holding.record.session_id,
        state=holding.state,
        stage=facts.step.stage,
        attempt=facts.step.attempt,
        spec=told.spec if told else 0,
        quality=told.quality if told else 0,
        age_s=max(0.0, (facts.now_ms - since_ms) / 1000) if since_ms else None,
        verdict=None if live else facts.verdict,
        branch=branch_of(row.id) if holding.started_at_ms else None,
        fix_issue_id=holding.fix_issue_id,
        delivered_to=holding.delivered_to or None,
        worker=holding.owner or None if live else None,
        heard_s=max(0.0, (facts.now_ms - heard_ms) / 1000) if holding.state == SessionState.RUNNING else None,
        limit=facts.limit,
    )


def _listed(facts: Facts) -> Iterator[str]:
    """The issues that are not closed, and what runs; while the tracker does not say, all that had a session."""
    listed = facts.tracker.answer.issues if facts.tracker.answer else {}
    yield from (it for it, tracked in listed.items() if tracked.status is not IssueStatus.CLOSED)
    for it, holding in (facts.redis.answer.holdings if facts.redis.answer else {}).items():
        # The tracker's answer may be older than the session, or leave the issue out because it is archived.
        if it not in listed and holding.record and (holding.live or facts.tracker.answer is None):
            yield it


def _redis_problems(redis: Asked[RedisSays]) -> Iterator[str]:
    known = redis.answer
    if redis.away:
        shown = "what is shown of it is old" if known else "no session is shown"
        yield f"Redis does not answer, so {shown}: {redis.away}"
    elif known is None:
        yield (
            "orch is not running here: start it with `orch up`; until then neither sessions nor verdicts"
            " are shown, but `orch history ISSUE` tells what the tracker knows"
        )
    if known is None:
        return
    if known.no_writes:
        yield f"Redis takes no writes, so sessions wait: {known.no_writes}"
    if known.base:
        yield f"{known.base.says}; nothing is claimed" + (
            "; see `orch doctor --verify`" if known.base.red else " until then"
        )
    if not known.slots:
        yield "no worker takes sessions; start one with `orch up`"
    if known.refused:
        yield f"the tracker refused {len(known.refused)} entries, last: {known.refused[0]}"


def _tracker_problems(tracker: Asked[TrackerSays]) -> Iterator[str]:
    if tracker.away:
        shown = "what is shown of it is old" if tracker.answer else "only issues with a session are shown"
        yield f"the tracker does not answer, so {shown}: {tracker.away}"
    if tracker.answer and (unasked := tracker.answer.unasked):
        yield f"{unasked} waiting issues were not asked for their blockers; `orch explain ISSUE` asks"
