"""Gathers what `explain` wants to know of one issue. Looking changes nothing, and what is away is a fact as well."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import redis

from orchestrator.adapters.git import installation
from orchestrator.adapters.redis import RedisMerges, why_no_writes
from orchestrator.errors import InvalidMCPResponseError, RedisUnavailable, TrackerRefused, TransientMCPError
from orchestrator.issue import feedback_of, read
from orchestrator.leases import Holding
from orchestrator.merge_close.record import markers_of
from orchestrator.models import Stage, utc_now
from orchestrator.poll import unfinished
from orchestrator.poll.candidates import candidates, too_many_fixes
from orchestrator.snapshot import ENDS, Snapshot, read_snapshot
from orchestrator.status.board import leases_if_up, snapshots_of, step_told
from orchestrator.status.explain import explain
from orchestrator.status.explanation import Explanation
from orchestrator.status.facts import Blocker, Facts, RedisSays, TrackerSays
from orchestrator.wiring import Wiring

MAX_CHAIN = 25
"""How many blockers are followed to the root: sudocode takes up to a second for each."""


def explained(wiring: Wiring, issue_id: str) -> Explanation:
    """Why the issue is, or is not, being worked on now."""
    return explain(facts_of(wiring, issue_id))


def facts_of(wiring: Wiring, issue_id: str) -> Facts:
    """All that Redis, the tracker and this host's logs say of one issue."""
    settings = wiring.settings
    # Redis first: what it no longer has to tell of, the tracker knows when it is asked afterwards.
    says, redis_away, now = _ask_redis(wiring, issue_id)
    tracker, tracker_away = _ask_tracker(wiring, issue_id)
    if says and tracker and tracker.chain:
        tracker = _with_deliveries(wiring, tracker)
    return Facts(
        issue_id,
        now,
        tracker,
        says,
        tracker_away=tracker_away,
        redis_away=redis_away,
        log=_newest_log(wiring, says.holding) if says and says.holding else None,
        lease_s=settings.lease_seconds,
        poll_s=settings.poll_interval,
        max_rescues=settings.limits.rescues,
        errors=settings.limits.errors_in_a_row,
    )


def _ask_redis(wiring: Wiring, issue_id: str) -> tuple[RedisSays | None, str, datetime]:
    """What Redis says, or why it does not, and the time by its clock: leases run by that."""
    try:
        if leases_if_up(wiring) is None:
            return None, "", utc_now()
        seconds, micros = wiring.client.time()
        return _redis_says(wiring, issue_id), "", datetime.fromtimestamp(seconds + micros / 1e6, UTC)
    except (redis.RedisError, RedisUnavailable) as error:
        return None, str(error), utc_now()


def _redis_says(wiring: Wiring, issue_id: str) -> RedisSays:
    leases, merges = wiring.leases, RedisMerges(wiring.client, wiring.keys)
    holding = leases.holding(issue_id)
    record = holding.record if holding else None
    work = merges.work(issue_id)
    last = work[1][-1] if work else None
    return RedisSays(
        holding=holding,
        step=step_told(snapshots_of(leases, record.session_id), record) if record else None,
        evidence=last.evidence if last and last.stage is Stage.VERIFICATION else None,
        slots=sum(leases.workers().values()),
        live=tuple(leases.inflight()),
        wanted=issue_id in leases.wanted(),
        untold=wiring.outbox.untold(issue_id),
        refused=tuple(line for line in wiring.outbox.refused() if line.startswith(f"{issue_id}:")),
        deliver_at_ms=merges.due_at_ms(issue_id),
        no_writes=why_no_writes(wiring.client),
        paused=wiring.controls.paused(),
    )


def _ask_tracker(wiring: Wiring, issue_id: str) -> tuple[TrackerSays | None, str]:
    """What the tracker says, or why it does not."""
    try:
        return _tracker_says(wiring, issue_id), ""
    except (TransientMCPError, InvalidMCPResponseError) as error:
        return None, str(error)


def _tracker_says(wiring: Wiring, issue_id: str) -> TrackerSays:
    show = functools.cache(functools.partial(_shown, wiring))
    try:
        shown = wiring.tracker.show_issue(issue_id)
    except TrackerRefused as refusal:
        return TrackerSays(refusal=str(refusal))
    status = str(shown.get("status") or "")
    waits_for = tuple(_open_blockers(shown, show)) if status in ("open", "blocked") else ()
    chain, cycle = _chain(issue_id, waits_for, show)
    told = [snapshot for content in feedback_of(shown) if (snapshot := read_snapshot(content))]
    end = _end(told)
    return TrackerSays(
        status=status,
        malformed="; ".join(candidates([shown])[1]),
        ready=status != "open" or _is_ready(wiring, issue_id),
        blockers=waits_for,
        chain=chain,
        cycle=cycle,
        too_many_fixes=too_many_fixes(str(shown.get("title"))),
        merges=tuple(markers_of(_since_the_session(shown))),
        last_by=told[0].orchestrator_id if told else "",
        ours=unfinished(read(shown), installation.name_of(wiring.settings.root)),
        verdict=ENDS[end.event_type] if end else "",
        reason="; ".join(end.failed_items) if end else "",
    )


def _end(told: list[Snapshot]) -> Snapshot | None:
    """The end of the session that the newest snapshot is of; those of one moment may come in any order."""
    ends = (s for s in told if s.event_type in ENDS and s.session_id == told[0].session_id)
    return next(ends, None)


def _since_the_session(shown: Mapping[str, object]) -> list[str]:
    return list(takewhile(lambda content: read_snapshot(content) is None, feedback_of(shown)))


def _shown(wiring: Wiring, issue_id: str) -> Mapping[str, object]:
    """An issue; one that the tracker does not know keeps others waiting as well."""
    try:
        shown: Mapping[str, object] = wiring.tracker.show_issue(issue_id)
    except TrackerRefused:
        return {"id": issue_id, "status": "unknown to the tracker"}
    return shown


Show = Callable[[str], Mapping[str, object]]


def _open_blockers(shown: Mapping[str, object], show: Show) -> list[str]:
    return [other for other in read(shown).blockers if show(other).get("status") != "closed"]


def _chain(issue_id: str, following: Sequence[str], show: Show) -> tuple[tuple[Blocker, ...], bool]:
    """From the first open blocker to one that waits for none, and whether it leads back to an issue on the way."""
    seen = {issue_id}
    chain: list[Blocker] = []
    while following and len(chain) < MAX_CHAIN:
        blocker = following[0]
        status = str(show(blocker).get("status"))
        chain.append(Blocker(blocker, status))
        if blocker in seen:
            return tuple(chain), True
        seen.add(blocker)
        following = _open_blockers(show(blocker), show) if status in ("open", "blocked") else ()
    return tuple(chain), False


def _is_ready(wiring: Wiring, issue_id: str) -> bool:
    rows: list[Any] = wiring.gateway.get_ready_issues()
    return any(isinstance(row, Mapping) and row.get("id") == issue_id for row in rows)


def _with_deliveries(wiring: Wiring, tracker: TrackerSays) -> TrackerSays:
    try:
        held = {blocker.issue_id: wiring.leases.holding(blocker.issue_id) for blocker in tracker.chain}
    except (redis.RedisError, RedisUnavailable):
        return tracker
    places = {issue_id: holding.delivered_to for issue_id, holding in held.items() if holding}
    chain = (replace(blocker, delivered_to=places.get(blocker.issue_id, "")) for blocker in tracker.chain)
    return replace(tracker, chain=tuple(chain))


def _newest_log(wiring: Wiring, holding: Holding) -> tuple[str, datetime] | None:
    """The file that the session wrote last on this host, and when."""
    if holding.record is None:
        return None
    folder = wiring.settings.logs / holding.issue_id / holding.record.session_id
    try:
        grew = {path: path.stat().st_mtime for path in folder.iterdir() if path.suffix != ".prompt"}
    except OSError:  # another host's, or none yet
        return None
    newest = max(grew, key=lambda path: grew[path], default=None)
    return (str(newest), datetime.fromtimestamp(grew[newest], UTC)) if newest else None
