-- Note why a session's work could not be delivered, and have it tried again in wait_ms.
-- Returns 1 if that changed anything.
-- Again: tried again a moment later.
local deliveries, session = unpack(KEYS)
local issue, session_id, reason, wait_ms = unpack(ARGV)
if redis.call('HGET', session, 'session_id') ~= session_id then return 0 end
redis.call('HSET', session, 'undelivered', reason)
return redis.call('ZADD', deliveries, 'XX', 'CH', clock() + wait_ms, issue)
