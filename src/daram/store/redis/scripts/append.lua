-- With: tree, write, append
-- ARGV: owner, id, create, parent, expect, window, etag of a new conversation, etag, updated, batch.
local owner, id, create, wanted, expect, window = arg(), arg(), arg(), arg(), arg(), tonumber(arg())
local first_etag, etag, updated = arg(), arg(), arg()
local batch = read_batch()
local found = find()
local parent = 0
if not found then
    if create ~= '1' or is_tombstoned() then
        return missing(id)
    end
    local wrong = unexpected({ version = 0, etag = first_etag }, expect)
    if wrong then
        return wrong
    end
    if string.len(wanted) > 1 then
        return fail('not found', 'message', string.sub(wanted, 2))
    end
    found = make(owner, id, '', '', '', first_etag, updated)
else
    local stored, wrong = repeated(batch, wanted, answering())
    if wrong then
        return wrong
    end
    if stored then
        return appended(found, stored[1], stored[#stored], window)
    end
    wrong = unexpected(found, expect)
    if wrong then
        return wrong
    end
    parent, wrong = place(found, wanted)
    if wrong then
        return wrong
    end
end
return append(found, batch, parent, true, nil, etag, updated, window)
