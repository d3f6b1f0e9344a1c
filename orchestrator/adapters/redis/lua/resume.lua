-- End a pause.
-- Returns {by, reason, at_ms} of the pause that was ended, or three nils.
-- Again: no pause holds.
local paused = unpack(KEYS)
local before = redis.call('HMGET', paused, 'by', 'reason', 'at')
redis.call('DEL', paused)
return before
