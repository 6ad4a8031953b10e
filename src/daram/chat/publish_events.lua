-- Adds events to the log of one answer, a stream whose entry SEQ-0 is the event SEQ.
-- KEYS: the stream. ARGV: the number of the first event, the TTL in ms, the most events, whether the last one is
-- terminal, the events. Returns what became of them, and the number of the last event that is there.
local last, ended = 0, false
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if tail then
  last = tonumber(string.match(tail[1], '^%d+'))
  ended = #tail[2] > 2
end
local first = tonumber(ARGV[1])
if first > last + 1 then
  return {'gap', last}
end
if last + #ARGV - 4 > tonumber(ARGV[3]) then
  redis.call('UNLINK', KEYS[1])
  return {'full', 0}
end
for i = 5, #ARGV do
  local seq = first + i - 5
  if seq <= last then
    -- Told before: by us, whose call had no answer, or by somebody who ended the log for us.
    local there = redis.call('XRANGE', KEYS[1], seq .. '-0', seq .. '-0')[1]
    if not there or there[2][2] ~= ARGV[i] then
      return {'conflict', last}
    end
  elseif ended then
    return {'conflict', last}
  elseif i == #ARGV and ARGV[4] == '1' then
    redis.call('XADD', KEYS[1], seq .. '-0', 'e', ARGV[i], 't', '1')
  else
    redis.call('XADD', KEYS[1], seq .. '-0', 'e', ARGV[i])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'ok', math.max(last, first + #ARGV - 5)}
