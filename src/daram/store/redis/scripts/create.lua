-- With: write
-- ARGV: owner, id, title, metadata, expires, etag, updated. A title is "+" and the title, or "".
local owner, id, title, metadata, expires, etag, updated = arg(), arg(), arg(), arg(), arg(), arg(), arg()
local found = find()
if found and found.etag == etag then
    return value_of(found) -- once more, by the same caller
end
if found then
    return fail('exists')
end
return value_of(make(owner, id, title, metadata, expires, etag, updated))
