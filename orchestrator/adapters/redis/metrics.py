"""The state in Redis at one moment, read by one script: for a scrape of the metrics and for readiness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis
from pydantic import TypeAdapter

from orchestrator.adapters.redis.client import NOW, Keys, Scripts, what_refuses_writes
from orchestrator.adapters.redis.leases import RECORDS
from orchestrator.leases import SessionRecord

QUEUES = ("sessions", "poll", "publish", "merge_close")

# Of each report only whether it passed: that, and the limits of its session, say which step is under way.
_SEEN = (
    NOW
    + """
local inflight, workers, wanted, outbox, refused, finished, deliveries, held, counts, ticks, look, paused =
  unpack(KEYS)
local session_key, history_key, queue_key, lease_ms = unpack(ARGV)

local function age(ms) return ms and math.max(0, now - ms) / 1000 end

local function map(key, read)
  local found, all = {}, redis.call('HGETALL', key)
  for i = 1, #all, 2 do found[all[i]] = read(all[i + 1]) end
  return found
end

local function slots(announced)
  local count, expires = string.match(announced, '(%d+) (%d+)')
  return tonumber(expires) > now and tonumber(count) or nil
end

local function passes(id)
  local passed = ''
  for _, report in ipairs(id and redis.call('LRANGE', history_key .. id, 0, -1) or {}) do
    passed = passed .. (cjson.decode(report).passed == false and '0' or '1')
  end
  return passed
end

local sessions, rows = {}, redis.call('ZRANGE', inflight, 0, -1, 'WITHSCORES')
for i = 1, #rows, 2 do
  local state, since, opened, id, record = unpack(
    redis.call('HMGET', session_key .. rows[i], 'state', 'waits_since', 'opened', 'session_id', 'record'))
  local running, begun = state == 'running', opened == '1'
  sessions[rows[i]] = {
    state = state, record = begun and record or nil, passes = passes(begun and id),
    waits_s = not running and age(since) or 0,
    silent_s = running and age(rows[i + 1] - lease_ms) or 0,
  }
end

local queues = {}
for i = 5, #ARGV do queues[ARGV[i]] = redis.call('LLEN', queue_key .. ARGV[i]) end

local untold = redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)[1]
local asked = redis.call('ZRANGE', wanted, 0, 0, 'WITHSCORES')[2]
local well_at, failed = unpack(redis.call('HMGET', look, 'well_at', 'failed'))
return cjson.encode({
  sessions = sessions, queues = queues, workers = map(workers, slots),
  counts = map(counts, tonumber), ticks = map(ticks, age),
  wanted = redis.call('ZCARD', wanted), wanted_s = asked and age(asked / 1000) or 0,
  outbox = redis.call('XLEN', outbox), outbox_s = untold and age(string.match(untold[1], '%d+')) or 0,
  refused = redis.call('LLEN', refused), held = redis.call('ZCARD', held),
  unmerged = redis.call('SCARD', finished), undelivered = redis.call('ZCARD', deliveries),
  look_s = age(well_at) or nil, looks_failed = tonumber(failed or 0),
  paused_s = age(redis.call('HGET', paused, 'at')) or nil,
})
"""
)


@dataclass(frozen=True)
class SeenSession:
    """A claim, or a session when it has a record. `passes` has 1 or 0 for each of its reports, in order.

    `waits_s` is for how long it has waited for a worker, `silent_s` how long ago its worker renewed the lease.
    """

    state: str
    waits_s: float
    silent_s: float
    passes: str
    record: str | None = None

    def read_record(self) -> SessionRecord | None:
        """The session's record, parsed."""
        return RECORDS.validate_json(self.record) if self.record else None


@dataclass(frozen=True)
class Seen:
    """One project in Redis, at one moment. What ends in `_s` is an age in seconds; None where there never was one.

    `counts` and `ticks` are the hashes of `redis_counts`, but `ticks` as ages. `workers` has each live one's slots,
    `wanted_s` and `outbox_s` are the ages of the oldest.
    """

    sessions: Mapping[str, SeenSession]
    queues: Mapping[str, int]
    workers: Mapping[str, int]
    counts: Mapping[str, int]
    ticks: Mapping[str, float]
    wanted: int
    wanted_s: float
    outbox: int
    outbox_s: float
    refused: int
    held: int
    unmerged: int
    undelivered: int
    looks_failed: int
    look_s: float | None = None
    paused_s: float | None = None


@dataclass(frozen=True)
class ServerMemory:
    """The memory of Redis; `max_bytes` is 0 where nothing is set. `refuses` is why it takes no writes, or empty."""

    used_bytes: int
    max_bytes: int
    refuses: str


SEEN: TypeAdapter[Seen] = TypeAdapter(Seen)


class RedisMetrics:
    """Reads Redis for monitoring: one call each, however much there is. All raise `RedisUnavailable`."""

    def __init__(self, client: redis.Redis, keys: Keys, *, lease_s: float) -> None:
        self._redis = Scripts(client)
        self._keys = keys
        self._lease_ms = int(lease_s * 1000)

    def seen(self) -> Seen:
        """The project in Redis now."""
        prefixes = [f"{self._keys(name)}:" for name in ("session", "history", "celery")]
        names = "inflight workers wanted outbox refused finished deliveries held counts ticks merge-look paused"
        return SEEN.validate_json(self._redis.call(_SEEN, self._keys.all(names), [*prefixes, self._lease_ms, *QUEUES]))

    def memory(self) -> ServerMemory:
        """The memory of Redis now."""
        info: Any = self._redis.client.info()
        return ServerMemory(info["used_memory"], info.get("maxmemory", 0), what_refuses_writes(info))

    def try_write(self) -> None:
        """Write a key, to check that Redis takes writes."""
        self._redis.client.set(self._keys("writable"), 1, ex=60)
