-- Count a call of the tracker.
-- Returns nothing of use.
-- Again: counted twice, which the curves bear.
local counts = unpack(KEYS)
local tool, outcome, ms = unpack(ARGV)
count(counts, 'tracker_calls', tool .. '|' .. outcome)
observe(counts, 'tracker_call_seconds', tool, tonumber(ms))
