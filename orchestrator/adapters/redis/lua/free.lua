-- Count the sessions that could start now: live slots less what is claimed or running, and none while paused.
-- Returns a number; below zero when workers went away.
-- Again: a read.
local workers, inflight, paused = unpack(KEYS)
local total = live_slots(workers, clock())
return redis.call('EXISTS', paused) == 1 and 0 or total - redis.call('ZCARD', inflight)
