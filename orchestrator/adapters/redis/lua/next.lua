-- Read the first entry of the outbox and mark it as begun.
-- Returns {id, 1 if it was begun before, fields}, or nil.
-- Again: the same entry, begun before: it is looked for in the tracker first.
local outbox, begun = unpack(KEYS)
local first = redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)[1]
if not first then return nil end
local again = redis.call('GET', begun) == first[1]
redis.call('SET', begun, first[1])
return {first[1], again and 1 or 0, first[2]}
