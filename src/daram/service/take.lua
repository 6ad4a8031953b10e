-- May this user's request be answered now? A bucket of tokens that is refilled steadily, and the requests that run.
-- KEYS: the bucket, the running requests (by when they count as dead, in milliseconds).
-- ARGV: requests a minute (0: no limit), at once (0: no limit), lease in milliseconds, the request's id.
-- Returns "ok", "rate" or "running"; what is left in the bucket; how many were running before.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rate, most, lease = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local running = redis.call('ZCARD', KEYS[2])
local kept = redis.call('HMGET', KEYS[1], 'left', 'seen')
local left = rate
if kept[1] then
    left = math.min(rate, tonumber(kept[1]) + math.max(0, now - tonumber(kept[2])) * rate / 60000)
end
if most > 0 and running >= most then
    return {'running', tostring(left), running}
end
if rate > 0 then
    if left < 1 then
        return {'rate', tostring(left), running}
    end
    left = left - 1
    redis.call('HSET', KEYS[1], 'left', tostring(left), 'seen', tostring(now))
    redis.call('PEXPIRE', KEYS[1], 60000)
end
redis.call('ZADD', KEYS[2], now + lease, ARGV[4])
redis.call('PEXPIRE', KEYS[2], lease)
return {'ok', tostring(left), running}
