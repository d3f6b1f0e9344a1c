-- What scripts share. Before it stand the words and buckets of words.py, after it comes one script.

-- Redis's own clock, in milliseconds since 1970. No client's clock is asked, as no two agree.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A number as text, without the exponent that Lua would give it.
local function whole(number) return string.format('%d', number) end

-- Not a plain counter: a Redis that lost its last second, or all it had, would count from an older number, and a token
-- that was given away before would be given away again.
local function next_token(fence, now)
  local token = whole(math.max(tonumber(redis.call('GET', fence) or 0) + 1, now))
  redis.call('SET', fence, token)
  return token
end

-- The arguments from REST on are entries as pairs: what the outbox gets, and the snapshot's text or ''.
local function tell(outbox, pending, snapshots, issue, session_id)
  for i = REST, #ARGV, 2 do
    redis.call('XADD', outbox, '*', 'issue', issue, 'session', session_id, 'entry', ARGV[i])
    if ARGV[i + 1] ~= '' then redis.call('RPUSH', snapshots, ARGV[i + 1]) end
    redis.call('HINCRBY', pending, issue, 1)
  end
end

-- The slots of all live session workers. A worker that stopped announcing itself is removed.
local function live_slots(workers, now)
  local sum, all = 0, redis.call('HGETALL', workers)
  for i = 1, #all, 2 do
    local n, expires = string.match(all[i + 1], '(%d+) (%d+)')
    if tonumber(expires) > now then sum = sum + tonumber(n) else redis.call('HDEL', workers, all[i]) end
  end
  return sum
end

-- Count one of something.
local function count(counts, name, label)
  redis.call('HINCRBY', counts, name .. '|' .. label, 1)
end

-- Count one duration in its bucket, and add it to the sum.
local function observe(counts, name, label, ms)
  local bucket = '+Inf'
  for _, bound in ipairs(BUCKETS[name]) do
    if ms <= 1000 * bound then bucket = tostring(bound) break end
  end
  count(counts, name, label .. '|' .. bucket)
  redis.call('HINCRBY', counts, name .. '|' .. label .. '|ms', whole(ms))
end
