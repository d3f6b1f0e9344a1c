"""A session's history, and the outbox that it fills, in Redis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import redis
import structlog
from pydantic import TypeAdapter, ValidationError

from orchestrator.adapters.redis.client import ENTRIES, KEPT_S, NOW, TELL, Keys, Scripts, told_args
from orchestrator.adapters.redis.counts import COUNT
from orchestrator.errors import LeaseLost, SessionStopped
from orchestrator.leases import Lease, Untold
from orchestrator.models import Entry, Report, Verdict

WAKE_TTL_MS = 10_000
KEPT_REFUSALS = 1000

log = structlog.get_logger(__name__)

REPORTS: TypeAdapter[Report] = TypeAdapter(Report)

# A step's duration is the time since the one before it: what was done again is part of what the step took.
_RECORD = (
    NOW
    + TELL
    + COUNT
    + """
local session, history, snapshots, outbox, pending, wake, counts = unpack(KEYS)
local issue, session_id, token, n, report, stage, attempt, wake_ms = unpack(ARGV)
local holder, state, started, recorded = unpack(redis.call('HMGET', session, 'token', 'state', 'started_at',
  'recorded_at'))
if holder ~= token or state == 'ended' then return 'LOST' end
local length = redis.call('LLEN', history)
if tonumber(n) < length then return 'KNOWN' end
if tonumber(n) > length then return 'GAP' end
redis.call('RPUSH', history, report)
redis.call('HSET', session, 'stage', stage, 'attempt', attempt, 'rescues', 0, 'recorded_at', string.format('%d', now))
observe(counts, 'step_seconds', stage, now - math.max(tonumber(started), tonumber(recorded or 0)))
tell(outbox, pending, snapshots, issue, session_id, 9)
if redis.call('SET', wake, 1, 'NX', 'PX', wake_ms) then return 'WAKE' end
return 'OK'
"""
)

_CLOSE = (
    NOW
    + TELL
    + COUNT
    + """
local session, history, snapshots, outbox, pending, inflight, held, errors, runs, known, finished, deliveries, counts =
  unpack(KEYS)
local issue, session_id, token, n, verdict, reason, error_limit, ttl = unpack(ARGV)
if redis.call('HGET', session, 'token') ~= token then return 'LOST' end
if redis.call('HGET', session, 'state') == 'ended' then return 'OK' end
if verdict ~= 'ERROR' and tonumber(n) > redis.call('LLEN', history) then return 'GAP' end
redis.call('HSET', session, 'state', 'ended', 'verdict', verdict, 'reason', reason,
  'ended_at', string.format('%d', now))
local stopped = verdict == 'ERROR' and redis.call('HEXISTS', session, 'stop') == 1
observe(counts, 'session_seconds', stopped and 'STOPPED' or verdict, now - redis.call('HGET', session, 'started_at'))
redis.call('ZREM', inflight, issue)
redis.call('ZADD', known, now, issue)
if verdict ~= 'ERROR' then
  redis.call('HDEL', errors, issue)
  redis.call('ZREM', held, issue)
elseif not stopped then
  local count = redis.call('HINCRBY', errors, issue, 1)
  local wait = math.min(30000 * 2 ^ (count - 1), 3600000)
  redis.call('ZADD', held, count >= tonumber(error_limit) and '+inf' or now + wait, issue)
end
tell(outbox, pending, snapshots, issue, session_id, 9)
if verdict == 'DONE' then
  redis.call('SADD', finished, issue)
  redis.call('ZADD', deliveries, now, issue)
end
for _, key in ipairs({session, history, snapshots, runs}) do redis.call('EXPIRE', key, ttl) end
return 'OK'
"""
)

_NEXT = """
local outbox, begun = unpack(KEYS)
local first = redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)[1]
if not first then return nil end
local again = redis.call('GET', begun) == first[1]
redis.call('SET', begun, first[1])
return {first[1], again and 1 or 0, first[2]}
"""

# The issue's session is still the one that made the entry: until all is told, the issue is not claimed again.
_TOLD = """
local outbox, begun, pending, session, refused = unpack(KEYS)
local id, issue, fix_issue_id, refusal, kept = unpack(ARGV)
if redis.call('XDEL', outbox, id) == 0 then return 0 end
redis.call('DEL', begun)
if redis.call('HINCRBY', pending, issue, -1) <= 0 then redis.call('HDEL', pending, issue) end
if fix_issue_id ~= '' then redis.call('HSET', session, 'fix_issue_id', fix_issue_id) end
if refusal ~= '' then
  redis.call('LPUSH', refused, refusal)
  redis.call('LTRIM', refused, 0, kept - 1)
end
return 1
"""


class RedisHistory:
    """One session's recorded reports. `wake` is called when the outbox has something and no publisher is on its way.

    Writing raises LeaseLost when the session is somebody else's, and SessionStopped when Redis has fewer reports than
    were recorded (it was restarted without its last second): then the next worker replays what is left.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, lease: Lease, *, error_limit: int, wake: Callable[[], None]
    ) -> None:
        self._redis = Scripts(client)
        self._keys = functools.partial(keys.all, issue=lease.issue_id, session=lease.record.session_id)
        self._lease = lease
        self._error_limit = error_limit
        self._wake = wake
        self._count = 0

    def recorded(self) -> Sequence[Report]:
        """All reports so far."""
        (history,) = self._keys("history")
        reports = [REPORTS.validate_json(text) for text in self._redis.client.lrange(history, 0, -1)]
        self._count = len(reports)
        return reports

    def record(self, report: Report, entries: Iterable[Entry]) -> None:
        """Record report number n with its entries, or nothing when number n is there already."""
        text = REPORTS.dump_json(report, exclude_defaults=True).decode()
        args: list[str | int] = [text, report.stage, report.attempt, WAKE_TTL_MS, *told_args(entries)]
        answer = self._call(_RECORD, "session history snapshots outbox pending wake counts", args)
        self._count += 1
        if answer == "WAKE":
            self._wake()

    def close(self, verdict: Verdict, entries: Iterable[Entry], *, reason: str = "") -> None:
        """Record the end and free the slot, once. An error holds the issue back, unless a person stopped it."""
        args: list[str | int] = [verdict, reason, self._error_limit, KEPT_S, *told_args(entries)]
        self._call(
            _CLOSE,
            "session history snapshots outbox pending inflight held errors runs known finished deliveries counts",
            args,
        )
        self._wake()

    def _call(self, lua: str, names: str, args: Sequence[str | int]) -> str:
        lease = self._lease
        head: list[str | int] = [lease.issue_id, lease.record.session_id, lease.token, self._count]
        answer: str = self._redis.call(lua, self._keys(names), [*head, *args])
        if answer == "LOST":
            raise LeaseLost(f"{lease.issue_id}: another worker runs this session now; nothing more is written here")
        if answer == "GAP":
            raise SessionStopped(
                f"{lease.issue_id}: Redis lost the last reports of this session; it goes on from those that are left"
            )
        return answer


class RedisOutbox:
    """What the tracker has still to be told, in order. One publisher at a time reads it (see `outbox.publish`).

    A Redis that lost its last second has forgotten which entry was begun, and may hold one again that was told. So
    begun is also what is older than this instance's first look, and what is no newer than the last entry it told.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._redis = Scripts(client)
        self._keys = keys
        self._fresh_after: tuple[int, ...] = ()

    def clear_wake(self) -> None:
        """From now on whoever adds an entry wakes a publisher again."""
        self._redis.client.delete(self._keys("wake"))

    def next(self) -> Untold | None:
        """The first entry, marked as begun; `begun` says that somebody began it before and may have told it.

        An entry that cannot be read (another version wrote it) is put aside: it must not stop the rest for ever.
        """
        if not self._fresh_after:
            seconds, micros = self._redis.client.time()
            self._fresh_after = (seconds * 1000 + micros // 1000, 0)
        while row := self._redis.call(_NEXT, self._keys.all("outbox begun"), []):
            fields: Mapping[str, str] = dict(zip(row[2][::2], row[2][1::2], strict=True))
            try:
                entry = ENTRIES.validate_json(fields["entry"])
            except ValidationError as error:
                log.warning("outbox_entry_unreadable", issue=fields["issue"], reason=str(error))
                self._take_off(row[0], fields["issue"], refusal=f"unreadable: {fields['entry']}")
                continue
            begun = bool(row[1]) or _number(row[0]) <= self._fresh_after
            return Untold(row[0], fields["issue"], fields["session"], entry, begun=begun)
        return None

    def told(self, untold: Untold, *, fix_issue_id: str | None = None, refusal: str = "") -> None:
        """Take an entry off; a refusal is kept for a person to read."""
        self._take_off(untold.entry_id, untold.issue_id, fix_issue_id or "", refusal)
        self._fresh_after = max(self._fresh_after, _number(untold.entry_id))

    def _take_off(self, entry_id: str, issue: str, fix_issue_id: str = "", refusal: str = "") -> None:
        names = self._keys.all("outbox begun pending session refused", issue=issue)
        self._redis.call(_TOLD, names, [entry_id, issue, fix_issue_id, refusal, KEPT_REFUSALS])

    def waiting(self) -> int:
        """How many entries are still to be told."""
        return int(self._redis.client.xlen(self._keys("outbox")))

    def untold(self, issue_id: str) -> int:
        """How many of them are of this issue."""
        return int(self._redis.client.hget(self._keys("pending"), issue_id) or 0)

    def refused(self) -> list[str]:
        """What the tracker refused to be told, newest first."""
        lines: list[str] = self._redis.client.lrange(self._keys("refused"), 0, -1)
        return lines


def _number(entry_id: str) -> tuple[int, ...]:
    """An entry's place in the stream: Redis' milliseconds, then a count."""
    return tuple(map(int, entry_id.split("-")))
