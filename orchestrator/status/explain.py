"""Why an issue is, or is not, being worked on: facts in, one explanation out.

RULES are asked in order and the first that has an answer explains, so the list reads as: what is it, if not that?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from orchestrator.merge_close.record import Marker
from orchestrator.status import why_sessions as sessions
from orchestrator.status import why_waits as waits
from orchestrator.status.explanation import Explanation, Kind, State
from orchestrator.status.facts import Facts, RedisSays, TrackerSays

MAX_REFUSALS = 3


def explain(facts: Facts) -> Explanation:
    """The first rule's answer, and what else a person should know."""
    found = next(found for rule in RULES if (found := rule(facts)))
    return replace(found, also=tuple(_also(facts, found)))


def _tracker_away(facts: Facts) -> Explanation | None:
    if facts.tracker:
        return None
    verdict = f"; its last session ended {facts.verdict}" if facts.verdict else ""
    return Explanation(
        Kind.UNKNOWN,
        State.TRACKER_AWAY,
        f"the tracker does not answer{verdict}",
        why=facts.tracker_away,
        next="nothing is claimed until it answers; what runs goes on, and is told later",
        evidence=(facts.holding.reason,) if facts.holding and facts.holding.reason else (),
        do=("orch doctor",),
    )


def _unknown_issue(facts: Facts) -> Explanation | None:
    if facts.tracker is None or not facts.tracker.refusal:
        return None
    return Explanation(
        Kind.NOT_PICKED,
        State.UNKNOWN_ISSUE,
        "the tracker knows no such issue",
        why=facts.tracker.refusal,
        do=("orch issue list",),
    )


RULES: tuple[Callable[[Facts], Explanation | None], ...] = (
    # Whoever has it by Redis has it, whatever its status says by now.
    sessions.somebody_has_it,
    _tracker_away,
    _unknown_issue,
    sessions.closed,
    # Its status is not yet what its session made of it.
    sessions.untold,
    sessions.in_review,
    sessions.in_progress,
    # It is open, or blocked: what keeps this issue, then what keeps all of them.
    waits.malformed,
    waits.blocked,
    waits.after_an_error,
    waits.too_many_fixes,
    waits.redis_away,
    waits.paused,
    waits.no_slot,
    waits.to_be_claimed,
)


def _also(facts: Facts, found: Explanation) -> Iterator[str]:
    """What is wrong besides, and what could not be asked."""
    tracker, redis = facts.tracker or TrackerSays(), facts.redis or RedisSays()
    away = facts.redis_away
    paused = f"orch is paused by {redis.paused.by}" if redis.paused else ""
    no_writes = f"Redis takes no writes: {redis.no_writes}" if redis.no_writes else ""
    wrong = {
        State.TRACKER_AWAY: "" if facts.tracker else f"the tracker does not answer: {facts.tracker_away}",
        State.STACK_DOWN: "orch is not running here, so its sessions are not known" if facts.stack_down else "",
        State.REDIS_AWAY: f"Redis does not answer, so its sessions are not known: {away}" if away else "",
        State.REDIS_TAKES_NO_WRITES: no_writes,
        State.PAUSED: paused,
    }
    yield from (said for state, said in wrong.items() if said and state is not found.state)
    if any(merge.marker is Marker.PULL_REQUEST_CLOSED_UNMERGED for merge in tracker.merges):
        yield "its last pull request was closed without being merged"
    yield from (f"the tracker refused to be told: {line}" for line in redis.refused[:MAX_REFUSALS])
