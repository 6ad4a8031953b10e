-- With: tree, write, append, answers
-- ARGV: token, etag, updated, batch of one. Reply: whether a row was removed, and what an append answers.
local token, etag, updated = arg(), arg(), arg()
local batch = read_batch()
local id = batch[1].id
local found = find()
if not found then
    return fail('lease lost', id)
end
local row = row_of(id)
if not row or row.token ~= token then
    local seq = tonumber(redis.call('HGET', i, id) or nil)
    local old = seq and parse(raw(seq))
    if not old or old.deleted or old.digest ~= batch[1].digest then
        return fail('lease lost', id)
    end
    return appended(found, seq, seq, 0)
end
redis.call('HDEL', a, id)
if leases and redis.call('EXISTS', a) == 0 then
    redis.call('ZREM', leases, found.owner .. '\n' .. found.id)
end
local in_use = on_path(found, row.question, found.head)
local parent = row.question
if row.sibling ~= '1' then
    parent = in_use and found.head or leaf_under(found, row.question)
end
return append(found, batch, parent, in_use, parent ~= row.question and row.question or nil, etag, updated, 0)
