-- With: write, append
-- A conversation as it was elsewhere, in chunks. Until the last it has expired: expires is "1".
-- ARGV: owner, id, first, more ("0" or "1"), expect (an etag or ""), etag, title, metadata, pinned, archived, version,
-- created, updated, expires, leaves, a batch, and of each message of it parent, question, deleted.
local owner, id, first, more, expect, etag = arg(), arg(), arg(), arg(), arg(), arg()
local title, metadata, pinned, archived, version = arg(), arg(), arg(), arg(), arg()
local created, updated, expires = arg(), arg(), arg()
local leaves = {}
for n = 1, tonumber(arg()) do
    leaves[n] = arg()
end
local batch = read_batch()
for _, message in ipairs(batch) do
    message.parent, message.question, message.deleted = tonumber(arg()), arg(), arg()
end
local stored = redis.call('HMGET', c, 'owner', 'id', 'etag', 'last_seq', 'branched', 'expires', 'holes')
local seq, branched, holes = 0, 0, '0'
if stored[3] ~= etag then -- else it is the same call once more
    local found = find()
    if first == '1' then
        local have = found and found.etag or ''
        if have ~= expect then
            return fail('not as loaded', have)
        end
    elseif stored[1] ~= owner or stored[2] ~= id or stored[3] ~= expect or stored[6] ~= '1' or #batch == 0 then
        return fail('load lost')
    else
        seq, branched, holes = tonumber(stored[4]), tonumber(stored[5]), stored[7]
    end
    local seen = {}
    for _, message in ipairs(batch) do
        if seen[message.id] or (first ~= '1' and redis.call('HEXISTS', i, message.id) == 1) then
            return fail('taken', message.id)
        end
        seen[message.id] = true
    end
    if first == '1' then
        clear(owner, id)
    end
    for _, message in ipairs(batch) do
        seq = seq + 1
        redis.call('RPUSH', m, table.concat({ message.parent, message.deleted, message.created, message.question,
            message.role, message.status, message.deleted == '1' and '' or message.digest, message.id,
            message.deleted == '1' and '' or message.blob }, '\n'))
        redis.call('HSET', i, message.id, seq)
        if message.parent ~= seq - 1 then
            branched = 1
            redis.call('ZADD', f, seq, seq .. ':' .. message.parent)
            redis.call('ZADD', s, message.parent, seq)
        end
        if message.deleted == '1' then
            holes = '1'
        end
        if message.question ~= '' then
            redis.call('ZADD', q, message.question, seq)
        end
    end
    if branched == 1 then
        for n, leaf in ipairs(leaves) do
            redis.call('ZADD', l, #leaves - n + 1, leaf)
        end
    end
    redis.call('HSET', c, 'owner', owner, 'id', id, 'title', title, 'metadata', metadata, 'pinned', pinned,
        'archived', archived, 'version', version, 'etag', etag, 'last_seq', seq, 'head', leaves[1] or '0',
        'branched', branched, 'holes', holes, 'created', created, 'updated', updated, 'expires', more == '1' and '1' or expires)
end
local here = { owner = owner, id = id, version = tonumber(version), etag = etag,
    last_seq = tonumber(redis.call('HGET', c, 'last_seq')), head = tonumber(leaves[1] or '0'),
    branched = tonumber(redis.call('HGET', c, 'branched')), updated = updated,
    expires = more == '1' and '1' or expires }
watch_expiry(here)
enlist(here) -- from the first chunk, so that whoever deletes all of an owner finds it
if more == '0' then
    redis.call('DEL', d)
end
return value_of(here)
