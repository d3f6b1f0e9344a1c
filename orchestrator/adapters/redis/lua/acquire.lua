-- Take an opened session over, unless a worker runs it whose lease is not over. A new holder gets a new token.
-- Returns {token, record, the owner before or '', stop or ''}, or nil.
-- Again: the nonce tells that the lease is this caller's, who gets the same token.
local inflight, session, fence = unpack(KEYS)
local issue, owner, nonce, lease_ms = unpack(ARGV)
local now = clock()
local deadline = redis.call('ZSCORE', inflight, issue)
if not deadline or redis.call('HGET', session, 'opened') ~= '1' then return nil end
local before = redis.call('HGET', session, 'owner') or ''
if redis.call('HGET', session, 'nonce') ~= nonce then
  if redis.call('HGET', session, 'state') == SessionState.RUNNING and tonumber(deadline) > now then return nil end
  redis.call('HSET', session, 'token', next_token(fence, now), 'nonce', nonce)
end
redis.call('HSET', session, 'state', SessionState.RUNNING, 'owner', owner, 'handed', 0)
redis.call('HSETNX', session, 'started_at', whole(now))
redis.call('ZADD', inflight, now + lease_ms, issue)
local token, record, stop = unpack(redis.call('HMGET', session, 'token', 'record', 'stop'))
return {token, record, before, stop or ''}
