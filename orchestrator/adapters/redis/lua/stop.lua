-- Ask the issue's session to end, and with hold keep the issue back until a person asks for it.
-- The session's worker looks for this. A session that no worker runs is over its lease from now on, and the next rescue
-- ends it.
-- Returns a word of Stop.
-- Again: the words of the first stop hold.
local inflight, session, wanted, held = unpack(KEYS)
local issue, stop, hold = unpack(ARGV)
local live = redis.call('ZSCORE', inflight, issue)
if hold == '1' and (redis.call('ZREM', wanted, issue) == 1 or live) then redis.call('ZADD', held, '+inf', issue) end
if not live then return redis.call('ZSCORE', held, issue) == 'inf' and Stop.HELD or Stop.IDLE end
redis.call('HSETNX', session, 'stop', stop)
local opened, state = unpack(redis.call('HMGET', session, 'opened', 'state'))
if opened == '1' and state == SessionState.CLAIMED then redis.call('ZADD', inflight, clock(), issue) end
return Stop.ASKED
