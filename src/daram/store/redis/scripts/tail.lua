-- With: tree
-- ARGV: id, limit. The newest first.
local id, limit = arg(), tonumber(arg())
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
return tail(found, found.head, limit)
