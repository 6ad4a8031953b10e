-- With: tree, write
-- ARGV: id, message id, etag.
local id, message_id, etag = arg(), arg(), arg()
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
if found.etag == etag then
    return value_of(found) -- once more, by the same caller
end
local seq = tonumber(redis.call('HGET', i, message_id) or nil)
if not seq or parse(raw(seq)).deleted then
    return fail('not found', 'message', message_id)
end
found.head = leaf_under(found, seq)
change(found, etag)
if found.branched == 1 then
    redis.call('ZADD', l, found.version, found.head)
end
return value_of(found)
