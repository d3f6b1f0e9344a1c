-- Read the live session workers.
-- Returns names and announcements ('slots expiry') in turn.
-- Again: what has expired is removed once.
local workers = unpack(KEYS)
live_slots(workers, clock())
return redis.call('HGETALL', workers)
