-- Look for an opened session whose lease is over.
-- Returns 1 if there is one.
-- Again: a read.
local inflight = unpack(KEYS)
local session_prefix = unpack(ARGV)
for _, issue in ipairs(redis.call('ZRANGEBYSCORE', inflight, '-inf', clock())) do
  if redis.call('HGET', session_prefix .. issue, 'opened') == '1' then return 1 end
end
return 0
