-- Give back a claim that was not opened.
-- Returns 1 if it was given back.
-- Again: it is gone already.
local inflight, session = unpack(KEYS)
local issue, token, kept_s = unpack(ARGV)
if redis.call('HGET', session, 'token') ~= token or redis.call('HGET', session, 'opened') == '1' then return 0 end
redis.call('HSET', session, 'state', SessionState.ENDED)
redis.call('EXPIRE', session, kept_s)
return redis.call('ZREM', inflight, issue)
