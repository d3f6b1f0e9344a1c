-- Note that a session worker lives until for_ms from now, and how many slots it has.
-- Returns nothing of use.
-- Again: the same note, a moment later.
local workers = unpack(KEYS)
local worker, slots, for_ms = unpack(ARGV)
redis.call('HSET', workers, worker, slots .. ' ' .. whole(clock() + for_ms))
