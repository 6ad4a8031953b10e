-- ARGV: owner, id, title, metadata, expires, etag, updated. A title is "+" and the title, or "".
local owner, id, title, metadata, expires, etag, updated = arg(), arg(), arg(), arg(), arg(), arg(), arg()
if find() then
    return fail('exists')
end
return value_of(make(owner, id, title, metadata, expires, etag, updated))
