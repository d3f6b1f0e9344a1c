-- Record report number n of a session with its entries, if the token is the holder's.
-- A step's duration is the time since the one before it: what was done again is part of what the step took.
-- Returns a word of Written.
-- Again: number n is known already, and nothing is added.
local session, history, snapshots, outbox, pending, wake, counts = unpack(KEYS)
local issue, session_id, token, n, report, stage, attempt, wake_ms = unpack(ARGV)
local now = clock()
local holder, state, started, recorded = unpack(redis.call('HMGET', session, 'token', 'state', 'started_at',
  'recorded_at'))
if holder ~= token or state == SessionState.ENDED then return Written.LOST end
local length = redis.call('LLEN', history)
if tonumber(n) < length then return Written.KNOWN end
if tonumber(n) > length then return Written.GAP end
redis.call('RPUSH', history, report)
redis.call('HSET', session, 'stage', stage, 'attempt', attempt, 'rescues', 0, 'recorded_at', whole(now))
observe(counts, 'step_seconds', stage, now - math.max(tonumber(started), tonumber(recorded or 0)))
tell(outbox, pending, snapshots, issue, session_id)
if redis.call('SET', wake, 1, 'NX', 'PX', wake_ms) then return Written.WAKE end
return Written.OK
