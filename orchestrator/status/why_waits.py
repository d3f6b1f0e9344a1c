"""What keeps an issue from being claimed: the rules of `explain` about those that nobody has."""

from __future__ import annotations

import math
from dataclasses import replace

from orchestrator.models import Verdict
from orchestrator.status.explanation import Explanation, Kind, State, at
from orchestrator.status.facts import Facts
from orchestrator.text import span


def malformed(facts: Facts) -> Explanation | None:
    """Its record cannot be read as an issue's."""
    if facts.tracker is None or not facts.tracker.malformed:
        return None
    return Explanation(
        Kind.NOT_PICKED,
        State.MALFORMED,
        "its record in the tracker is malformed",
        why=facts.tracker.malformed,
        next="it is skipped at every poll",
        do=(f"orch issue show {facts.issue_id} --json",),
    )


def blocked(facts: Facts) -> Explanation | None:
    """It waits for other issues."""
    chain = facts.tracker.chain if facts.tracker else ()
    if facts.tracker is None or not chain:
        if facts.tracker is None or facts.tracker.status != "blocked":
            return None
        return Explanation(
            Kind.NOT_PICKED,
            State.STATUS_BLOCKED,
            "its status is blocked, though it waits for no open issue",
            next="nothing, until its status is open",
            do=(f"orch issue reopen {facts.issue_id}",),
        )
    first, root = chain[0], chain[-1]
    waits = Explanation(
        Kind.WAITS,
        State.BLOCKED,
        f"its blocker {first.issue_id} is {_status_words(first.status)}",
        why=", which waits for ".join(blocker.issue_id for blocker in chain) if len(chain) > 1 else "",
        next=f"it is ready once closed: {', '.join(facts.tracker.blockers)}",
        evidence=tuple(f"{blocker.issue_id} is {_status_words(blocker.status)}" for blocker in chain[1:]),
        do=(f"orch explain {root.issue_id}",),
    )
    if facts.tracker.cycle:
        names = " and ".join(blocker.issue_id for blocker in chain)
        return replace(
            waits,
            kind=Kind.NOT_PICKED,
            state=State.BLOCKER_CYCLE,
            cause=f"{names} wait for each other",
            next="nothing, until one of these links is removed in the tracker",
            do=(f"orch issue show {root.issue_id}",),
        )
    if root.status == "needs_review":
        return replace(waits, state=State.BLOCKER_IN_REVIEW, do=(root.merge_command,))
    return waits


def after_an_error(facts: Facts) -> Explanation | None:
    """Its last session ended in an error or was stopped, and it is held back since."""
    holding = facts.holding
    wait_s = ((holding.held_until_ms or 0) - facts.now_ms) / 1000 if holding else 0
    if holding is None or wait_s <= 0 or (facts.redis and facts.redis.wanted):
        return None
    if holding.stop or holding.verdict != Verdict.ERROR:
        return Explanation(
            Kind.STOPPED,
            State.STOPPED,
            holding.held_because,
            since=at(holding.ended_at_ms),
            next=f"nothing, until `orch enqueue {facts.issue_id}`",
            do=(f"orch enqueue {facts.issue_id}",),
        )
    worn_out = holding.rescues > facts.max_rescues
    error = Explanation(
        Kind.WAITS,
        State.RESCUED_TOO_OFTEN if worn_out else State.BACKOFF,
        f"its workers died {holding.rescues} times in the same step"
        if worn_out
        else f"its last session ended in an error: {holding.reason}",
        why=holding.reason if worn_out else "",
        since=at(holding.ended_at_ms),
        next=f"it is tried again in {span(wait_s)}",
        evidence=facts.log_words,
        do=(f"orch history {facts.issue_id}", f"orch enqueue {facts.issue_id}"),
    )
    if math.isinf(wait_s):
        state = error.state if worn_out else State.HELD
        cause = f"{facts.errors} sessions in a row ended in an error, the last: {holding.reason}"
        return replace(error, kind=Kind.STOPPED, state=state, cause=cause, next=f"nothing, until `{error.do[1]}`")
    return error


def too_many_fixes(facts: Facts) -> Explanation | None:
    """It is a [FIX] of a [FIX], too often to run by itself."""
    why = facts.tracker.too_many_fixes if facts.tracker else ""
    if not why or (facts.redis and facts.redis.wanted):
        return None
    return Explanation(
        Kind.STOPPED,
        State.HELD,
        why,
        next=f"nothing, until `orch enqueue {facts.issue_id}`",
        do=(f"orch issue show {facts.issue_id}", f"orch enqueue {facts.issue_id}"),
    )


def redis_away(facts: Facts) -> Explanation | None:
    """Redis is not there, or takes no claims."""
    if facts.redis is None:
        down = facts.stack_down
        return Explanation(
            Kind.NOT_PICKED if down else Kind.UNKNOWN,
            State.STACK_DOWN if down else State.REDIS_AWAY,
            "orch is not running here" if down else "Redis does not answer, so nobody knows whether it runs",
            why=facts.redis_away,
            next="" if down else "nothing is claimed, and sessions wait, until it answers",
            evidence=(f"the tracker says: {facts.tracker.status}",) if facts.tracker else (),
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


def paused(facts: Facts) -> Explanation | None:
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


def no_slot(facts: Facts) -> Explanation | None:
    """Nobody has room for it."""
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
    busy = ", ".join(redis.live[:8]) + (", ..." if len(redis.live) > 8 else "")
    return Explanation(
        Kind.WAITS,
        State.NO_SLOT,
        f"all {redis.slots} slots are taken",
        why=f"{busy} have them",
        next="it is next" if redis.wanted else "a free slot goes to what was asked for, then by priority and age",
        do=("orch status",) if redis.wanted else (f"orch enqueue {facts.issue_id}",),
    )


def to_be_claimed(facts: Facts) -> Explanation:
    """Nothing keeps it: the next poll takes it, or it is not on the tracker's list."""
    within = f"the next poll claims it, within {facts.poll_s:g} s"
    if facts.redis and facts.redis.wanted:
        cause = "somebody asked for it; it is next"
        return Explanation(Kind.WAITS, State.WANTED, cause, next=within, do=("orch status",))
    if facts.tracker and not facts.tracker.ready:
        return Explanation(
            Kind.NOT_PICKED,
            State.NOT_READY,
            "it is open, but the tracker does not list it as ready",
            next="nothing, until the tracker does; it may be archived",
            do=(f"orch issue show {facts.issue_id}", f"orch enqueue {facts.issue_id}"),
        )
    return Explanation(Kind.WAITS, State.READY, "it is ready and a slot is free", next=within, do=("orch status",))


def _status_words(status: str) -> str:
    return f"in {status}" if status in ("needs_review", "in_progress") else status
