-- KEYS: as of put_record. ARGV: namespace, whose they are.
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
if KEYS[4] then
    redis.call('SREM', KEYS[4], ARGV[1])
    redis.call('ZREM', KEYS[5], ARGV[2])
end
return 1
