-- With: tree
-- ARGV: id, after, limit, bytes at which the page ends. Every message, the deleted too: seq, value, parent's id.
local id, after, limit, bytes = arg(), tonumber(arg()), tonumber(arg()), tonumber(arg())
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
local out, size = {}, 0
for n, value in ipairs(redis.call('LRANGE', m, after, after + limit - 1)) do
    out[#out + 1] = after + n
    out[#out + 1] = value
    size = size + #value
    if size > bytes then
        break
    end
end
return with_parents(out)
