"""What `redis_leases` has Redis do: each change is one script, carried out whole, with its check of the token."""

from __future__ import annotations

from orchestrator.adapters.redis.client import FENCE, NOW, TELL
from orchestrator.adapters.redis.counts import COUNT

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

ANNOUNCE = NOW + "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%d', now + ARGV[3]))"

CLAIM = (
    NOW
    + FENCE
    + _SLOTS
    + """
local inflight, session, fence, workers, pending, held, paused = unpack(KEYS)
local issue, nonce, lease_ms, forced = unpack(ARGV)
if redis.call('ZSCORE', inflight, issue) then
  if redis.call('HGET', session, 'nonce') ~= nonce then
    return {redis.call('HEXISTS', session, 'stop') == 1 and 'STOPPING' or 'TAKEN'}
  end
  return {'', redis.call('HGET', session, 'token'), redis.call('HGET', session, 'claimed_at')}
end
if redis.call('EXISTS', paused) == 1 then return {'PAUSED'} end
if redis.call('HGET', pending, issue) then return {'UNTOLD'} end
local due = redis.call('ZSCORE', held, issue)
if due and tonumber(due) > now and forced == '0' then return {'WAITING'} end
if redis.call('ZCARD', inflight) >= slots(workers, now) then return {'FULL'} end
local token = next_token(fence, now)
redis.call('PERSIST', session)
redis.call('HDEL', session, 'stop')
redis.call('HSET', session, 'token', token, 'nonce', nonce, 'state', 'claimed', 'opened', 0, 'rescues', 0,
  'handed', 0, 'claimed_at', string.format('%d', now), 'waits_since', string.format('%d', now))
redis.call('ZADD', inflight, now + lease_ms, issue)
return {'', token, string.format('%d', now)}
"""
)

OPEN = (
    NOW
    + TELL
    + """
local session, inflight, outbox, pending, snapshots, known, runs, finished, deliveries = unpack(KEYS)
local issue, token, session_id, record, kept_ms = unpack(ARGV)
if redis.call('HGET', session, 'token') ~= token then return '' end
if redis.call('HGET', session, 'opened') == '1' then return 'OPEN' end
-- Looked for before the claim is: whoever finds it stopped and given back has set the issue in progress, too.
local stop = redis.call('HGET', session, 'stop')
if stop then return stop end
if not redis.call('ZSCORE', inflight, issue) then return '' end
redis.call('HDEL', session, 'verdict', 'reason', 'ended_at', 'started_at', 'stage', 'attempt', 'fix_issue_id',
  'delivered_to', 'undelivered')
redis.call('SREM', finished, issue)
redis.call('ZREM', deliveries, issue)
redis.call('HSET', session, 'opened', 1, 'session_id', session_id, 'record', record)
redis.call('ZADD', known, now, issue)
redis.call('ZREMRANGEBYSCORE', known, '-inf', now - kept_ms)
redis.call('RPUSH', runs, session_id)
redis.call('PERSIST', runs)
tell(outbox, pending, snapshots, issue, session_id, 6)
return 'OPEN'
"""
)

ABANDON = """
local inflight, session = unpack(KEYS)
if redis.call('HGET', session, 'token') ~= ARGV[2] or redis.call('HGET', session, 'opened') == '1' then return 0 end
redis.call('HSET', session, 'state', 'ended')
redis.call('EXPIRE', session, ARGV[3])
return redis.call('ZREM', inflight, ARGV[1])
"""

ACQUIRE = (
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
local token, record, stop = unpack(redis.call('HMGET', session, 'token', 'record', 'stop'))
return {token, record, before, stop or ''}
"""
)

RENEW = (
    NOW
    + """
local inflight, session = unpack(KEYS)
if redis.call('HGET', session, 'token') ~= ARGV[2] or not redis.call('ZSCORE', inflight, ARGV[1]) then return 0 end
redis.call('HSET', session, 'state', 'running')
redis.call('ZADD', inflight, now + ARGV[3], ARGV[1])
return 1
"""
)

WORKERS = NOW + _SLOTS + "slots(KEYS[1], now) return redis.call('HGETALL', KEYS[1])"

FREE = (
    NOW
    + _SLOTS
    + """
local workers, inflight, paused = unpack(KEYS)
local total = slots(workers, now)
return redis.call('EXISTS', paused) == 1 and 0 or total - redis.call('ZCARD', inflight)
"""
)

RELEASE = (
    NOW
    + """
local inflight, session = unpack(KEYS)
local token, state = unpack(redis.call('HMGET', session, 'token', 'state'))
if token ~= ARGV[2] or state ~= 'running' then return 0 end
redis.call('HSET', session, 'state', 'claimed', 'waits_since', string.format('%d', now))
return redis.call('ZADD', inflight, 'XX', 'CH', now, ARGV[1])
"""
)

# A rescue is counted where a worker had the session and fell silent. One that was handed on and that nobody took has
# lost its message or waits for a busy worker: it is handed on again, ever less often, so that messages do not pile up.
EXPIRED = (
    NOW
    + COUNT
    + """
local inflight, counts = unpack(KEYS)
local lease_ms, slowest, opened_only = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local taken = {}
for _, issue in ipairs(redis.call('ZRANGEBYSCORE', inflight, '-inf', now)) do
  local session = ARGV[1] .. issue
  local state, opened = unpack(redis.call('HMGET', session, 'state', 'opened'))
  if opened == '1' or not opened_only then
    if state == 'running' then
      redis.call('HINCRBY', session, 'rescues', 1)
      redis.call('HSET', session, 'waits_since', string.format('%d', now))
      count(counts, 'rescues', '')
    end
    redis.call('HSET', session, 'state', 'claimed')
    local handed = opened == '1' and redis.call('HINCRBY', session, 'handed', 1) or 1
    redis.call('ZADD', inflight, now + lease_ms * math.min(handed, slowest), issue)
    taken[#taken + 1] = redis.call('HMGET', session, 'token', 'claimed_at', 'opened', 'rescues', 'stop')
    table.insert(taken[#taken], issue)
  end
end
return taken
"""
)

SILENT = (
    NOW
    + """
for _, issue in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  if redis.call('HGET', ARGV[1] .. issue, 'opened') == '1' then return 1 end
end
return 0
"""
)

# Who runs the session looks for the stop. If nobody does, it is silent from now on: the next rescue ends it.
STOP = (
    NOW
    + """
local inflight, session, wanted, held = unpack(KEYS)
local issue, stop, hold = unpack(ARGV)
local live = redis.call('ZSCORE', inflight, issue)
if hold == '1' and (redis.call('ZREM', wanted, issue) == 1 or live) then redis.call('ZADD', held, '+inf', issue) end
if not live then return redis.call('ZSCORE', held, issue) == 'inf' and 'HELD' or 'IDLE' end
redis.call('HSETNX', session, 'stop', stop)
local opened, state = unpack(redis.call('HMGET', session, 'opened', 'state'))
if opened == '1' and state == 'claimed' then redis.call('ZADD', inflight, now, issue) end
return 'ASKED'
"""
)

# Somebody asked first keeps the place; what held the issue back is forgotten.
WANT = (
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

ANSWER = """
local answer, wanted = unpack(KEYS)
redis.call('SET', answer, ARGV[2], 'EX', 60)
if ARGV[3] == '1' then redis.call('ZREM', wanted, ARGV[1]) end
"""

UNHELD = """
local inflight, wanted, pending = unpack(KEYS)
local unheld = {}
for _, issue in ipairs(ARGV) do
  local known = redis.call('ZSCORE', inflight, issue) or redis.call('ZSCORE', wanted, issue)
  if not known and not redis.call('HGET', pending, issue) then unheld[#unheld + 1] = issue end
end
return unheld
"""
