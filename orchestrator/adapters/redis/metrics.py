"""One project in Redis at one moment, for the metrics and for readiness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis
from pydantic import TypeAdapter

from beat import QUEUES
from orchestrator.adapters.redis.client import what_refuses_writes
from orchestrator.adapters.redis.keys import Keys
from orchestrator.adapters.redis.scripts import Scripts
from orchestrator.adapters.redis.stored import RECORDS
from orchestrator.models import SessionRecord


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
        """The record that the session was started with."""
        return RECORDS.validate_json(self.record) if self.record else None


@dataclass(frozen=True)
class Seen:
    """One project in Redis, at one moment. What ends in `_s` is an age in seconds; None where there never was one.

    `counts` and `ticks` are the hashes of those names, but `ticks` as ages. `workers` has each live one's slots,
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
    """The reads of the metrics: one call each, however much there is. All raise `RedisUnavailable`."""

    def __init__(self, client: redis.Redis, keys: Keys, *, lease_s: float) -> None:
        self._scripts = Scripts(client, keys)
        self._keys = keys
        self._lease_ms = int(lease_s * 1000)

    def seen(self) -> Seen:
        """One project, now."""
        text = self._scripts.run(
            "seen",
            *QUEUES,
            session_prefix=f"{self._keys('session')}:",
            history_prefix=f"{self._keys('history')}:",
            queue_prefix=f"{self._keys('celery')}:",
            lease_ms=self._lease_ms,
        )
        return SEEN.validate_json(text)

    def memory(self) -> ServerMemory:
        """The memory of Redis, now."""
        info: Any = self._scripts.client.info()
        return ServerMemory(info["used_memory"], info.get("maxmemory", 0), what_refuses_writes(info))

    def try_write(self) -> None:
        """Write something, to learn whether Redis takes writes."""
        self._scripts.client.set(self._keys("writable"), 1, ex=60)
