-- KEYS: a ZSET. ARGV: member, score. Compare and remove: whoever wrote another score meanwhile knew something newer.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) == tonumber(ARGV[2]) then
    return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
