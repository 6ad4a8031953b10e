-- KEYS: as of put_record. ARGV: clock's offset, limit, whose they are.
-- Reply: when the next ends ("" for none), and whether that is due too.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2]) + tonumber(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
for _, key in ipairs(due) do
    local expires = string.match(redis.call('HGET', KEYS[1], key) or '', '^%x+\n(%d+)\n')
    if expires and tonumber(expires) <= now then
        redis.call('HDEL', KEYS[1], key)
        redis.call('ZREM', KEYS[2], key)
    end
    redis.call('ZREM', KEYS[3], key)
end
if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('DEL', KEYS[1]) -- whose they were is left
end
local later = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
if KEYS[5] and later then
    redis.call('ZADD', KEYS[5], later, ARGV[3])
elseif KEYS[5] then
    redis.call('ZREM', KEYS[5], ARGV[3])
end
return { later or '', later and tonumber(later) <= now and '1' or '0' }
