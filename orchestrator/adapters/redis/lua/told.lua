-- Take an entry off the outbox; keep the [FIX] issue's id, or the last `kept` refusals.
-- The issue's session is still the one that made the entry: until all is told, the issue is not claimed again.
-- Returns 1 if it was taken off.
-- Again: it is off already, and nothing is counted twice.
local outbox, begun, pending, session, refused = unpack(KEYS)
local entry_id, issue, fix_issue_id, refusal, kept = unpack(ARGV)
if redis.call('XDEL', outbox, entry_id) == 0 then return 0 end
redis.call('DEL', begun)
if redis.call('HINCRBY', pending, issue, -1) <= 0 then redis.call('HDEL', pending, issue) end
if fix_issue_id ~= '' then redis.call('HSET', session, 'fix_issue_id', fix_issue_id) end
if refusal ~= '' then
  redis.call('LPUSH', refused, refusal)
  redis.call('LTRIM', refused, 0, kept - 1)
end
return 1
