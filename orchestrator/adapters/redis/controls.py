"""Pausing, and the webhook deliveries that were taken, in Redis: both outlive every process of ours."""

from __future__ import annotations

import redis

from orchestrator.adapters.redis.keys import Keys
from orchestrator.adapters.redis.scripts import Scripts
from orchestrator.models import Paused


class RedisControls:
    """Pausing. While orch is paused no claim is won (the claim's script looks here); what runs goes on to its end."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._scripts = Scripts(client, keys)
        self._paused = keys("paused")

    def pause(self, *, by: str, reason: str) -> Paused:
        """Claim nothing new from now on. Gives the pause that holds: the first one, if there was one already."""
        by, reason, at_ms = self._scripts.run("pause", by=by, reason=reason)
        return Paused(by, reason, int(at_ms))

    def resume(self) -> Paused | None:
        """Let new sessions start again. Gives the pause that was ended, if there was one."""
        return _pause(self._scripts.run("resume"))

    def paused(self) -> Paused | None:
        """The pause that holds, if any."""
        return _pause(self._scripts.client.hmget(self._paused, "by", "reason", "at"))


def _pause(row: list[str | None]) -> Paused | None:
    by, reason, at_ms = row
    return None if by is None else Paused(by, reason or "", int(at_ms or 0))


DELIVERY_KEPT_S = 4 * 24 * 3600
"""GitHub sends a delivery again, under the same id, for three days."""


class RedisWebhooks:
    """Remembers a delivery for four days. Raises `RedisUnavailable`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def seen(self, delivery: str) -> bool:
        """True when it was remembered."""
        return bool(self._client.exists(self._keys("webhook", delivery)))

    def remember(self, delivery: str) -> None:
        """Remember it. A second time changes nothing but the four days."""
        self._client.set(self._keys("webhook", delivery), 1, ex=DELIVERY_KEPT_S)
