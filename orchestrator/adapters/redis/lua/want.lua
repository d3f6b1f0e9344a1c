-- Have an issue run next: forget what holds it back and the last answer. Who asked first keeps the place.
-- Returns 1 if nobody had asked for it.
-- Again: it is asked for already.
local wanted, held, errors, answer = unpack(KEYS)
local issue = unpack(ARGV)
redis.call('DEL', answer)
redis.call('ZREM', held, issue)
redis.call('HDEL', errors, issue)
-- To the microsecond: several may be asked for in one command, and the first asked goes first.
local t = redis.call('TIME')
return redis.call('ZADD', wanted, 'NX', t[1] * 1000000 + t[2], issue)
