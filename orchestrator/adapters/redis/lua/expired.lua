-- Collect the sessions, and unless opened_only the claims, whose lease is over, and extend each.
-- A rescue is counted where a worker had the session and fell silent. A session that was handed on and that no worker
-- took has lost its message or waits for a busy worker: it is handed on again, ever less often (every lease, every two
-- leases, up to `slowest` of them), so that messages do not pile up.
-- Returns a row for each: token, claimed_at, opened, rescues, stop, issue.
-- Again: what was extended is not over; if the first answer was lost, it is collected after that.
local inflight, counts = unpack(KEYS)
local session_prefix, lease_ms, slowest, opened_only = unpack(ARGV)
local now = clock()
local taken = {}
for _, issue in ipairs(redis.call('ZRANGEBYSCORE', inflight, '-inf', now)) do
  local session = session_prefix .. issue
  local state, opened = unpack(redis.call('HMGET', session, 'state', 'opened'))
  if opened == '1' or opened_only == '0' then
    if state == SessionState.RUNNING then
      redis.call('HINCRBY', session, 'rescues', 1)
      redis.call('HSET', session, 'waits_since', whole(now))
      count(counts, 'rescues', '')
    end
    redis.call('HSET', session, 'state', SessionState.CLAIMED)
    local handed = opened == '1' and redis.call('HINCRBY', session, 'handed', 1) or 1
    redis.call('ZADD', inflight, now + lease_ms * math.min(handed, tonumber(slowest)), issue)
    taken[#taken + 1] = redis.call('HMGET', session, 'token', 'claimed_at', 'opened', 'rescues', 'stop')
    table.insert(taken[#taken], issue)
  end
end
return taken
