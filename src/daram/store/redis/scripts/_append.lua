-- Appending messages.

-- A batch as the caller sends it: count, then of each id, role, status, digest, created ('' where the engine draws it), blob.
local function read_batch()
    local batch = {}
    for n = 1, tonumber(arg()) do
        batch[n] = { id = arg(), role = arg(), status = arg(), digest = arg(), created = arg(), blob = arg() }
    end
    return batch
end

-- The ids of the answers that are being made, as a set.
local function answering()
    local ids = {}
    for _, id in ipairs(redis.call('HKEYS', a)) do
        ids[id] = true
    end
    return ids
end

-- P3. running: answering(). Returns the numbers of the batch where it is stored already, nil where none is, and an error otherwise.
local function repeated(batch, wanted, running)
    local names, taken = {}, nil
    for n, message in ipairs(batch) do
        names[n] = message.id
    end
    local stored = redis.call('HMGET', i, unpack(names))
    for n, id in ipairs(names) do
        stored[n] = tonumber(stored[n] or nil)
        if stored[n] and parse(raw(stored[n])).deleted then
            return nil, fail('gone', 'message', id)
        end
        if (stored[n] or running[id]) and not taken then
            taken = id
        end
    end
    if not taken then
        return nil, nil
    end
    for n, message in ipairs(batch) do
        local old = stored[n] and parse(raw(stored[n]))
        if not old or old.digest ~= message.digest or (message.created ~= '' and message.created ~= old.created)
            or (n > 1 and not (stored[n] == stored[n - 1] + 1 and old.parent == stored[n - 1])) then
            return nil, fail('taken', taken)
        end
    end
    if wanted ~= '-' and wanted ~= '+' .. name(parse(raw(stored[1])).parent) then
        return nil, fail('taken', taken)
    end
    return stored, nil
end

-- expect: '-', 'v' and a version, or 'e' and an etag.
local function unexpected(found, expect)
    local kind, value = string.sub(expect, 1, 1), string.sub(expect, 2)
    if kind == 'v' and num(found.version) ~= value then
        return fail('not as expected', num(found.version))
    end
    if kind == 'e' and found.etag ~= value then
        return fail('not as expected', found.etag)
    end
    return nil
end

-- wanted: '-' for the head, '+' for none, '+' and an id. Returns the number, or nil and an error.
local function place(found, wanted)
    if wanted == '-' then
        return found.head
    end
    if wanted == '+' then
        return 0
    end
    local id = string.sub(wanted, 2)
    local seq = tonumber(redis.call('HGET', i, id) or nil)
    if not seq then
        return nil, fail('not found', 'message', id)
    end
    if parse(raw(seq)).deleted then
        return nil, fail('gone', 'message', id)
    end
    return seq
end

local function insert(found, batch, parent, make_head, question, etag, updated)
    local seq, above = found.last_seq, parent
    for _, message in ipairs(batch) do
        seq = seq + 1
        local created = message.created ~= '' and message.created or updated
        redis.call('RPUSH', m, table.concat({ above, '0', created, question or '', message.role, message.status,
            message.digest, message.id, message.blob }, '\n'))
        redis.call('HSET', i, message.id, seq)
        if above ~= seq - 1 then
            redis.call('ZADD', f, seq, seq .. ':' .. above)
            redis.call('ZADD', s, above, seq)
        end
        if question then
            redis.call('ZADD', q, question, seq)
        end
        above = seq
    end
    found.version = found.version + 1
    if found.branched == 1 then
        local used = redis.call('ZSCORE', l, parent)
        redis.call('ZREM', l, parent)
        redis.call('ZADD', l, make_head and found.version or tonumber(used or 0), seq)
    elseif parent ~= found.head then
        found.branched = 1
        if found.head > 0 then
            redis.call('ZADD', l, found.version - 1, found.head)
        end
        redis.call('ZADD', l, make_head and found.version or 0, seq)
    end
    found.last_seq = seq
    if make_head then
        found.head = seq
    end
    found.etag = etag
    if tonumber(updated) > tonumber(found.updated) then
        found.updated = updated
    end
    redis.call('HSET', c, 'version', found.version, 'etag', etag, 'last_seq', seq, 'head', found.head,
        'branched', found.branched, 'updated', found.updated)
    enlist(found)
end

-- What an append answers, when it has inserted the batch: the batch is not sent back, the caller has it. Its first
-- number, and the tail that the batch continues. All is read before anything is written.
local function append(found, batch, parent, make_head, question, etag, updated, window)
    local previous, above, before = found.etag, name(parent), tail(found, parent, window - #batch)
    local first = found.last_seq + 1
    insert(found, batch, parent, make_head, question, etag, updated)
    return { found.version, found.etag, previous, above, first, before, found.updated }
end

-- The same when it was there already: messages instead of the first number, and the tail that ends at them.
local function appended(found, first, last, window)
    local batch = {}
    for seq = first, last do
        batch[#batch + 1] = seq
        batch[#batch + 1] = raw(seq)
    end
    return { found.version, found.etag, found.etag, name(parse(batch[2]).parent), with_parents(batch),
        tail(found, last, window), found.updated }
end
