-- Give a running session back, so that the next poll hands it to another worker.
-- Returns 1 if it was given back.
-- Again: it is not running any more, or has another token.
local inflight, session = unpack(KEYS)
local issue, token = unpack(ARGV)
local now = clock()
local holder, state = unpack(redis.call('HMGET', session, 'token', 'state'))
if holder ~= token or state ~= SessionState.RUNNING then return 0 end
redis.call('HSET', session, 'state', SessionState.CLAIMED, 'waits_since', whole(now))
return redis.call('ZADD', inflight, 'XX', 'CH', now, issue)
