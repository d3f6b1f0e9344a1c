-- Forget that an issue's work is to be delivered and merged; merged_at is when it was, in ms, or ''.
-- Returns nothing of use.
-- Again: it is forgotten, and counted once.
local finished, deliveries, counts = unpack(KEYS)
local issue, merged_at = unpack(ARGV)
redis.call('ZREM', deliveries, issue)
if redis.call('SREM', finished, issue) == 1 and merged_at ~= '' then
  observe(counts, 'merge_lag_seconds', '', math.max(0, clock() - merged_at))
end
