-- Make a claim a session that a worker can acquire, and put its opening into the outbox.
-- Returns {Opening.OPEN}, {Opening.STOPPED, who and why}, or {Opening.LOST} when the claim is another's or given back.
-- Again: a session that is open stays as it is, and tells nothing more.
local session, inflight, outbox, pending, snapshots, known, runs, finished, deliveries = unpack(KEYS)
local issue, token, session_id, record, kept_ms = unpack(ARGV)
local now = clock()
if redis.call('HGET', session, 'token') ~= token then return {Opening.LOST} end
if redis.call('HGET', session, 'opened') == '1' then return {Opening.OPEN} end
-- Looked for before the claim is: who finds it stopped and given back has set the issue in progress, too.
local stop = redis.call('HGET', session, 'stop')
if stop then return {Opening.STOPPED, stop} end
if not redis.call('ZSCORE', inflight, issue) then return {Opening.LOST} end
redis.call('HDEL', session, 'verdict', 'reason', 'ended_at', 'started_at', 'stage', 'attempt', 'fix_issue_id',
  'delivered_to', 'undelivered')
redis.call('SREM', finished, issue)
redis.call('ZREM', deliveries, issue)
redis.call('HSET', session, 'opened', 1, 'session_id', session_id, 'record', record)
redis.call('ZADD', known, now, issue)
redis.call('ZREMRANGEBYSCORE', known, '-inf', now - kept_ms)
redis.call('RPUSH', runs, session_id)
redis.call('PERSIST', runs)
tell(outbox, pending, snapshots, issue, session_id)
return {Opening.OPEN}
