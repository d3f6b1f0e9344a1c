"""Leases in Redis: who runs which issue, how many run, and what became of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

import redis
from pydantic import TypeAdapter

from orchestrator.adapters.redis import FENCE, KEPT_S, NOW, TELL, Keys, Scripts, told_args
from orchestrator.errors import LeaseLost
from orchestrator.models import Entry
from orchestrator.ports import Claim, Holding, Lease, Refusal, SessionRecord

SLOWEST_HAND_ON = 20
"""Leases between two messages for a session that nobody takes, at most."""

_records: TypeAdapter[SessionRecord] = TypeAdapter(SessionRecord)

# The live slots of all session workers; what a worker that stopped announcing itself had is gone.
_SLOTS = """
local function slots(workers, now)
  local sum, all = 0, redis.call('HGETALL', workers)
  for i = 1, #all, 2 do
    local n, expires = string.match(all[i + 1], '(%d+) (%d+)')
    if tonumber(expires) > now then sum = sum + tonumber(n) else redis.call('HDEL', workers, all[i]) end
  end
  return sum
end
"""

_ANNOUNCE = NOW + "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%d', now + ARGV[3]))"

_CLAIM = (
    NOW
    + FENCE
    + _SLOTS
    + """
local inflight, session, fence, workers, pending, held = unpack(KEYS)
local issue, nonce, lease_ms, forced = unpack(ARGV)
if redis.call('ZSCORE', inflight, issue) then
  if redis.call('HGET', session, 'nonce') ~= nonce then return {'HELD'} end
  return {'', redis.call('HGET', session, 'token'), redis.call('HGET', session, 'claimed_at')}
end
if redis.call('HGET', pending, issue) then return {'UNTOLD'} end
local due = redis.call('ZSCORE', held, issue)
if due and tonumber(due) > now and forced == '0' then return {'WAITING'} end
if redis.call('ZCARD', inflight) >= slots(workers, now) then return {'FULL'} end
local token = next_token(fence, now)
redis.call('PERSIST', session)
redis.call('HSET', session, 'token', token, 'nonce', nonce, 'state', 'claimed', 'opened', 0, 'rescues', 0,
  'handed', 0, 'claimed_at', string.format('%d', now))
redis.call('ZADD', inflight, now + lease_ms, issue)
return {'', token, string.format('%d', now)}
"""
)

_OPEN = (
    NOW
    + TELL
    + """
local session, inflight, outbox, pending, snapshots, known, runs = unpack(KEYS)
local issue, token, session_id, record, kept_ms = unpack(ARGV)
if redis.call('HGET', session, 'token') ~= token then return 0 end
if redis.call('HGET', session, 'opened') == '1' then return 1 end
if not redis.call('ZSCORE', inflight, issue) then return 0 end
redis.call('HDEL', session, 'verdict', 'reason', 'ended_at', 'started_at', 'stage', 'attempt', 'fix_issue_id')
redis.call('HSET', session, 'opened', 1, 'session_id', session_id, 'record', record)
redis.call('ZADD', known, now, issue)
redis.call('ZREMRANGEBYSCORE', known, '-inf', now - kept_ms)
redis.call('RPUSH', runs, session_id)
redis.call('PERSIST', runs)
tell(outbox, pending, snapshots, issue, session_id, 6)
return 1
"""
)

_ABANDON = """
local inflight, session = unpack(KEYS)
if redis.call('HGET', session, 'token') ~= ARGV[2] or redis.call('HGET', session, 'opened') == '1' then return 0 end
redis.call('HSET', session, 'state', 'ended')
redis.call('EXPIRE', session, ARGV[3])
return redis.call('ZREM', inflight, ARGV[1])
"""

_ACQUIRE = (
    NOW
    + FENCE
    + """
local inflight, session, fence = unpack(KEYS)
local issue, owner, nonce, lease_ms = unpack(ARGV)
local deadline = redis.call('ZSCORE', inflight, issue)
if not deadline or redis.call('HGET', session, 'opened') ~= '1' then return nil end
local before = redis.call('HGET', session, 'owner') or ''
if redis.call('HGET', session, 'nonce') ~= nonce then
  if redis.call('HGET', session, 'state') == 'running' and tonumber(deadline) > now then return nil end
  redis.call('HSET', session, 'token', next_token(fence, now), 'nonce', nonce)
end
redis.call('HSET', session, 'state', 'running', 'owner', owner, 'handed', 0)
redis.call('HSETNX', session, 'started_at', string.format('%d', now))
redis.call('ZADD', inflight, now + lease_ms, issue)
return {redis.call('HGET', session, 'token'), redis.call('HGET', session, 'record'), before}
"""
)

_RENEW = (
    NOW
    + """
local inflight, session = unpack(KEYS)
if redis.call('HGET', session, 'token') ~= ARGV[2] or not redis.call('ZSCORE', inflight, ARGV[1]) then return 0 end
redis.call('HSET', session, 'state', 'running')
redis.call('ZADD', inflight, now + ARGV[3], ARGV[1])
return 1
"""
)

_WORKERS = NOW + _SLOTS + "slots(KEYS[1], now) return redis.call('HGETALL', KEYS[1])"

_FREE = NOW + _SLOTS + "return slots(KEYS[1], now) - redis.call('ZCARD', KEYS[2])"

_RELEASE = (
    NOW
    + """
local inflight, session = unpack(KEYS)
local token, state = unpack(redis.call('HMGET', session, 'token', 'state'))
if token ~= ARGV[2] or state ~= 'running' then return 0 end
redis.call('HSET', session, 'state', 'claimed')
return redis.call('ZADD', inflight, 'XX', 'CH', now, ARGV[1])
"""
)

# A rescue is counted where a worker had the session and fell silent. One that was handed on and that nobody took has
# lost its message or waits for a busy worker: it is handed on again, ever less often, so that messages do not pile up.
_EXPIRED = (
    NOW
    + """
local inflight, lease_ms, slowest = KEYS[1], ARGV[2], tonumber(ARGV[3])
local taken = {}
for _, issue in ipairs(redis.call('ZRANGEBYSCORE', inflight, '-inf', now)) do
  local session = ARGV[1] .. issue
  local state, opened = unpack(redis.call('HMGET', session, 'state', 'opened'))
  if state == 'running' then redis.call('HINCRBY', session, 'rescues', 1) end
  redis.call('HSET', session, 'state', 'claimed')
  local handed = opened == '1' and redis.call('HINCRBY', session, 'handed', 1) or 1
  redis.call('ZADD', inflight, now + lease_ms * math.min(handed, slowest), issue)
  taken[#taken + 1] = redis.call('HMGET', session, 'token', 'claimed_at', 'opened', 'rescues')
  table.insert(taken[#taken], issue)
end
return taken
"""
)

# Somebody asked first keeps the place; what held the issue back is forgotten.
_WANT = (
    NOW
    + """
local wanted, held, errors, answer = unpack(KEYS)
redis.call('DEL', answer)
redis.call('ZREM', held, ARGV[1])
redis.call('HDEL', errors, ARGV[1])
-- To the microsecond: several may be asked for in one command, and the first asked goes first.
return redis.call('ZADD', wanted, 'NX', t[1] * 1000000 + t[2], ARGV[1])
"""
)


class RedisLeases:
    """Who runs which issue. One instance per process; `lease_s`: for how long a silent holder keeps a lease."""

    def __init__(self, client: redis.Redis, keys: Keys, *, lease_s: float) -> None:
        self._redis = Scripts(client)
        self._keys = keys
        self._lease_ms = int(lease_s * 1000)

    def announce(self, worker: str, slots: int, *, for_s: float) -> None:
        """A session worker lives and has so many slots; it says so again before for_s seconds are over."""
        self._redis.call(_ANNOUNCE, self._keys.all("workers"), [worker, slots, int(for_s * 1000)])

    def withdraw(self, worker: str) -> None:
        """A session worker takes no more."""
        self._redis.client.hdel(self._keys("workers"), worker)

    def free(self) -> int:
        """How many more sessions could run now: the live workers' slots less what is claimed or running."""
        return int(self._redis.call(_FREE, self._keys.all("workers inflight"), []))

    def claim(self, issue_id: str, *, forced: bool = False) -> Claim | Refusal:
        """A lease on an issue nobody holds, if a slot is free, in one call. Forced overlooks a wait after errors."""
        names = self._keys.all("inflight session fence workers pending held", issue=issue_id)
        refusal, *won = self._redis.call(_CLAIM, names, [issue_id, uuid.uuid4().hex, self._lease_ms, int(forced)])
        return Refusal(refusal) if refusal else Claim(issue_id, int(won[0]), int(won[1]))

    def open(self, claim: Claim, record: SessionRecord, entries: Iterable[Entry]) -> None:
        """Make a claim a session that a worker can acquire, and tell its opening, once. Raises LeaseLost."""
        names = self._keys.all(
            "session inflight outbox pending snapshots known runs", issue=claim.issue_id, session=record.session_id
        )
        args: list[str | int] = [
            claim.issue_id,
            claim.token,
            record.session_id,
            _records.dump_json(record).decode(),
            KEPT_S * 1000,
            *told_args(entries),
        ]
        if not self._redis.call(_OPEN, names, args):
            raise LeaseLost(f"{claim.issue_id}: another poll claimed it or gave it back meanwhile; nothing to do")

    def abandon(self, claim: Claim) -> None:
        """Give up a claim that was not opened."""
        names = self._keys.all("inflight session", issue=claim.issue_id)
        self._redis.call(_ABANDON, names, [claim.issue_id, claim.token, KEPT_S])

    def expired(self) -> list[Claim]:
        """Sessions and claims whose holder fell silent, each extended by a lease or more for us to see to it."""
        args: list[str | int] = [f"{self._keys('session')}:", self._lease_ms, SLOWEST_HAND_ON]
        return [
            Claim(issue, int(token), int(at), opened=opened == "1", rescues=int(rescues))
            for token, at, opened, rescues, issue in self._redis.call(_EXPIRED, self._keys.all("inflight"), args)
        ]

    def acquire(self, issue_id: str, owner: str) -> Lease | None:
        """The lease on an opened session, with a new token; None if somebody alive has it or there is none."""
        names = self._keys.all("inflight session fence", issue=issue_id)
        won = self._redis.call(_ACQUIRE, names, [issue_id, owner, uuid.uuid4().hex, self._lease_ms])
        return Lease(issue_id, int(won[0]), _records.validate_json(won[1]), taken_from=won[2]) if won else None

    def renew(self, lease: Lease) -> bool:
        """Whether the lease is still ours; if so for another lease_s from now."""
        names = self._keys.all("inflight session", issue=lease.issue_id)
        return bool(self._redis.call(_RENEW, names, [lease.issue_id, lease.token, self._lease_ms]))

    def release(self, lease: Lease) -> None:
        """Give a running session back: the next poll hands it to another worker at once."""
        names = self._keys.all("inflight session", issue=lease.issue_id)
        self._redis.call(_RELEASE, names, [lease.issue_id, lease.token])

    def want(self, issue_id: str) -> None:
        """Somebody asked to run this issue next. What held it back after errors is forgotten."""
        names = [*self._keys.all("wanted held errors"), self._keys("answer", issue_id)]
        self._redis.call(_WANT, names, [issue_id])

    def wanted(self) -> list[str]:
        """Issues asked for, first asked first."""
        asked: list[str] = self._redis.client.zrange(self._keys("wanted"), 0, -1)
        return asked

    def answer(self, issue_id: str, answer: str, *, done: bool) -> None:
        """What became of a wanted issue, kept for a minute; done takes it off the list, at the same moment."""
        with self._redis.client.pipeline() as pipe:
            pipe.set(self._keys("answer", issue_id), answer, ex=60)
            if done:
                pipe.zrem(self._keys("wanted"), issue_id)
            pipe.execute()

    def answered(self, issue_id: str) -> str | None:
        """What became of a wanted issue."""
        answer: str | None = self._redis.client.get(self._keys("answer", issue_id))
        return answer

    def holdings(self) -> list[Holding]:
        """Every issue this Redis knows, the last changed last."""
        client = self._redis.client
        deadlines = dict(client.zrange(self._keys("inflight"), 0, -1, withscores=True))
        waits = dict(client.zrange(self._keys("held"), 0, -1, withscores=True))
        known: list[str] = client.zrange(self._keys("known"), 0, -1)
        rows = [client.hgetall(self._keys("session", issue)) for issue in known]
        return [_holding(issue, row, deadlines, waits) for issue, row in zip(known, rows, strict=True) if row]

    def holding(self, issue_id: str) -> Holding | None:
        """One issue as this Redis knows it."""
        row = self._redis.client.hgetall(self._keys("session", issue_id))
        return _holding(issue_id, row, {}, {}) if row else None

    def workers(self) -> dict[str, int]:
        """The live session workers, with their slots."""
        rows: list[str] = self._redis.call(_WORKERS, self._keys.all("workers"), [])
        return {name: int(row.split()[0]) for name, row in zip(rows[::2], rows[1::2], strict=True)}

    def runs(self, issue_id: str) -> list[str]:
        """The ids of the issue's sessions, oldest first."""
        ids: list[str] = self._redis.client.lrange(self._keys("runs", issue_id), 0, -1)
        return ids

    def snapshots(self, session_id: str) -> list[str]:
        """Every snapshot of a session, in order, told already or not."""
        texts: list[str] = self._redis.client.lrange(self._keys("snapshots", session_id), 0, -1)
        return texts


def _holding(issue: str, row: Mapping[str, str], deadlines: Mapping[str, float], waits: Mapping[str, float]) -> Holding:
    return Holding(
        issue_id=issue,
        state=row.get("state", "ended"),
        record=_records.validate_json(row["record"]) if "record" in row else None,
        owner=row.get("owner", ""),
        stage=row.get("stage", ""),
        attempt=int(row.get("attempt", 0)),
        verdict=row.get("verdict", ""),
        reason=row.get("reason", ""),
        claimed_at_ms=int(row.get("claimed_at", 0)),
        started_at_ms=int(row.get("started_at", 0)),
        ended_at_ms=int(row.get("ended_at", 0)),
        deadline_ms=deadlines.get(issue),
        held_until_ms=waits.get(issue),
        fix_issue_id=row.get("fix_issue_id"),
    )
