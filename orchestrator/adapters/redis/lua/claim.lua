-- Win the lease on an issue that has no session, if a slot is free and nothing else forbids it.
-- Returns {'', token, claimed_at_ms}, or {refusal}.
-- Again: the nonce tells that the claim is this caller's, who gets the same answer.
local inflight, session, fence, workers, pending, held, paused = unpack(KEYS)
local issue, nonce, lease_ms, forced = unpack(ARGV)
local now = clock()
if redis.call('ZSCORE', inflight, issue) then
  if redis.call('HGET', session, 'nonce') ~= nonce then
    return {redis.call('HEXISTS', session, 'stop') == 1 and Refusal.STOPPING or Refusal.TAKEN}
  end
  return {'', redis.call('HGET', session, 'token'), redis.call('HGET', session, 'claimed_at')}
end
if redis.call('EXISTS', paused) == 1 then return {Refusal.PAUSED} end
if redis.call('HGET', pending, issue) then return {Refusal.UNTOLD} end
local due = redis.call('ZSCORE', held, issue)
if due and tonumber(due) > now and forced == '0' then return {Refusal.WAITING} end
if redis.call('ZCARD', inflight) >= live_slots(workers, now) then return {Refusal.FULL} end
local token = next_token(fence, now)
redis.call('PERSIST', session)
redis.call('HDEL', session, 'stop')
redis.call('HSET', session, 'token', token, 'nonce', nonce, 'state', SessionState.CLAIMED, 'opened', 0, 'rescues', 0,
  'handed', 0, 'claimed_at', whole(now), 'waits_since', whole(now))
redis.call('ZADD', inflight, now + lease_ms, issue)
return {'', token, whole(now)}
