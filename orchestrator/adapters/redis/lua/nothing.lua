-- Note that a session's work is nothing to merge, and why, so that it is delivered no more.
-- Returns 1 if it was still to be delivered.
-- Again: the same note.
local deliveries, session = unpack(KEYS)
local issue, session_id, reason = unpack(ARGV)
if redis.call('HGET', session, 'session_id') ~= session_id then return 0 end
redis.call('HDEL', session, 'undelivered')
redis.call('HSET', session, 'reason', reason)
return redis.call('ZREM', deliveries, issue)
