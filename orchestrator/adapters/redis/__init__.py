"""Redis: leases, histories, outbox, merges, counts. Our own server of it is `server`, which needs no client."""

from orchestrator.adapters.redis.client import connect, why_no_writes
from orchestrator.adapters.redis.controls import RedisControls, RedisWebhooks
from orchestrator.adapters.redis.counts import RedisCounts, timed
from orchestrator.adapters.redis.history import RedisHistory, RedisOutbox
from orchestrator.adapters.redis.keys import Keys
from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.adapters.redis.merges import RedisMerges
from orchestrator.adapters.redis.metrics import RedisMetrics, Seen, SeenSession, ServerMemory
from orchestrator.adapters.redis.words import BUCKETS, STOPPED

__all__ = [
    "BUCKETS",
    "STOPPED",
    "Keys",
    "RedisControls",
    "RedisCounts",
    "RedisHistory",
    "RedisLeases",
    "RedisMerges",
    "RedisMetrics",
    "RedisOutbox",
    "RedisWebhooks",
    "Seen",
    "SeenSession",
    "ServerMemory",
    "connect",
    "timed",
    "why_no_writes",
]
