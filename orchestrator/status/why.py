"""The reason that `orch status`, `orch explain` and `orch report` give for an issue: facts in, one explanation out.

RULES are asked in order and the first one with an answer explains, so the list reads as: what is it, if not that?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from orchestrator.merge_close.record import Marker
from orchestrator.status import why_sessions as sessions
from orchestrator.status import why_waits as waits
from orchestrator.status.explanation import Explanation, Kind, State
from orchestrator.status.facts import IssueFacts

MAX_REFUSALS = 3


def explain(facts: IssueFacts) -> Explanation:
    """The first rule's answer, and what else a person should know."""
    found = next(found for rule in RULES if (found := rule(facts)))
    return replace(found, also=tuple(_also(facts, found)))


def _tracker_away(facts: IssueFacts) -> Explanation | None:
    if facts.tracked:
        return None
    asked = "the tracker does not answer" if facts.all.tracker.away else "the tracker is still being asked"
    return Explanation(
        Kind.UNKNOWN,
        State.TRACKER_AWAY,
        f"{asked}; its last session ended {facts.verdict}" if facts.verdict else asked,
        why=facts.all.tracker.away,
        next="nothing is claimed until it answers; what runs goes on, and is told later",
        evidence=(facts.reason,) if facts.reason else (),
        do=("orch doctor",),
    )


def _unknown_issue(facts: IssueFacts) -> Explanation | None:
    if facts.tracked is None or not facts.tracked.refusal:
        return None
    return Explanation(
        Kind.NOT_PICKED,
        State.UNKNOWN_ISSUE,
        "the tracker knows no such issue",
        why=facts.tracked.refusal,
        do=("orch issue list",),
    )


RULES: tuple[Callable[[IssueFacts], Explanation | None], ...] = (
    # A session that Redis knows of is there, whatever the issue's status says by now.
    sessions.taken,
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
    waits.base,
    waits.no_slot,
    waits.to_be_claimed,
)


def _also(facts: IssueFacts, found: Explanation) -> Iterator[str]:
    """Yield all else that is wrong, and what could not be asked."""
    wrong = {
        State.TRACKER_AWAY: f"the tracker does not answer: {facts.all.tracker.away}" if facts.all.tracker.away else "",
        State.STACK_DOWN: "orch is not running here, so its sessions are not known" if facts.stack_down else "",
    }
    if facts.all.redis.away:
        wrong[State.REDIS_AWAY] = f"Redis does not answer, so its sessions are not known: {facts.all.redis.away}"
    if facts.redis and facts.redis.no_writes:
        wrong[State.REDIS_TAKES_NO_WRITES] = f"Redis takes no writes: {facts.redis.no_writes}"
    if facts.redis and facts.redis.paused:
        wrong[State.PAUSED] = f"orch is paused by {facts.redis.paused.by}"
    if facts.redis and facts.redis.base and facts.redis.base.red:
        wrong[State.BASE_RED] = facts.redis.base.says
    yield from (said for state, said in wrong.items() if said and state is not found.state)
    merges = facts.tracked.merges_since if facts.tracked else ()
    match merges[-1].marker if merges else None:
        case Marker.PULL_REQUEST_CLOSED_UNMERGED:
            yield "its last pull request was closed without being merged"
        case Marker.MERGE_CLOSE_REJECTED if found.state not in (State.MERGE_REJECTED, State.CLOSED, State.MERGED):
            yield f"a merge was seen that may not close it: {merges[-1].reason}"
    yield from (f"the tracker refused to be told: {line}" for line in facts.refused[:MAX_REFUSALS])
    reports = facts.redis.reports.get(facts.issue_id, ()) if facts.redis else ()
    yield from (f"in its last session, {report.stage.words}: {it}" for report in reports for it in report.remarks)
