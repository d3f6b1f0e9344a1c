"""The reasons that an issue's sessions give: the rules about those that run, ended, or were lost."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime

from orchestrator.merge_close.record import NAMED_BADLY, Marker, MergeMarker
from orchestrator.models import Holding, IssueStatus, SessionState, Verdict, branch_of
from orchestrator.status.explanation import Explanation, Kind, State, at
from orchestrator.status.facts import IssueFacts, RedisSays, Tracked
from orchestrator.text import span


def taken(facts: IssueFacts) -> Explanation | None:
    """A worker has it, is about to, or should have: what Redis says of its lease."""
    holding = facts.holding
    if facts.redis is None or holding is None or not holding.live:
        return None
    if holding.stop:
        return Explanation(
            Kind.STOPPED,
            State.STOPPING,
            f"it is being {holding.stop}",
            next="it ends within seconds; its work is kept, and it is open again",
            do=("orch status",),
        )
    if holding.state == SessionState.CLAIMED:
        return _starting(facts, facts.redis, holding)
    return _running(facts, facts.redis, holding)


def _running(facts: IssueFacts, redis: RedisSays, holding: Holding) -> Explanation:
    session_id = facts.record.session_id if facts.record else ""
    silent_s = facts.all.policy.lease_s - _left_s(facts, holding)
    if silent_s > facts.all.policy.lease_s / 2:
        return _silent(facts, redis, holding)
    return Explanation(
        Kind.RUNS,
        State.RUNNING,
        f"{facts.step_words} on {holding.owner}",
        why=f"its session {session_id} began {span((facts.now_ms - holding.claimed_at_ms) / 1000)} ago",
        since=at(holding.claimed_at_ms),
        next=f"if its worker falls silent, another takes it over after {span(facts.all.policy.lease_s)}",
        evidence=_signs_of_life(facts, silent_s),
        do=(f"orch logs {facts.issue_id} -f",),
    )


def _silent(facts: IssueFacts, redis: RedisSays, holding: Holding) -> Explanation:
    left_s = _left_s(facts, holding)
    silent_s = facts.all.policy.lease_s - left_s
    silent = Explanation(
        Kind.WAITS,
        State.WORKER_SILENT,
        f"its worker {holding.owner} has not renewed its lease for {span(silent_s)}",
        why="that worker or its way to Redis is gone, or stands still",
        since=at(facts.now_ms - silent_s * 1000),
        next=f"another worker takes it over in {span(left_s)}, from its last recorded step",
        evidence=_signs_of_life(facts, silent_s),
        do=("orch doctor",),
    )
    if left_s > 0:
        return silent
    return replace(
        silent,
        state=State.RESCUE,
        cause=f"its worker {holding.owner} fell silent; another is to take it over",
        next="the next poll hands it on, from its last recorded step",
        do=("orch doctor",) if redis.slots else ("orch up",),
    )


def _left_s(facts: IssueFacts, holding: Holding) -> float:
    """Seconds until the lease is over."""
    return ((holding.deadline_ms or 0) - facts.now_ms) / 1000


def _signs_of_life(facts: IssueFacts, silent_s: float) -> tuple[str, ...]:
    return f"the worker gave a sign of life {span(silent_s)} ago", *facts.log_words


def _starting(facts: IssueFacts, redis: RedisSays, holding: Holding) -> Explanation:
    begun = holding.opened and holding.started_at_ms
    waits = Explanation(
        Kind.WAITS,
        State.HANDED_ON if begun else State.STARTING,
        f"the next worker is to take it up at {facts.step_words}" if begun else "it is claimed and about to start",
        why=f"its worker {holding.owner} gave it back, or was lost" if begun else "a worker is being woken for it",
        since=at(holding.claimed_at_ms),
        next=f"it is handed on again within {span(facts.all.policy.lease_s)}, until a worker takes it",
        do=("orch status",),
    )
    return waits if redis.slots else replace(waits, why="no worker takes sessions", do=("orch up",))


def untold(facts: IssueFacts) -> Explanation | None:
    """Its session ended, and the tracker does not know yet."""
    count = facts.redis.untold.get(facts.issue_id) if facts.redis else 0
    if not count:
        return None
    return Explanation(
        Kind.WAITS,
        State.UNTOLD,
        f"the tracker is still to be told how its session ended ({facts.verdict or 'it ended'})",
        why=f"{count} of its entries wait in the outbox",
        since=_ended_at(facts),
        next=f"they are told as soon as the tracker takes them; tried every {facts.all.policy.poll_s:g} s",
        do=("orch doctor",),
    )


def closed(facts: IssueFacts) -> Explanation | None:
    """It is closed; by which merge, if by one."""
    tracked = facts.tracked
    if tracked is None or tracked.status is not IssueStatus.CLOSED:
        return None
    done = Explanation(Kind.DONE, State.CLOSED, "it is closed", do=(f"orch issue reopen {facts.issue_id}",))
    closed_it = (Marker.MERGE_CLOSE_APPLIED, Marker.OVERFLOW_PARENT_CLOSED_BY_FIX)
    merge = next((merge for merge in reversed(tracked.merges_since) if merge.marker in closed_it), None)
    if merge is None:
        return replace(done, why="a person closed it, not a merge that was seen")
    by = replace(done, evidence=(_merge_words(merge),), do=(f"orch history {facts.issue_id}",))
    if merge.marker is Marker.OVERFLOW_PARENT_CLOSED_BY_FIX:
        return replace(by, state=State.CLOSED_BY_FIX, cause=merge.reason)
    return replace(by, state=State.MERGED, cause=f"merged by {merge.pr_url} and closed")


def in_review(facts: IssueFacts) -> Explanation | None:
    """It waits for a person: to merge it, or to say what else."""
    tracked, holding = facts.tracked, facts.holding
    if tracked is None or tracked.status is not IssueStatus.NEEDS_REVIEW:
        return None
    if facts.verdict is Verdict.OVERFLOW:
        return _overflow(facts)
    if facts.verdict is not Verdict.DONE:
        return _review_by_hand(facts, tracked)
    if facts.nothing_to_merge:
        return _nothing_to_merge(facts)
    review = Explanation(
        Kind.DONE,
        State.TO_REVIEW,
        f"verified, and to be reviewed and merged: {facts.place}",
        since=_ended_at(facts),
        next="it is closed as soon as its merge is seen",
        evidence=facts.evidence_words,
        do=(facts.merge_command,),
    )
    rejected = next((m for m in reversed(tracked.merges_since) if m.marker is Marker.MERGE_CLOSE_REJECTED), None)
    if rejected:
        return _rejected(review, facts.issue_id, rejected)
    if facts.redis and holding and holding.undelivered:
        in_s = (facts.redis.deliver_at_ms.get(facts.issue_id, facts.now_ms) - facts.now_ms) / 1000
        return replace(
            review,
            kind=Kind.WAITS,
            state=State.UNDELIVERED,
            cause=f"verified, but not delivered: {holding.undelivered}",
            next=f"it is tried again in {span(in_s)}",
            do=("orch doctor", facts.merge_command),
        )
    return review


def _rejected(review: Explanation, issue_id: str, merge: MergeMarker) -> Explanation:
    """A merge did not close it. Where it was the right one, and only its text was wrong, a person's word closes it."""
    rejected = replace(
        review,
        kind=Kind.WAITS,
        state=State.MERGE_REJECTED,
        cause=f"a merge was seen that may not close it: {merge.reason}",
        next="a merge of its work that may close it does",
        evidence=(_merge_words(merge),),
    )
    if not merge.reason.startswith(NAMED_BADLY) or not merge.merged_at:
        return rejected
    said = {"--pr-url": merge.pr_url, "--merge-sha": merge.merge_sha, "--merged-at": merge.merged_at}
    words = (word for option, value in said.items() for word in (option, value))
    close = shlex.join(("orch", "merges", "close", issue_id, *words))
    return replace(rejected, next="it is closed when you say that this was its merge", do=(close,))


def _nothing_to_merge(facts: IssueFacts) -> Explanation:
    return Explanation(
        Kind.WAITS,
        State.NOTHING_TO_MERGE,
        "verified, and there is nothing to merge: a person has to close it",
        why=facts.reason,
        since=_ended_at(facts),
        next=f"nothing to merge, so nothing closes it but `{facts.close_command}`; what waits for it starts then",
        evidence=facts.evidence_words,
        do=(facts.close_command, f"orch issue reopen {facts.issue_id}"),
    )


def _review_by_hand(facts: IssueFacts, tracked: Tracked) -> Explanation:
    return Explanation(
        Kind.WAITS,
        State.REVIEW_BY_HAND,
        f"it is in needs_review, and {_whose(facts, tracked, 'no session of ours brought it there')}",
        next="nothing, until a person closes or reopens it",
        do=(f"orch issue show {facts.issue_id}", f"orch issue reopen {facts.issue_id}"),
    )


def _whose(facts: IssueFacts, tracked: Tracked, not_ours: str) -> str:
    """The words about its last session; a row of the tracker's list does not tell whose that was."""
    if tracked.shown:
        return not_ours
    return f"its last session ended {facts.verdict}" if facts.verdict else "no session of it is known here"


def _overflow(facts: IssueFacts) -> Explanation:
    fix = facts.holding.fix_issue_id if facts.holding else None
    return Explanation(
        Kind.STOPPED,
        State.OVERFLOW,
        f"its reviews failed too often; it goes on as [FIX] {fix}" if fix else "its reviews failed too often",
        why=facts.reason,
        since=_ended_at(facts),
        next=f"the merge of {fix or 'its [FIX] issue'} closes both",
        evidence=facts.log_words,
        do=(f"orch explain {fix}" if fix else f"orch history {facts.issue_id}",),
    )


def in_progress(facts: IssueFacts) -> Explanation | None:
    """It is in progress, and no session worker here has it."""
    tracked = facts.tracked
    if tracked is None or tracked.status is not IssueStatus.IN_PROGRESS or facts.wanted:
        return None
    if facts.verdict is Verdict.VERIFY_FAILED:
        return _verify_failed(facts)
    if facts.redis is None and (tracked.ours or not tracked.shown):
        return None
    if tracked.ours and facts.redis:
        return Explanation(
            Kind.WAITS,
            State.LOST,
            "it is in progress under our name, but Redis knows no session of it",
            why="Redis was emptied, replaced, or lost its last second",
            next=f"it is found within {span(4 * facts.all.policy.lease_s)}, and goes on from its branch",
            do=(f"orch enqueue {facts.issue_id}",),
        )
    last = tracked.last
    return Explanation(
        Kind.NOT_PICKED,
        State.SOMEBODY_ELSE,
        f"it is in progress, and {_whose(facts, tracked, 'by no session of this checkout')}",
        why=f"its last session, by {last.by}, ended {facts.verdict or 'never'}" if last else "",
        next="nothing, until its status changes",
        do=(f"orch issue reopen {facts.issue_id}",),
    )


def _verify_failed(facts: IssueFacts) -> Explanation:
    ran = facts.verified
    again = f"orch enqueue {facts.issue_id}"
    return Explanation(
        Kind.STOPPED,
        State.VERIFY_FAILED if ran else State.NO_VERIFICATION,
        f"its verification failed: {facts.reason}" if ran else f"it could not be verified: {facts.reason}",
        since=_ended_at(facts),
        next=f"nothing: a person has to look; its work is on {branch_of(facts.issue_id)}",
        evidence=facts.evidence_words,
        do=(f"orch logs {facts.issue_id} --step verification", again) if ran else (again,),
    )


def _ended_at(facts: IssueFacts) -> datetime | None:
    return at(facts.holding.ended_at_ms) if facts.holding else None


def _merge_words(merge: MergeMarker) -> str:
    return f"{merge.marker}: {merge.reason} ({merge.pr_url}, {merge.merge_sha[:12]})"
