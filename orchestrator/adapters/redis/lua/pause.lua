-- Claim nothing more from now on.
-- Returns {by, reason, at_ms} of the pause that holds.
-- Again: the first pause holds.
local paused = unpack(KEYS)
local by, reason = unpack(ARGV)
if redis.call('EXISTS', paused) == 0 then
  redis.call('HSET', paused, 'by', by, 'reason', reason, 'at', whole(clock()))
end
return redis.call('HMGET', paused, 'by', 'reason', 'at')
