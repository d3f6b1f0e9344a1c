"""Which of GitHub's webhooks were taken, in Redis."""

from __future__ import annotations

import redis

from orchestrator.adapters.redis import Keys

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
