-- With: write
-- ARGV: id, etag, then pairs of field and value.
local id, etag = arg(), arg()
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
if found.etag == etag then
    return value_of(found) -- once more, by the same caller
end
while ARGV[next_arg] do
    local field = arg()
    found[field] = arg()
    redis.call('HSET', c, field, found[field])
end
watch_expiry(found)
change(found, etag)
return value_of(found)
