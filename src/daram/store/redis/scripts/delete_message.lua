-- With: write
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
local old = seq and parse(raw(seq))
if not old or old.deleted then
    return fail('not found', 'message', message_id)
end
redis.call('HSET', c, 'holes', '1')
redis.call('LSET', m, seq - 1, table.concat({ old.parent, '1', old.created, old.question or '', old.role,
    old.status, '', old.id, '' }, '\n'))
change(found, etag)
return value_of(found)
