"""Redis: leases, histories, outbox, merges, counts; and our own server of it."""

from orchestrator.adapters.redis.client import Keys, connect, why_no_writes
from orchestrator.adapters.redis.controls import RedisControls, RedisWebhooks
from orchestrator.adapters.redis.counts import BUCKETS, RedisCounts, timed
from orchestrator.adapters.redis.history import RedisHistory, RedisOutbox
from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.adapters.redis.merges import RedisMerges

__all__ = [
    "BUCKETS",
    "Keys",
    "RedisControls",
    "RedisCounts",
    "RedisHistory",
    "RedisLeases",
    "RedisMerges",
    "RedisOutbox",
    "RedisWebhooks",
    "connect",
    "timed",
    "why_no_writes",
]
