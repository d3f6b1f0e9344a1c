"""What is counted in Redis for those who watch: how often, how long, and when last.

In the hash `counts`, a field is what was counted, its label, and for a duration its bucket: `step_seconds|RUNNING|60`.
What a session adds is counted in the very script that records it, so neither a death nor a retry counts it wrongly.
What is written here is for curves alone: one call, which may be lost or counted twice, and never fails its caller.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import redis
import structlog

from orchestrator.adapters.redis.client import NOW, Keys, Scripts
from orchestrator.errors import InvalidMCPResponseError, RedisUnavailable, TrackerRefused, TransientMCPError

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_LONG = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
BUCKETS = {
    "session_seconds": _LONG,
    "step_seconds": _LONG,
    "merge_lag_seconds": _LONG,
    "tracker_call_seconds": (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 40),
}
"""Where the buckets of each duration end; one more takes the rest."""

# In Lua: one of something; and a duration of it.
COUNT = (
    f"local bounds = cjson.decode('{json.dumps(BUCKETS)}')"
    + """
local function count(counts, name, label)
  redis.call('HINCRBY', counts, name .. '|' .. label, 1)
end
local function observe(counts, name, label, ms)
  local bucket = '+Inf'
  for _, bound in ipairs(bounds[name]) do
    if ms <= 1000 * bound then bucket = tostring(bound) break end
  end
  count(counts, name, label .. '|' .. bucket)
  redis.call('HINCRBY', counts, name .. '|' .. label .. '|ms', string.format('%d', ms))
end
"""
)

_TRACKER_CALL = (
    COUNT
    + """
local tool, outcome, ms = unpack(ARGV)
count(KEYS[1], 'tracker_calls', tool .. '|' .. outcome)
observe(KEYS[1], 'tracker_call_seconds', tool, tonumber(ms))
"""
)

_TICKED = (
    NOW
    + """
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now))
if ARGV[2] == '1' then redis.call('HSET', KEYS[1], ARGV[1] .. ' ok', string.format('%d', now)) end
"""
)


class RedisCounts:
    """Counts what no session records. Give it a client of little patience: others wait for it."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._redis = Scripts(client)
        self._keys = keys

    def ticked(self, tick: str, *, ok: bool = True) -> None:
        """This tick came to its end just now; ok says that it was a good one."""
        self._quietly(_TICKED, "ticks", [tick, int(ok)])

    def tracker_call(self, tool: str, outcome: str, seconds: float) -> None:
        """The tracker was called. That took a process of its own; counting it takes a thousandth of that."""
        self._quietly(_TRACKER_CALL, "counts", [tool, outcome, int(1000 * seconds)])

    def _quietly(self, lua: str, key: str, args: list[str | int]) -> None:
        try:
            self._redis.call(lua, self._keys.all(key), args)
        except (RedisUnavailable, redis.RedisError) as error:
            log.debug("not_counted", what=args[0], reason=str(error))


def timed(call: Callable[P, T], note: Callable[[str, str, float], None]) -> Callable[P, T]:
    """The same tracker call, of which `note` is given its name, its outcome and its seconds."""

    @functools.wraps(call)
    def noted(*args: P.args, **kwargs: P.kwargs) -> T:
        started = time.monotonic()
        outcome = "failed"
        try:
            answer = call(*args, **kwargs)
            outcome = "ok"
            return answer
        except TransientMCPError:
            outcome = "unavailable"
            raise
        except TrackerRefused:
            outcome = "refused"
            raise
        except InvalidMCPResponseError:
            outcome = "invalid"
            raise
        finally:
            note(call.__name__, outcome, time.monotonic() - started)

    return noted
