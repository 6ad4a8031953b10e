-- KEYS: a ZSET of moments in microseconds. ARGV: clock's offset, how many to pass over, limit. What is due by the clock
-- of the server: that of the caller does not decide when something ends. Members and scores.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2]) + tonumber(ARGV[1])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'WITHSCORES', 'LIMIT', ARGV[2], ARGV[3])
