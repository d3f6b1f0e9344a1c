-- Read all that Redis can say of one project, at one moment. The unnamed arguments are the queues.
-- Of each report only whether it passed: that, and the limits of its session, say which step is under way.
-- Returns JSON, in the form of the class Seen.
-- Again: a read.
local inflight, workers, wanted, outbox, refused, finished, deliveries, held, counts, ticks, merge_look, paused =
  unpack(KEYS)
local session_prefix, history_prefix, queue_prefix, lease_ms = unpack(ARGV)
local now = clock()

local function age(ms) return ms and math.max(0, now - ms) / 1000 end

local function map(key, read)
  local found, all = {}, redis.call('HGETALL', key)
  for i = 1, #all, 2 do found[all[i]] = read(all[i + 1]) end
  return found
end

local function slots(announced)
  local count, expires = string.match(announced, '(%d+) (%d+)')
  return tonumber(expires) > now and tonumber(count) or nil
end

local function passes(id)
  local passed = ''
  for _, report in ipairs(id and redis.call('LRANGE', history_prefix .. id, 0, -1) or {}) do
    passed = passed .. (cjson.decode(report).passed == false and '0' or '1')
  end
  return passed
end

local sessions, rows = {}, redis.call('ZRANGE', inflight, 0, -1, 'WITHSCORES')
for i = 1, #rows, 2 do
  local state, since, opened, id, record = unpack(
    redis.call('HMGET', session_prefix .. rows[i], 'state', 'waits_since', 'opened', 'session_id', 'record'))
  local running, begun = state == SessionState.RUNNING, opened == '1'
  sessions[rows[i]] = {
    state = state, record = begun and record or nil, passes = passes(begun and id),
    waits_s = not running and age(since) or 0,
    silent_s = running and age(rows[i + 1] - lease_ms) or 0,
  }
end

local queues = {}
for i = REST, #ARGV do queues[ARGV[i]] = redis.call('LLEN', queue_prefix .. ARGV[i]) end

local untold = redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)[1]
local asked = redis.call('ZRANGE', wanted, 0, 0, 'WITHSCORES')[2]
local well_at, failed = unpack(redis.call('HMGET', merge_look, 'well_at', 'failed'))
return cjson.encode({
  sessions = sessions, queues = queues, workers = map(workers, slots),
  counts = map(counts, tonumber), ticks = map(ticks, age),
  wanted = redis.call('ZCARD', wanted), wanted_s = asked and age(asked / 1000) or 0,
  outbox = redis.call('XLEN', outbox), outbox_s = untold and age(string.match(untold[1], '%d+')) or 0,
  refused = redis.call('LLEN', refused), held = redis.call('ZCARD', held),
  unmerged = redis.call('SCARD', finished), undelivered = redis.call('ZCARD', deliveries),
  look_s = age(well_at) or nil, looks_failed = tonumber(failed or 0),
  paused_s = age(redis.call('HGET', paused, 'at')) or nil,
})
