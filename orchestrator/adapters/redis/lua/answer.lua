-- Note what became of a wanted issue, for kept_s; when done, it is not wanted any more.
-- Returns nothing of use.
-- Again: the same note.
local answer, wanted = unpack(KEYS)
local issue, text, done, kept_s = unpack(ARGV)
redis.call('SET', answer, text, 'EX', kept_s)
if done == '1' then redis.call('ZREM', wanted, issue) end
