"""What Redis keeps of finished sessions until their work is merged, and how looking for merges goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import redis

from orchestrator.adapters.redis.client import NOW, Keys, Scripts
from orchestrator.adapters.redis.counts import COUNT
from orchestrator.adapters.redis.history import REPORTS
from orchestrator.adapters.redis.leases import RECORDS
from orchestrator.leases import SessionRecord
from orchestrator.merge_close.events import Delivered, LastLook
from orchestrator.models import Report

_DUE = NOW + "return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)"

# Whether the issue was claimed anew meanwhile: then it is another session's delivery, and not ours to take off.
_DELIVERED = """
local deliveries, session = unpack(KEYS)
local issue, session_id, place = unpack(ARGV)
if redis.call('HGET', session, 'session_id') ~= session_id then return 0 end
redis.call('HDEL', session, 'undelivered')
redis.call('HSET', session, 'delivered_to', place)
return redis.call('ZREM', deliveries, issue)
"""

_POSTPONED = (
    NOW
    + """
local deliveries, session = unpack(KEYS)
local issue, session_id, reason, wait_ms = unpack(ARGV)
if redis.call('HGET', session, 'session_id') ~= session_id then return 0 end
redis.call('HSET', session, 'undelivered', reason)
return redis.call('ZADD', deliveries, 'XX', 'CH', now + wait_ms, issue)
"""
)

_SETTLED = (
    NOW
    + COUNT
    + """
local finished, deliveries, counts = unpack(KEYS)
local issue, merged_at = unpack(ARGV)
redis.call('ZREM', deliveries, issue)
if redis.call('SREM', finished, issue) == 1 and merged_at ~= '' then
  observe(counts, 'merge_lag_seconds', '', math.max(0, now - merged_at))
end
"""
)

_LOOKED = (
    NOW
    + """
redis.call('HSET', KEYS[1], 'at', string.format('%d', now))
if ARGV[1] == '' then
  redis.call('HSET', KEYS[1], 'well_at', string.format('%d', now), 'failed', 0, 'problem', '')
else
  redis.call('HSET', KEYS[1], 'problem', ARGV[1])
  redis.call('HINCRBY', KEYS[1], 'failed', 1)
end
"""
)


class RedisMerges:
    """Finished sessions, from their end to their merge. It is also the `CheckpointStore` of polling."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._redis = Scripts(client)
        self._keys = keys

    def finished(self) -> Iterator[Delivered]:
        """The verified commit of each session that ended DONE and whose issue is not closed yet."""
        for issue_id in sorted(self._redis.client.smembers(self._keys("finished"))):
            if found := self.work(issue_id):
                yield Delivered(issue_id, found[1][-1].commit)
            else:
                self.settled(issue_id)

    def work(self, issue_id: str) -> tuple[SessionRecord, Sequence[Report]] | None:
        """The issue's last session and what it did; None when it is forgotten."""
        client = self._redis.client
        text = client.hget(self._keys("session", issue_id), "record")
        record = RECORDS.validate_json(text) if text else None
        rows = client.lrange(self._keys("history", record.session_id), 0, -1) if record else []
        return (record, [REPORTS.validate_json(row) for row in rows]) if record and rows else None

    def started_at(self, issue_id: str) -> datetime | None:
        """When the issue's last session began; None if there is none on record."""
        at = self._redis.client.hget(self._keys("session", issue_id), "started_at")
        return datetime.fromtimestamp(int(at) / 1000, UTC) if at else None

    def settled(self, issue_id: str, *, merged_at: datetime | None = None) -> None:
        """The issue is closed, or forgotten: nothing is looked for any more."""
        at = int(merged_at.timestamp() * 1000) if merged_at else ""
        self._redis.call(_SETTLED, self._keys.all("finished deliveries counts"), [issue_id, at])

    def due(self) -> list[str]:
        """The issues whose work is to be delivered now."""
        issue_ids: list[str] = self._redis.call(_DUE, self._keys.all("deliveries"), [])
        return issue_ids

    def due_at_ms(self, issue_id: str) -> float | None:
        """When the issue's work is to be delivered, in Unix milliseconds; None when nothing of it is."""
        due: float | None = self._redis.client.zscore(self._keys("deliveries"), issue_id)
        return due

    def delivered(self, issue_id: str, session_id: str, place: str) -> None:
        """The session's work is at this place: a pull request's URL, or a branch."""
        names = self._keys.all("deliveries session", issue=issue_id)
        self._redis.call(_DELIVERED, names, [issue_id, session_id, place])

    def postponed(self, issue_id: str, session_id: str, reason: str, *, wait_s: float) -> None:
        """It could not be delivered; it is tried again later."""
        names = self._keys.all("deliveries session", issue=issue_id)
        self._redis.call(_POSTPONED, names, [issue_id, session_id, reason, int(wait_s * 1000)])

    def read(self) -> str | None:
        """The checkpoint."""
        text: str | None = self._redis.client.get(self._keys("merge-checkpoint"))
        return text

    def write(self, text: str) -> None:
        """Replace the checkpoint."""
        self._redis.client.set(self._keys("merge-checkpoint"), text)

    def looked(self, problem: str) -> None:
        """Somebody looked for merges just now; `problem` is what went wrong, or empty."""
        self._redis.call(_LOOKED, self._keys.all("merge-look"), [problem])

    def last_look(self) -> LastLook:
        """How looking went."""
        row = self._redis.client.hgetall(self._keys("merge-look"))
        return LastLook(
            _moment(row.get("at")), _moment(row.get("well_at")), int(row.get("failed", 0)), row.get("problem", "")
        )


def _moment(ms: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None
