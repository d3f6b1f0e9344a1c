-- Read the live session workers.
-- Returns names and announcements ('slots expiry') in turn.
-- Again: a read; a Redis that takes no writes answers too.
local workers = unpack(KEYS)
local live, now, all = {}, clock(), redis.call('HGETALL', workers)
for i = 1, #all, 2 do
  if tonumber(string.match(all[i + 1], ' (%d+)')) > now then
    live[#live + 1], live[#live + 2] = all[i], all[i + 1]
  end
end
return live
