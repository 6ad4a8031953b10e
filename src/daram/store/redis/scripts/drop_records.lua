-- KEYS: values, order, the owner's namespaces (on a single server). ARGV: namespace.
redis.call('UNLINK', KEYS[1], KEYS[2])
if KEYS[3] then
    redis.call('SREM', KEYS[3], ARGV[1])
end
return 1
