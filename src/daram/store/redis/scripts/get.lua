-- ARGV: id.
local id = arg()
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
return value_of(found)
