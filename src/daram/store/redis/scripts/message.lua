-- With: tree
-- ARGV: id, message id, "1" for it and its siblings.
local id, message_id, siblings = arg(), arg(), arg()
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
local seq = tonumber(redis.call('HGET', i, message_id) or nil)
local value = seq and raw(seq)
if not seq or parse(value).deleted then
    return fail('not found', 'message', message_id)
end
if siblings ~= '1' then
    return with_parents({ seq, value })
end
local out = {}
for _, child in ipairs(children(found, parse(value).parent)) do
    local other = raw(child)
    if not parse(other).deleted then
        out[#out + 1] = child
        out[#out + 1] = other
    end
end
return with_parents(out)
