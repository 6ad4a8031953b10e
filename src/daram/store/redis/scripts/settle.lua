-- KEYS: an owner's index. ARGV: member, the score that was written ahead, the one that is right. Unless somebody else wrote.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) == tonumber(ARGV[2]) then
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 0
