-- Keep a lease for lease_ms from now, if it is still the caller's.
-- Returns 1, or 0 when it is not.
-- Again: renewed a moment later.
local inflight, session = unpack(KEYS)
local issue, token, lease_ms = unpack(ARGV)
if redis.call('HGET', session, 'token') ~= token or not redis.call('ZSCORE', inflight, issue) then return 0 end
redis.call('HSET', session, 'state', SessionState.RUNNING)
redis.call('ZADD', inflight, clock() + lease_ms, issue)
return 1
