-- Note that a tick came to its end now, and whether it was a good one.
-- Returns nothing of use.
-- Again: the same note, a moment later.
local ticks = unpack(KEYS)
local tick, ok = unpack(ARGV)
local now = whole(clock())
redis.call('HSET', ticks, tick, now)
if ok == '1' then redis.call('HSET', ticks, tick .. ' ok', now) end
