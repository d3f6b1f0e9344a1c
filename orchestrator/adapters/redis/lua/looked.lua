-- Note that merges were looked for now; problem is what went wrong, or ''.
-- Returns nothing of use.
-- Again: the same note, and a failure counts twice, which only makes the warning earlier.
local merge_look = unpack(KEYS)
local problem = unpack(ARGV)
local now = whole(clock())
redis.call('HSET', merge_look, 'at', now)
if problem == '' then
  redis.call('HSET', merge_look, 'well_at', now, 'failed', 0, 'problem', '')
else
  redis.call('HSET', merge_look, 'problem', problem)
  redis.call('HINCRBY', merge_look, 'failed', 1)
end
