"""What a person has switched, in Redis: whether new sessions may start. It outlives every process of ours."""

from __future__ import annotations

import redis

from orchestrator.adapters.redis.client import NOW, Keys, Scripts
from orchestrator.leases import Paused

_PAUSE = (
    NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'by', ARGV[1], 'reason', ARGV[2], 'at', string.format('%d', now))
end
return redis.call('HMGET', KEYS[1], 'by', 'reason', 'at')
"""
)

_RESUME = """
local before = redis.call('HMGET', KEYS[1], 'by', 'reason', 'at')
redis.call('DEL', KEYS[1])
return before
"""


class RedisControls:
    """Pausing. While orch is paused no claim is won (the claim's script looks here); what runs goes on to its end."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._redis = Scripts(client)
        self._paused = keys("paused")

    def pause(self, *, by: str, reason: str) -> Paused:
        """From now on nothing new is claimed. Gives the pause that holds: the first one, if there was one already."""
        by, reason, at_ms = self._redis.call(_PAUSE, [self._paused], [by, reason])
        return Paused(by, reason, int(at_ms))

    def resume(self) -> Paused | None:
        """From now on new sessions may start. Gives the pause that was ended, if there was one."""
        return _pause(self._redis.call(_RESUME, [self._paused], []))

    def paused(self) -> Paused | None:
        """The pause that holds, if any."""
        return _pause(self._redis.client.hmget(self._paused, "by", "reason", "at"))


def _pause(row: list[str | None]) -> Paused | None:
    by, reason, at_ms = row
    return None if by is None else Paused(by, reason or "", int(at_ms or 0))


KEPT_S = 4 * 24 * 3600
"""GitHub sends a delivery again, under the same id, for three days."""


class RedisWebhooks:
    """Remembers a delivery for four days. Raises `RedisUnavailable`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def seen(self, delivery: str) -> bool:
        """Whether it was remembered."""
        return bool(self._client.exists(self._keys("webhook", delivery)))

    def remember(self, delivery: str) -> None:
        """Remember it. A second time changes nothing but the four days."""
        self._client.set(self._keys("webhook", delivery), 1, ex=KEPT_S)
