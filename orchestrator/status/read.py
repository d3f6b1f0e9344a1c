"""Gather the facts. Looking changes nothing: no Redis is started for it, and what does not answer is a fact as well."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import redis

from orchestrator.adapters.redis import RedisControls, RedisLeases, RedisMerges, RedisOutbox, why_no_writes
from orchestrator.errors import InvalidMCPResponseError, RedisUnavailable, TrackerRefused, TransientMCPError
from orchestrator.issue import Issue, listed, shown
from orchestrator.merge_close.record import markers_of
from orchestrator.models import BaseTrouble, Holding, IssueStatus, Report, utc_now
from orchestrator.poll import unfinished
from orchestrator.poll.candidates import candidates
from orchestrator.status.board import EngineStatus, board_of, not_there
from orchestrator.status.explanation import Explanation
from orchestrator.status.facts import Asked, Blocker, Facts, Policy, RedisSays, Tracked, TrackerSays
from orchestrator.status.told import SessionTold, sessions_told, since_last
from orchestrator.status.why import explain

BLOCKERS_ASKED = 25
"""Of how many issues a look at all asks the tracker one by one: sudocode takes up to a second for each."""
MAX_CHAIN = 25
"""How many blockers are followed to the root, at the same price."""

WAITING = (IssueStatus.OPEN, IssueStatus.BLOCKED)
NOT_LISTED = "unknown to the tracker"

Lookup = Callable[[str], Issue | None]


class IssueSource(Protocol):
    """The parts of the tracker that a look asks."""

    def show_issue(self, issue_id: str) -> Mapping[str, object]:
        """One issue with its relationships and feedback."""

    def list_issues(self, *, archived: bool | None = None) -> Iterable[object]:
        """Rows of all issues; the archived ones only where they are asked for."""


@dataclass(frozen=True)
class RedisSources:
    """The parts of Redis that a look asks."""

    client: redis.Redis
    leases: RedisLeases
    outbox: RedisOutbox
    controls: RedisControls
    merges: RedisMerges


@dataclass(frozen=True)
class Sources:
    """All that a look asks. `redis` gives None where none runs; `ready` is the tracker's ready list, `base` the reason
    why the base branch lets nothing be claimed, if there is one.

    `installation` is the name under which this checkout runs sessions, `logs` the folder of what they print.
    """

    project: str
    redis: Callable[[], RedisSources | None]
    tracker: IssueSource
    ready: Callable[[], Iterable[object]]
    base: Callable[[], BaseTrouble | None]
    installation: Callable[[], str | None]
    logs: Path
    policy: Policy


def collect(sources: Sources) -> EngineStatus:
    """The status now: a row for each issue that is not closed."""
    # Redis first: an issue that it no longer has to tell of, the tracker knows when it is asked afterwards.
    sessions = ask_redis(sources)
    tracked = ask_tracker(sources, sessions.answer)
    facts = facts_of(sources, sessions, tracked)
    if not_there(facts):
        facts = facts_of(sources, ask_redis(sources), tracked)
    return board_of(sources.project, facts)


def explained(sources: Sources, issue_id: str) -> Explanation:
    """The reason why the issue is, or is not, being worked on now."""
    return explain(look_at(sources, issue_id).of(issue_id))


def look_at(sources: Sources, issue_id: str, *, waits: bool = True) -> Facts:
    """All that is known of one issue; without `waits` not what it waits for, which is a call for each blocker."""
    sessions = ask_redis(sources, issue_id)
    return facts_of(sources, sessions, _asked(lambda: _one(sources, issue_id, waits=waits)), issue_id)


def look_back(sources: Sources, since: datetime) -> Facts:
    """The facts of all sessions since then; of closed and archived issues, too."""
    sessions = ask_redis(sources, since=since)

    def wanted(issue: Issue) -> bool:
        # What Redis has need not be read from feedback, which agents may have written too.
        return sessions.answer is None and (issue.updated_at is None or issue.updated_at >= since)

    tracked = _asked(lambda: _listed(sources, wanted, most=None, archived=True))
    return facts_of(sources, sessions, tracked)


def facts_of(
    sources: Sources, sessions: Asked[RedisSays], tracked: Asked[TrackerSays], log_of: str | None = None
) -> Facts:
    """The facts in these answers, at the time of Redis's clock: leases run by that."""
    now = sessions.answer.now if sessions.answer else utc_now()
    holding = sessions.answer.holdings.get(log_of) if sessions.answer and log_of else None
    log = _newest_log(sources.logs, holding) if holding else None
    return Facts(now, sessions, tracked, sources.policy, {log_of: log} if log_of and log else {})


def ask_redis(sources: Sources, issue_id: str | None = None, *, since: datetime | None = None) -> Asked[RedisSays]:
    """Ask Redis for all issues; for one, or those with a session since then, for all sessions and reports too."""
    try:
        there = sources.redis()
        return Asked(replace(_redis_says(there, issue_id, since), base=sources.base()) if there else None)
    except (redis.RedisError, RedisUnavailable) as error:
        return Asked(None, str(error))


def ask_tracker(sources: Sources, sessions: RedisSays | None) -> Asked[TrackerSays]:
    """Ask the tracker for all issues; with sudocode this takes a second for each one that waits."""

    def wanted(issue: Issue) -> bool:
        unknown = sessions is not None and issue.id not in sessions.holdings
        return issue.status in WAITING or (issue.status is IssueStatus.IN_PROGRESS and unknown)

    return _asked(lambda: _listed(sources, wanted, most=BLOCKERS_ASKED))


def _redis_says(there: RedisSources, issue_id: str | None, since: datetime | None) -> RedisSays:
    leases, outbox = there.leases, there.outbox
    seconds, micros = there.client.time()
    holdings = {holding.issue_id: holding for holding in leases.holdings()}
    if issue_id and (holding := leases.holding(issue_id)):  # a claim is not among them yet
        holdings[issue_id] = holding
    waiting = outbox.waiting()
    asked = {issue_id} if issue_id else {it for it, holding in holdings.items() if since and _since(holding, since)}
    return RedisSays(
        now=datetime.fromtimestamp(seconds + micros / 1e6, UTC),
        holdings=holdings,
        sessions=_sessions(leases, holdings, whole=asked, last=issue_id is None),
        reports={it: _reports(there.merges, it) for it in asked},
        deliver_at_ms={
            it: due for it, holding in holdings.items() if holding.undelivered and (due := there.merges.due_at_ms(it))
        },
        untold={it: count for it in holdings if (count := outbox.untold(it))} if waiting else {},
        wanted=tuple(leases.wanted()),
        live=tuple(leases.inflight()),
        slots=sum(leases.workers().values()),
        outbox=waiting,
        refused=tuple(outbox.refused()),
        no_writes=why_no_writes(there.client),
        paused=there.controls.paused(),
    )


def _since(holding: Holding, since: datetime) -> bool:
    return holding.live or holding.ended_at_ms >= since.timestamp() * 1000


def _sessions(
    leases: RedisLeases, holdings: Mapping[str, Holding], *, whole: set[str], last: bool
) -> dict[str, tuple[SessionTold, ...]]:
    """All sessions of the issues in `whole`; of the others the last one, if that is asked for."""
    found = {}
    for issue_id, holding in holdings.items():
        runs = [holding.record.session_id] if last and holding.record else []
        if issue_id in whole:
            runs = leases.runs(issue_id)
        if told := tuple(session for run in runs for session in sessions_told(leases.snapshots(run))):
            found[issue_id] = told
    return found


def _reports(merges: RedisMerges, issue_id: str) -> Sequence[Report]:
    work = merges.work(issue_id)
    return work[1] if work else ()


def _asked(ask: Callable[[], TrackerSays]) -> Asked[TrackerSays]:
    """The tracker's answer, or why there is none."""
    try:
        return Asked(ask())
    except (TransientMCPError, TrackerRefused, InvalidMCPResponseError) as error:
        return Asked(None, str(error))


def _listed(
    sources: Sources, wanted: Callable[[Issue], bool], *, most: int | None, archived: bool = False
) -> TrackerSays:
    """Every issue as the tracker lists it; those that are wanted, as far as `most`, asked for one by one."""
    tracker = sources.tracker
    rows = listed(tracker.list_issues())
    put_away = functools.cache(lambda: {issue.id: issue for issue in listed(tracker.list_issues(archived=True))})
    issues = {issue.id: issue for issue in [*rows, *(put_away().values() if archived else ())]}
    asked = [issue.id for issue in sorted(issues.values(), key=lambda it: it.claiming_order) if wanted(issue)]
    issues |= {issue_id: shown(tracker.show_issue, issue_id) for issue_id in asked[:most]}

    def lookup(issue_id: str) -> Issue | None:
        return issues.get(issue_id) or put_away().get(issue_id)

    in_order = sorted(issues.values(), key=lambda it: it.claiming_order)
    looked_into = set(asked[:most])
    found = {it.id: _tracked(sources, it, lookup, is_shown=it.id in looked_into) for it in in_order}
    return TrackerSays(found, unasked=len(asked) - len(looked_into))


def _one(sources: Sources, issue_id: str, *, waits: bool) -> TrackerSays:
    """One issue, and where it is asked for what it waits for."""

    @functools.cache
    def lookup(other: str) -> Issue | None:
        try:
            return shown(sources.tracker.show_issue, other)
        except TrackerRefused:  # one that the tracker does not know keeps others waiting as well
            return None

    try:
        issue = shown(sources.tracker.show_issue, issue_id)
    except TrackerRefused as refusal:
        return TrackerSays({issue_id: Tracked(None, refusal=str(refusal))})
    ready = not waits or issue.status is not IssueStatus.OPEN or _is_ready(sources, issue_id)
    return TrackerSays({issue_id: _tracked(sources, issue, lookup if waits else None, ready=ready)})


def _tracked(
    sources: Sources, issue: Issue, lookup: Lookup | None, *, is_shown: bool = True, ready: bool = True
) -> Tracked:
    waits_for = _open_blockers(issue, lookup) if lookup else ()
    chain, cycle = _chain(issue.id, waits_for, lookup) if lookup else ((), False)
    ours = is_shown and issue.status is IssueStatus.IN_PROGRESS and unfinished(issue, sources.installation())
    return Tracked(
        issue,
        malformed="; ".join(candidates([issue.record])[1]),
        shown=is_shown,
        ready=ready,
        blockers=waits_for,
        chain=chain,
        cycle=cycle,
        sessions=sessions_told(reversed(issue.feedback)),
        merges=tuple(markers_of(issue.feedback)),
        merges_since=tuple(markers_of(since_last(issue.feedback))),
        ours=ours,
    )


def _open_blockers(issue: Issue, lookup: Lookup) -> tuple[str, ...]:
    if issue.status not in WAITING:
        return ()
    found = {blocker: lookup(blocker) for blocker in issue.blockers}
    return tuple(it for it, other in found.items() if other is None or other.status is not IssueStatus.CLOSED)


def _chain(issue_id: str, following: Sequence[str], lookup: Lookup) -> tuple[tuple[Blocker, ...], bool]:
    """From the first open blocker to one that waits for none, and whether it leads back to an issue on the way."""
    seen = {issue_id}
    chain: list[Blocker] = []
    while following and len(chain) < MAX_CHAIN:
        issue = lookup(following[0])
        blocker = Blocker(following[0], issue.status_said if issue else NOT_LISTED)
        chain.append(blocker)
        if blocker.issue_id in seen:
            return tuple(chain), True
        seen.add(blocker.issue_id)
        following = _open_blockers(issue, lookup) if issue else ()
    return tuple(chain), False


def _is_ready(sources: Sources, issue_id: str) -> bool:
    return any(isinstance(row, Mapping) and row.get("id") == issue_id for row in sources.ready())


def _newest_log(logs: Path, holding: Holding) -> tuple[str, datetime] | None:
    """The file that the session wrote last on this host, and when."""
    if holding.record is None:
        return None
    folder = logs / holding.issue_id / holding.record.session_id
    try:
        grew = {path: path.stat().st_mtime for path in folder.iterdir() if path.suffix != ".prompt"}
    except OSError:  # another host's, or none yet
        return None
    newest = max(grew, key=lambda path: grew[path], default=None)
    return (str(newest), datetime.fromtimestamp(grew[newest], UTC)) if newest else None
