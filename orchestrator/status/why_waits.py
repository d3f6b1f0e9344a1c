"""The reasons why an issue that no session has is not claimed: the rules about what it waits for."""

from __future__ import annotations

import math
from dataclasses import replace

from orchestrator.models import IssueStatus, Verdict
from orchestrator.status.explanation import Explanation, Kind, State, at
from orchestrator.status.facts import IssueFacts
from orchestrator.text import span

SHOWN_LIVE = 8


def malformed(facts: IssueFacts) -> Explanation | None:
    """Its record cannot be read as an issue's."""
    if facts.tracked is None or not facts.tracked.malformed:
        return None
    return Explanation(
        Kind.NOT_PICKED,
        State.MALFORMED,
        "its record in the tracker is malformed",
        why=facts.tracked.malformed,
        next="it is skipped at every poll",
        do=(f"orch issue show {facts.issue_id} --json",),
    )


def blocked(facts: IssueFacts) -> Explanation | None:
    """It waits for other issues."""
    tracked = facts.tracked
    if tracked is None:
        return None
    if not tracked.chain:
        return _blocked_by_none(facts) if tracked.status is IssueStatus.BLOCKED else None
    first, root = tracked.chain[0], tracked.chain[-1]
    waits = Explanation(
        Kind.WAITS,
        State.BLOCKED,
        f"its blocker {first.issue_id} is {_status_words(first.status)}",
        why=", which waits for ".join(it.issue_id for it in tracked.chain) if len(tracked.chain) > 1 else "",
        next=f"it is ready once closed: {', '.join(tracked.blockers)}",
        evidence=tuple(f"{it.issue_id} is {_status_words(it.status)}" for it in tracked.chain[1:]),
        do=(f"orch explain {root.issue_id}",),
    )
    if tracked.cycle:
        names = " and ".join(it.issue_id for it in tracked.chain)
        return replace(
            waits,
            kind=Kind.NOT_PICKED,
            state=State.BLOCKER_CYCLE,
            cause=f"{names} wait for each other",
            next="nothing, until one of these links is removed in the tracker",
            do=(f"orch issue show {root.issue_id}",),
        )
    if root.status == IssueStatus.NEEDS_REVIEW:
        return replace(waits, state=State.BLOCKER_IN_REVIEW, do=(facts.all.of(root.issue_id).merge_command,))
    return waits


def _blocked_by_none(facts: IssueFacts) -> Explanation:
    shown = facts.tracked is not None and facts.tracked.shown
    return Explanation(
        Kind.NOT_PICKED,
        State.STATUS_BLOCKED,
        "its status is blocked, though it waits for no open issue" if shown else "its status is blocked",
        next="nothing, until its status is open",
        do=(f"orch issue reopen {facts.issue_id}",) if shown else (f"orch explain {facts.issue_id}",),
    )


def after_an_error(facts: IssueFacts) -> Explanation | None:
    """Its last session ended in an error or was stopped, and it is held back since."""
    holding, wait_s = facts.holding, facts.wait_s
    if holding is None or not wait_s:
        return None
    again = f"orch enqueue {facts.issue_id}"
    if holding.stop or holding.verdict != Verdict.ERROR:
        return Explanation(
            Kind.STOPPED,
            State.STOPPED,
            holding.held_because.removeprefix(f"{facts.issue_id}: "),
            since=at(holding.ended_at_ms),
            next=f"held back until `{again}`",
            do=(again,),
        )
    for_good, worn_out = math.isinf(wait_s), holding.rescues > facts.all.policy.rescues
    cause = f"its last session ended in an error: {facts.reason}"
    if worn_out:
        cause = f"its workers died {holding.rescues} times in the same step"
    elif for_good and facts.all.policy.errors > 1:
        cause = f"{facts.all.policy.errors} sessions in a row ended in an error, the last: {facts.reason}"
    return Explanation(
        Kind.STOPPED if for_good else Kind.WAITS,
        State.RESCUED_TOO_OFTEN if worn_out else State.HELD if for_good else State.BACKOFF,
        cause,
        why=facts.reason if worn_out else "",
        since=at(holding.ended_at_ms),
        next=(f"held back until `{again}`" if for_good else f"it is tried again in {span(wait_s)}") + _or_closed(facts),
        evidence=facts.log_words,
        do=(f"orch history {facts.issue_id}", again),
    )


def _or_closed(facts: IssueFacts) -> str:
    """The other way out of an error for which there was nothing to merge."""
    return f"; if there is nothing to do, `{facts.close_command}` closes it" if facts.nothing_to_merge else ""


def too_many_fixes(facts: IssueFacts) -> Explanation | None:
    """It is a [FIX] of a [FIX], too often to run by itself."""
    if not facts.too_many_fixes:
        return None
    return Explanation(
        Kind.STOPPED,
        State.HELD,
        facts.too_many_fixes,
        next=f"held back until `orch enqueue {facts.issue_id}`",
        do=(f"orch issue show {facts.issue_id}", f"orch enqueue {facts.issue_id}"),
    )


def redis_away(facts: IssueFacts) -> Explanation | None:
    """Redis is not there, or takes no claims."""
    if facts.redis is None:
        down = facts.stack_down
        return Explanation(
            Kind.NOT_PICKED if down else Kind.UNKNOWN,
            State.STACK_DOWN if down else State.REDIS_AWAY,
            "orch is not running here" if down else "Redis does not answer, so it is not known whether it runs",
            why=facts.all.redis.away,
            next="" if down else "nothing is claimed, and sessions wait, until it answers",
            evidence=(f"the tracker says: {facts.status}",) if facts.status else (),
            do=("orch up",) if down else ("orch doctor",),
        )
    if facts.redis.no_writes:
        return Explanation(
            Kind.WAITS,
            State.REDIS_TAKES_NO_WRITES,
            f"Redis takes no writes: {facts.redis.no_writes}",
            next="nothing is claimed until it does",
            do=("orch doctor",),
        )
    return None


def paused(facts: IssueFacts) -> Explanation | None:
    """A person lets nothing start."""
    paused = facts.redis.paused if facts.redis else None
    if paused is None:
        return None
    return Explanation(
        Kind.WAITS,
        State.PAUSED,
        f"orch was paused by {paused.by}" + (f": {paused.reason}" if paused.reason else ""),
        since=at(paused.at_ms),
        next="nothing new starts until `orch resume`",
        do=("orch resume",),
    )


def base(facts: IssueFacts) -> Explanation | None:
    """The branch that it would start from lets nothing start."""
    trouble = facts.redis.base if facts.redis else None
    if trouble is None:
        return None
    return Explanation(
        Kind.WAITS,
        State.BASE_RED if trouble.red else State.BASE_UNDER_WAY,
        trouble.says,
        since=at(trouble.since_ms),
        next="nothing is claimed until the base moves, or a person says so"
        if trouble.red
        else "claimed if it is green",
        do=("orch doctor --verify", "orch resume") if trouble.red else ("orch status",),
    )


def no_slot(facts: IssueFacts) -> Explanation | None:
    """No worker has room for it."""
    redis = facts.redis
    if redis is None or (redis.slots and len(redis.live) < redis.slots):
        return None
    if not redis.slots:
        return Explanation(
            Kind.WAITS,
            State.NO_WORKER,
            "no worker takes sessions",
            next="it starts when a worker is there",
            do=("orch up",),
        )
    busy = ", ".join(redis.live[:SHOWN_LIVE]) + (", ..." if len(redis.live) > SHOWN_LIVE else "")
    return Explanation(
        Kind.WAITS,
        State.NO_SLOT,
        f"all {redis.slots} slots are taken",
        why=f"{busy} have them",
        next="it is next" if facts.wanted else "a free slot goes to what was asked for, then by priority and age",
        do=("orch status",) if facts.wanted else (f"orch enqueue {facts.issue_id}",),
    )


def to_be_claimed(facts: IssueFacts) -> Explanation:
    """Nothing keeps it: the next poll takes it, or it is not on the tracker's list."""
    within = f"the next poll claims it, within {facts.all.policy.poll_s:g} s"
    if facts.wanted:
        cause = "a person asked for it; it is next"
        return Explanation(Kind.WAITS, State.WANTED, cause, next=within, do=("orch status",))
    if facts.tracked and not facts.tracked.ready:
        return Explanation(
            Kind.NOT_PICKED,
            State.NOT_READY,
            "it is open, but the tracker does not list it as ready",
            next="nothing, until the tracker does; it may be archived",
            do=(f"orch issue show {facts.issue_id}", f"orch enqueue {facts.issue_id}"),
        )
    return Explanation(Kind.WAITS, State.READY, "it is ready and a slot is free", next=within, do=("orch status",))


def _status_words(status: str) -> str:
    return f"in {status}" if status in (IssueStatus.NEEDS_REVIEW, IssueStatus.IN_PROGRESS) else status
