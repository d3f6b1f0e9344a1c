-- Note where a session's work was delivered. Of an issue claimed anew meanwhile, the delivery is another session's.
-- Returns 1 if that was still to be done.
-- Again: the same note.
local deliveries, session = unpack(KEYS)
local issue, session_id, place = unpack(ARGV)
if redis.call('HGET', session, 'session_id') ~= session_id then return 0 end
redis.call('HDEL', session, 'undelivered')
redis.call('HSET', session, 'delivered_to', place)
return redis.call('ZREM', deliveries, issue)
