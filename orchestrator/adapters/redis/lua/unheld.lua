-- Pick from the issues of the arguments those without anything under way: not taken, not wanted, nothing to be told.
-- Returns their ids.
-- Again: a read.
local inflight, wanted, pending = unpack(KEYS)
local unheld = {}
for _, issue in ipairs(ARGV) do
  local known = redis.call('ZSCORE', inflight, issue) or redis.call('ZSCORE', wanted, issue)
  if not known and not redis.call('HGET', pending, issue) then unheld[#unheld + 1] = issue end
end
return unheld
