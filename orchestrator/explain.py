"""Why an issue is, or is not, being worked on: facts in, one explanation out.

RULES are asked in order and the first that has an answer explains, so the list reads as: what is it, if not that?
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from orchestrator.digest import span
from orchestrator.explain_facts import LIVE, Facts, RedisSays, TrackerSays
from orchestrator.merge_record import Marker, MergeMarker
from orchestrator.models import Verdict
from orchestrator.ports import Holding


class Kind(StrEnum):
    """What one wants to know first."""

    RUNS = "runs"
    WAITS = "waits"
    STOPPED = "stopped"
    DONE = "done"
    NOT_PICKED = "is not picked"
    UNKNOWN = "is not known"


class State(StrEnum):
    """Every state that an issue can be in, as seen from here."""

    RUNNING = "RUNNING"
    STARTING = "STARTING"  # claimed, and no worker has it yet
    HANDED_ON = "HANDED_ON"  # its worker gave it back or was lost; the next one takes it up
    STOPPING = "STOPPING"  # a person ends it
    WORKER_SILENT = "WORKER_SILENT"  # its lease is not renewed, and not over yet
    RESCUE = "RESCUE"  # its lease is over
    TRACKER_AWAY = "TRACKER_AWAY"
    UNKNOWN_ISSUE = "UNKNOWN_ISSUE"
    MERGED = "MERGED"
    CLOSED = "CLOSED"
    CLOSED_BY_FIX = "CLOSED_BY_FIX"
    UNTOLD = "UNTOLD"  # the tracker is still to be told the end of its last session
    OVERFLOW = "OVERFLOW"
    MERGE_REJECTED = "MERGE_REJECTED"
    UNDELIVERED = "UNDELIVERED"
    TO_REVIEW = "TO_REVIEW"
    REVIEW_BY_HAND = "REVIEW_BY_HAND"  # in review, and not by a session of ours
    VERIFY_FAILED = "VERIFY_FAILED"
    NO_VERIFICATION = "NO_VERIFICATION"
    LOST = "LOST"  # in progress under our name, and Redis knows of no session
    SOMEBODY_ELSE = "SOMEBODY_ELSE"  # in progress under another name
    MALFORMED = "MALFORMED"
    BLOCKER_CYCLE = "BLOCKER_CYCLE"
    BLOCKER_IN_REVIEW = "BLOCKER_IN_REVIEW"
    BLOCKED = "BLOCKED"
    STATUS_BLOCKED = "STATUS_BLOCKED"  # so its status says, and no open issue is the reason
    STOPPED = "STOPPED"  # a person ended it
    RESCUED_TOO_OFTEN = "RESCUED_TOO_OFTEN"
    HELD = "HELD"  # too many errors in a row
    BACKOFF = "BACKOFF"
    STACK_DOWN = "STACK_DOWN"
    REDIS_AWAY = "REDIS_AWAY"
    REDIS_TAKES_NO_WRITES = "REDIS_TAKES_NO_WRITES"
    PAUSED = "PAUSED"
    NO_WORKER = "NO_WORKER"
    NO_SLOT = "NO_SLOT"
    WANTED = "WANTED"
    NOT_READY = "NOT_READY"
    READY = "READY"


@dataclass(frozen=True)
class Explanation:
    """One issue explained: what it does and why, in a line; then what is known of it, and what a person may do.

    `next` is what happens without anybody; `do` are commands to paste, the first one first; `also` is what else is
    wrong, and what could not be asked.
    """

    kind: Kind
    state: State
    cause: str
    why: str = ""
    since: datetime | None = None
    next: str = ""
    evidence: tuple[str, ...] = ()
    do: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


def explain(facts: Facts) -> Explanation:
    """The first rule's answer, and what else a person should know."""
    found = next(found for rule in RULES if (found := rule(facts)))
    return replace(found, also=tuple(_also(facts, found)))


def _somebody_has_it(facts: Facts) -> Explanation | None:
    holding = facts.holding
    if facts.redis is None or holding is None or holding.state not in LIVE:
        return None
    if holding.stop:
        return Explanation(
            Kind.STOPPED,
            State.STOPPING,
            f"it is being {holding.stop}",
            next="it ends within seconds; its work is kept, and it is open again",
            do=("orch status",),
        )
    if holding.state == "claimed":
        return _starting(facts, facts.redis, holding)
    left_s = ((holding.deadline_ms or 0) - _ms(facts.now)) / 1000
    silent_s = facts.lease_s - left_s
    runs = Explanation(
        Kind.RUNS,
        State.RUNNING,
        f"{facts.step_words} on {holding.owner}",
        why=f"its session {facts.session_id} began {span((_ms(facts.now) - holding.claimed_at_ms) / 1000)} ago",
        since=_at(holding.claimed_at_ms),
        next=f"if its worker falls silent, another takes it over after {facts.lease_s:g} s",
        evidence=(f"the worker gave a sign of life {span(silent_s)} ago", *facts.log_words),
        do=(f"orch history {facts.issue_id}",),
    )
    silent = replace(
        runs,
        kind=Kind.WAITS,
        since=_at((holding.deadline_ms or 0) - facts.lease_s * 1000),
        why="that worker or its way to Redis is gone, or stands still",
        do=("orch doctor",),
    )
    if left_s <= 0:
        return replace(
            silent,
            state=State.RESCUE,
            cause=f"its worker {holding.owner} fell silent; another is to take it over",
            next="the next poll hands it on, from its last recorded step",
            do=("orch doctor",) if facts.redis.slots else ("orch up",),
        )
    if silent_s > facts.lease_s / 2:
        return replace(
            silent,
            state=State.WORKER_SILENT,
            cause=f"its worker {holding.owner} has not renewed its lease for {span(silent_s)}",
            next=f"another worker takes it over in {span(left_s)}, from its last recorded step",
        )
    return runs


def _starting(facts: Facts, redis: RedisSays, holding: Holding) -> Explanation:
    begun = holding.opened and holding.started_at_ms
    waits = Explanation(
        Kind.WAITS,
        State.HANDED_ON if begun else State.STARTING,
        f"the next worker is to take it up at {facts.step_words}" if begun else "it is claimed and about to start",
        why=f"its worker {holding.owner} gave it back, or was lost" if begun else "a worker is being woken for it",
        since=_at(holding.claimed_at_ms),
        next=f"it is handed on again within {span(facts.lease_s)}, until a worker takes it",
        do=("orch status",),
    )
    return waits if redis.slots else replace(waits, why="no worker takes sessions", do=("orch up",))


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


def _closed(facts: Facts) -> Explanation | None:
    if facts.tracker is None or facts.tracker.status != "closed":
        return None
    done = Explanation(Kind.DONE, State.CLOSED, "it is closed", do=(f"orch issue reopen {facts.issue_id}",))
    merge = facts.tracker.merges[-1] if facts.tracker.merges else None
    if merge is None:
        return replace(done, why="somebody closed it, not a merge that was seen")
    by = replace(done, evidence=(_merge_words(merge),), do=(f"orch history {facts.issue_id}",))
    if merge.marker is Marker.OVERFLOW_PARENT_CLOSED_BY_FIX:
        return replace(by, state=State.CLOSED_BY_FIX, cause=merge.reason)
    return replace(by, state=State.MERGED, cause=f"merged by {merge.pr_url} and closed")


def _untold(facts: Facts) -> Explanation | None:
    if facts.redis is None or not facts.redis.untold:
        return None
    return Explanation(
        Kind.WAITS,
        State.UNTOLD,
        f"the tracker is still to be told how its session ended ({facts.verdict or 'it ended'})",
        why=f"{facts.redis.untold} of its entries wait in the outbox",
        since=_at(facts.holding.ended_at_ms) if facts.holding else None,
        next=f"they are told as soon as the tracker takes them; tried every {facts.poll_s:g} s",
        do=("orch doctor",),
    )


def _in_review(facts: Facts) -> Explanation | None:
    tracker, holding = facts.tracker, facts.holding
    if tracker is None or tracker.status != "needs_review":
        return None
    if facts.verdict == Verdict.OVERFLOW:
        return _overflow(facts)
    if facts.verdict != Verdict.DONE:
        return Explanation(
            Kind.WAITS,
            State.REVIEW_BY_HAND,
            "it is in needs_review, and no session of ours brought it there",
            next="nothing, until somebody closes or reopens it",
            do=(f"orch issue show {facts.issue_id}", f"orch issue reopen {facts.issue_id}"),
        )
    place = holding.delivered_to if holding else ""
    review = Explanation(
        Kind.DONE,
        State.TO_REVIEW,
        f"verified, and to be reviewed and merged: {place or facts.branch}",
        since=_at(holding.ended_at_ms) if holding else None,
        next="it is closed as soon as its merge is seen",
        evidence=facts.evidence_words,
        do=(facts.merge_command,),
    )
    rejected = next((m for m in reversed(tracker.merges) if m.marker is Marker.MERGE_CLOSE_REJECTED), None)
    if rejected:
        return replace(
            review,
            kind=Kind.WAITS,
            state=State.MERGE_REJECTED,
            cause=f"a merge was seen that may not close it: {rejected.reason}",
            evidence=(_merge_words(rejected),),
        )
    if holding and holding.undelivered:
        in_s = ((facts.redis.deliver_at_ms if facts.redis else None) or _ms(facts.now)) / 1000 - facts.now.timestamp()
        return replace(
            review,
            kind=Kind.WAITS,
            state=State.UNDELIVERED,
            cause=f"verified, but not delivered: {holding.undelivered}",
            next=f"it is tried again in {span(in_s)}",
            do=("orch doctor", facts.merge_command),
        )
    return review


def _overflow(facts: Facts) -> Explanation:
    fix = facts.holding.fix_issue_id if facts.holding else None
    return Explanation(
        Kind.STOPPED,
        State.OVERFLOW,
        f"its reviews failed too often; it goes on as [FIX] {fix}" if fix else "its reviews failed too often",
        why=facts.reason,
        since=_at(facts.holding.ended_at_ms) if facts.holding else None,
        next=f"the merge of {fix or 'its [FIX] issue'} closes both",
        evidence=facts.log_words,
        do=(f"orch explain {fix}" if fix else f"orch history {facts.issue_id}",),
    )


def _in_progress(facts: Facts) -> Explanation | None:
    tracker = facts.tracker
    if tracker is None or tracker.status != "in_progress" or (facts.redis and facts.redis.wanted):
        return None
    if facts.verdict == Verdict.VERIFY_FAILED:
        return _verify_failed(facts)
    if not tracker.ours:
        return Explanation(
            Kind.NOT_PICKED,
            State.SOMEBODY_ELSE,
            "it is in progress, and by no session of this checkout",
            why=f"its last session, by {tracker.last_by}, ended {facts.verdict or 'never'}" if tracker.last_by else "",
            next="nothing, until its status changes",
            do=(f"orch issue reopen {facts.issue_id}",),
        )
    if facts.redis is None:
        return None
    return Explanation(
        Kind.WAITS,
        State.LOST,
        "it is in progress under our name, but Redis knows no session of it",
        why="Redis was emptied, replaced, or lost its last second",
        next=f"it is found within {span(4 * facts.lease_s)}, and goes on from its branch",
        do=(f"orch enqueue {facts.issue_id}",),
    )


def _verify_failed(facts: Facts) -> Explanation:
    ran = bool(facts.evidence_words)
    return Explanation(
        Kind.STOPPED,
        State.VERIFY_FAILED if ran else State.NO_VERIFICATION,
        f"its verification failed: {facts.reason}" if ran else "it could not be verified",
        why="" if ran else facts.reason,
        since=_at(facts.holding.ended_at_ms) if facts.holding else None,
        next="nothing: a person has to look; its work is on " + facts.branch,
        evidence=facts.evidence_words,
        do=(*facts.read_output, f"orch enqueue {facts.issue_id}"),
    )


def _malformed(facts: Facts) -> Explanation | None:
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


def _blocked(facts: Facts) -> Explanation | None:
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
        why=f"{first.issue_id} waits for {', '.join(b.issue_id for b in chain[1:])}" if len(chain) > 1 else "",
        next=f"it is ready once {_and(facts.tracker.blockers)} {_are(facts.tracker.blockers)} closed",
        evidence=tuple(f"{blocker.issue_id} is {_status_words(blocker.status)}" for blocker in chain[1:]),
        do=(f"orch explain {root.issue_id}",),
    )
    if facts.tracker.cycle:
        names = " -> ".join(b.issue_id for b in chain)
        circle = f"the issues {names} wait for each other"
        return replace(
            waits,
            kind=Kind.NOT_PICKED,
            state=State.BLOCKER_CYCLE,
            cause=circle,
            next="nothing, until one of these links is removed in the tracker",
            do=(f"orch issue show {root.issue_id}",),
        )
    if root.status == "needs_review":
        return replace(waits, state=State.BLOCKER_IN_REVIEW, do=(root.merge_command,))
    return waits


def _after_an_error(facts: Facts) -> Explanation | None:
    holding = facts.holding
    wait_s = ((holding.held_until_ms or 0) - _ms(facts.now)) / 1000 if holding else 0
    if holding is None or wait_s <= 0 or (facts.redis and facts.redis.wanted):
        return None
    if holding.stop or holding.verdict != Verdict.ERROR:
        return Explanation(
            Kind.STOPPED,
            State.STOPPED,
            holding.reason
            if holding.ended_at_ms > holding.claimed_at_ms
            else f"{holding.stop or 'stopped by somebody'}, before its session began",
            since=_at(holding.ended_at_ms),
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
        since=_at(holding.ended_at_ms),
        next=f"it is tried again in {span(wait_s)}",
        evidence=facts.log_words,
        do=(f"orch history {facts.issue_id}", f"orch enqueue {facts.issue_id}"),
    )
    if math.isinf(wait_s):
        state = error.state if worn_out else State.HELD
        cause = f"{facts.errors} sessions in a row ended in an error, the last: {holding.reason}"
        return replace(error, kind=Kind.STOPPED, state=state, cause=cause, next=f"nothing, until `{error.do[1]}`")
    return error


def _redis_away(facts: Facts) -> Explanation | None:
    if facts.redis is None:
        down = not facts.redis_away
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


def _paused(facts: Facts) -> Explanation | None:
    paused = facts.redis.paused if facts.redis else None
    if paused is None:
        return None
    return Explanation(
        Kind.WAITS,
        State.PAUSED,
        f"orch was paused by {paused.by}" + (f": {paused.reason}" if paused.reason else ""),
        since=_at(paused.at_ms),
        next="nothing new starts until `orch resume`",
        do=("orch resume",),
    )


def _no_slot(facts: Facts) -> Explanation | None:
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


def _to_be_claimed(facts: Facts) -> Explanation:
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


RULES: tuple[Callable[[Facts], Explanation | None], ...] = (
    # Whoever has it by Redis has it, whatever its status says by now.
    _somebody_has_it,
    _tracker_away,
    _unknown_issue,
    _closed,
    # Its status is not yet what its session made of it.
    _untold,
    _in_review,
    _in_progress,
    # It is open, or blocked: what keeps this issue, then what keeps all of them.
    _malformed,
    _blocked,
    _after_an_error,
    _redis_away,
    _paused,
    _no_slot,
    _to_be_claimed,
)


def _also(facts: Facts, found: Explanation) -> list[str]:
    """What is wrong besides, and what could not be asked."""
    tracker, redis = facts.tracker or TrackerSays(), facts.redis or RedisSays(slots=1)
    unmerged = any(m.marker is Marker.PULL_REQUEST_CLOSED_UNMERGED for m in tracker.merges)
    wrong = {
        f"the tracker does not answer: {facts.tracker_away}": facts.tracker is None,
        "orch is not running here, so its sessions are not known": facts.redis is None and not facts.redis_away,
        f"Redis does not answer, so its sessions are not known: {facts.redis_away}": bool(facts.redis_away),
        f"Redis takes no writes: {redis.no_writes}": bool(redis.no_writes),
        f"orch is paused by {redis.paused.by if redis.paused else ''}": redis.paused is not None,
        "its last pull request was closed without being merged": unmerged,
    }
    spoken_of = {
        State.TRACKER_AWAY: "the tracker",
        State.REDIS_AWAY: "Redis does",
        State.STACK_DOWN: "orch is not",
        State.REDIS_TAKES_NO_WRITES: "Redis takes",
        State.PAUSED: "orch is paused",
    }.get(found.state, "\0")
    refused = [f"the tracker refused to be told: {line}" for line in redis.refused]
    return [said for said, so in wrong.items() if so and not said.startswith(spoken_of)] + refused


def _status_words(status: str) -> str:
    return f"in {status}" if status in ("needs_review", "in_progress") else status


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(names)


def _are(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"


def _merge_words(merge: MergeMarker) -> str:
    return f"{merge.marker}: {merge.reason} ({merge.pr_url}, {merge.merge_sha[:12]})"


def _at(ms: float) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None


def _ms(moment: datetime) -> float:
    return moment.timestamp() * 1000
