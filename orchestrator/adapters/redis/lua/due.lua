-- Read which issues' work is to be delivered now.
-- Returns their ids.
-- Again: a read.
local deliveries = unpack(KEYS)
return redis.call('ZRANGEBYSCORE', deliveries, '-inf', clock())
