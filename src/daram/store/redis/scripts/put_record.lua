-- KEYS: values, order, those that expire; on a single server also the owner's namespaces, and what the purge looks at.
-- ARGV: clock's offset, key, expect ("-" any, "+" none, "+" and an etag), etag, expires, value, namespace, whose they are.
-- A record is kept as "etag\nexpires\nvalue"; expires is "" or microseconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2]) + tonumber(ARGV[1])
local old = redis.call('HGET', KEYS[1], ARGV[2])
local have = ''
if old then
    local etag, expires = string.match(old, '^(%x+)\n(%d*)\n')
    if expires == '' or tonumber(expires) > now then
        have = etag
    end
end
if have == ARGV[4] then
    return 1 -- once more, by the same caller
end
if ARGV[3] ~= '-' and ARGV[3] ~= '+' .. have then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4] .. '\n' .. ARGV[5] .. '\n' .. ARGV[6])
redis.call('HSET', KEYS[1], '\n', ARGV[8]) -- no key is named so; it tells a scan of everything whose they are
redis.call('ZADD', KEYS[2], 0, ARGV[2])
if KEYS[4] then
    redis.call('SADD', KEYS[4], ARGV[7])
end
if ARGV[5] == '' then
    redis.call('ZREM', KEYS[3], ARGV[2])
else
    redis.call('ZADD', KEYS[3], ARGV[5], ARGV[2])
    if KEYS[5] then
        redis.call('ZADD', KEYS[5], 'LT', ARGV[5], ARGV[8]) -- the first that ends
    end
end
return 1
