-- Record the end of a session with its entries, and free its slot, if the token is the holder's.
-- `waits` has the seconds to wait after the first error in a row, the second and so on, as JSON; after more errors than
-- that the issue is held. An error that a person's stop brought about counts for nothing.
-- `deliver` is 1 for work that is to be delivered and merged once it is DONE.
-- Returns a word of Written.
-- Again: the session has ended, and nothing is added.
local session, history, snapshots, outbox, pending, inflight, held, errors, runs, known, finished, deliveries, counts =
  unpack(KEYS)
local issue, session_id, token, n, verdict, reason, waits, deliver, kept_s = unpack(ARGV)
local now = clock()
if redis.call('HGET', session, 'token') ~= token then return Written.LOST end
if redis.call('HGET', session, 'state') == SessionState.ENDED then return Written.OK end
if verdict ~= Verdict.ERROR and tonumber(n) > redis.call('LLEN', history) then return Written.GAP end
redis.call('HSET', session, 'state', SessionState.ENDED, 'verdict', verdict, 'reason', reason, 'ended_at', whole(now))
local stopped = verdict == Verdict.ERROR and redis.call('HEXISTS', session, 'stop') == 1
observe(counts, 'session_seconds', stopped and STOPPED or verdict, now - redis.call('HGET', session, 'started_at'))
redis.call('ZREM', inflight, issue)
redis.call('ZADD', known, now, issue)
if verdict ~= Verdict.ERROR then
  redis.call('HDEL', errors, issue)
  redis.call('ZREM', held, issue)
elseif not stopped then
  local wait = cjson.decode(waits)[redis.call('HINCRBY', errors, issue, 1)]
  redis.call('ZADD', held, wait and now + 1000 * wait or '+inf', issue)
end
tell(outbox, pending, snapshots, issue, session_id)
if verdict == Verdict.DONE and deliver == '1' then
  redis.call('SADD', finished, issue)
  redis.call('ZADD', deliveries, now, issue)
end
for _, key in ipairs({session, history, snapshots, runs}) do redis.call('EXPIRE', key, kept_s) end
return Written.OK
