-- KEYS: as of put_record. ARGV: clock's offset, key, expect ("-" any, "+" and an etag), whose they are.
-- 1: deleted, 0: was not there, -1: no.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2]) + tonumber(ARGV[1])
local old = redis.call('HGET', KEYS[1], ARGV[2])
if not old then
    return 0
end
local etag, expires = string.match(old, '^(%x+)\n(%d*)\n')
local alive = expires == '' or tonumber(expires) > now
if alive and ARGV[3] ~= '-' and ARGV[3] ~= '+' .. etag then
    return -1
end
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
if KEYS[5] and redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('ZREM', KEYS[5], ARGV[4])
end
if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('DEL', KEYS[1]) -- whose they were is left
end
return alive and 1 or 0
