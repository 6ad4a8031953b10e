-- Put in front of every script of a conversation. All its keys carry one hash tag, so that they are in one slot.
--   c HASH the conversation            m LIST its messages, the one numbered seq at index seq - 1
--   i HASH message id -> seq           f ZSET forks: score seq, member "seq:parent" (parent is not seq - 1)
--   s ZSET the same by parent: score parent, member seq
--   l ZSET leaf -> version at which it was the head last (only once it has branched)
--   a HASH answer id -> row            q ZSET answers that do not follow their question: score question, member seq
--   d the tombstone of a deleted conversation: who deleted it
-- On a single server also what is in other slots of a cluster, so that all of it changes at once:
--   index ZSET the owner's conversations: score updated, member "key:id"
--   expiries, leases ZSET what the sweeps look at: score in microseconds, member "owner", line break, "id"
-- A message is kept as eight lines and a blob: parent, deleted, created, question, role, status, digest, id.
local c, m, i, f, s, l, a, q, d =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local index, expiries, leases = KEYS[10], KEYS[11], KEYS[12]
local FIELDS = { 'owner', 'id', 'title', 'metadata', 'pinned', 'archived', 'version', 'etag', 'last_seq', 'head',
    'branched', 'created', 'updated', 'expires' }
local next_arg = 1

local function arg()
    next_arg = next_arg + 1
    return ARGV[next_arg - 1]
end

-- Numbers of microseconds fit a double; Lua would print them with an exponent.
local function num(value)
    return string.format('%.0f', value)
end

local time = redis.call('TIME')
-- The offset moves the engine's clock in tests.
local now = tonumber(time[1]) * 1000000 + tonumber(time[2]) + tonumber(arg())

local function fail(...)
    return { '!', ... }
end

local function find()
    local values = redis.call('HMGET', c, unpack(FIELDS))
    if not values[1] then
        return nil
    end
    local found = {}
    for n, name in ipairs(FIELDS) do
        found[name] = values[n]
    end
    if found.expires and found.expires ~= '' and tonumber(found.expires) <= now then
        return nil
    end
    for _, name in ipairs({ 'version', 'last_seq', 'head', 'branched' }) do
        found[name] = tonumber(found[name])
    end
    return found
end

local function parse(value)
    local parent, deleted, created, question, role, status, digest, id =
        string.match(value or '', '^(%d+)\n(%d)\n(%d+)\n(%d*)\n(%a+)\n(%a+)\n(%x*)\n([^\n]*)\n')
    if not id then
        error('a message of ' .. c .. ' is missing or none')
    end
    return { parent = tonumber(parent), deleted = deleted == '1', created = created, question = tonumber(question),
        role = role, status = status, digest = digest, id = id }
end

local function raw(seq)
    return redis.call('LINDEX', m, seq - 1)
end

local function name(seq)
    if seq == 0 then
        return ''
    end
    return parse(raw(seq)).id
end

-- The run of consecutive numbers that seq is in: its first number and what that follows.
local function run_of(found, seq)
    if found.branched == 0 then
        return 1, 0
    end
    local fork = redis.call('ZREVRANGEBYSCORE', f, seq, '-inf', 'LIMIT', 0, 1)[1]
    if not fork then
        return 1, 0
    end
    local low, parent = string.match(fork, '^(%d+):(%d+)$')
    return tonumber(low), tonumber(parent)
end

local function on_path(found, seq, leaf)
    while leaf >= seq and leaf > 0 do
        local low, parent = run_of(found, leaf)
        if seq >= low then
            return true
        end
        leaf = parent
    end
    return false
end

-- Appends to out, for up to limit living messages from the leaf towards the root: seq, value.
local function up(found, leaf, limit, out)
    local count = 0
    while leaf > 0 and count < limit do
        local low, parent = run_of(found, leaf)
        local high = leaf
        while high >= low and count < limit do
            local from = math.max(low, high - (limit - count) + 1)
            local values = redis.call('LRANGE', m, from - 1, high - 1)
            for n = #values, 1, -1 do
                if string.match(values[n], '^%d+\n(%d)') == '0' then
                    out[#out + 1] = num(from + n - 1)
                    out[#out + 1] = values[n]
                    count = count + 1
                end
            end
            high = from - 1
        end
        leaf = parent
    end
    return out
end

-- Pairs of seq, value become triples with the id of the parent, which is empty where the parent is among them.
local function with_parents(pairs_of)
    local here, out = { [0] = true }, {}
    for n = 1, #pairs_of, 2 do
        here[tonumber(pairs_of[n])] = true
    end
    for n = 1, #pairs_of, 2 do
        local parent = tonumber(string.match(pairs_of[n + 1], '^(%d+)\n'))
        out[#out + 1] = pairs_of[n]
        out[#out + 1] = pairs_of[n + 1]
        out[#out + 1] = here[parent] and '' or name(parent)
    end
    return out
end

local function tail(found, leaf, limit)
    return with_parents(up(found, leaf, limit, {}))
end

local function children(found, seq)
    local out = {}
    if seq + 1 <= found.last_seq and parse(raw(seq + 1)).parent == seq then
        out[1] = seq + 1
    end
    if found.branched == 1 then
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', s, seq, seq)) do
            out[#out + 1] = tonumber(member)
        end
        table.sort(out)
    end
    return out
end

local function leaf_under(found, seq)
    if found.branched == 0 then
        return found.head
    end
    for _, leaf in ipairs(redis.call('ZREVRANGE', l, 0, -1)) do
        if on_path(found, seq, tonumber(leaf)) then
            return tonumber(leaf)
        end
    end
    return seq
end

local function value_of(found)
    local out = {}
    for n, field in ipairs(FIELDS) do
        local value = found[field]
        out[n] = type(value) == 'number' and num(value) or value or ''
    end
    out[#out + 1] = found.head > 0 and name(found.head) or ''
    return out
end

-- How a conversation stands in the index of its owner.
local function index_member(id)
    return string.match(c, '{(%x+)}') .. ':' .. id
end

local function enlist(found)
    if index then
        redis.call('ZADD', index, found.updated, index_member(found.id))
    end
end

local function watch_expiry(found)
    if expiries and found.expires ~= '' then
        redis.call('ZADD', expiries, found.expires, found.owner .. '\n' .. found.id)
    elseif expiries then
        redis.call('ZREM', expiries, found.owner .. '\n' .. found.id)
    end
end

local function watch_lease(found, till)
    if leases then
        redis.call('ZADD', leases, num(till), found.owner .. '\n' .. found.id)
    end
end

-- Where nothing is left to write nothing is: a first command that frees memory would let the rest of the script through
-- on a server whose memory is full.
local function clear()
    local owner, id = unpack(redis.call('HMGET', c, 'owner', 'id'))
    if not owner then
        return
    end
    redis.call('UNLINK', c, m, i, f, s, l, a, q)
    if index then
        redis.call('ZREM', index, index_member(id))
        redis.call('ZREM', expiries, owner .. '\n' .. id)
        redis.call('ZREM', leases, owner .. '\n' .. id)
    end
end

local function is_tombstoned()
    return redis.call('EXISTS', d) == 1
end

local function make(owner, id, title, metadata, expires, etag, updated)
    clear()
    redis.call('HSET', c, 'owner', owner, 'id', id, 'title', title, 'metadata', metadata, 'pinned', '0', 'archived', '0',
        'version', '0', 'etag', etag, 'last_seq', '0', 'head', '0', 'branched', '0', 'created', updated,
        'updated', updated, 'expires', expires)
    redis.call('DEL', d)
    local found = { owner = owner, id = id, title = title, metadata = metadata, pinned = '0', archived = '0', version = 0,
        etag = etag, last_seq = 0, head = 0, branched = 0, created = updated, updated = updated, expires = expires }
    enlist(found)
    watch_expiry(found)
    return found
end

-- What is missing and why: an error to return.
local function missing(id)
    if is_tombstoned() then
        return fail('gone', 'conversation', id)
    end
    return fail('not found', 'conversation', id)
end

-- A batch as the caller sends it: count, then of each id, role, status, digest, created ('' where the engine draws it), blob.
local function read_batch()
    local batch = {}
    for n = 1, tonumber(arg()) do
        batch[n] = { id = arg(), role = arg(), status = arg(), digest = arg(), created = arg(), blob = arg() }
    end
    return batch
end

-- P3. Returns the numbers of the batch where it is stored already, nil where none is, and an error otherwise.
local function repeated(batch, wanted)
    local stored, taken = {}, nil
    for n, message in ipairs(batch) do
        local seq = tonumber(redis.call('HGET', i, message.id) or nil)
        if seq then
            if parse(raw(seq)).deleted then
                return nil, fail('gone', 'message', message.id)
            end
            stored[n] = seq
        end
        if (seq or redis.call('HEXISTS', a, message.id) == 1) and not taken then
            taken = message.id
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
        redis.call('RPUSH', m, table.concat({ num(above), '0', created, question and num(question) or '', message.role,
            message.status, message.digest, message.id, message.blob }, '\n'))
        redis.call('HSET', i, message.id, num(seq))
        if above ~= seq - 1 then
            redis.call('ZADD', f, seq, num(seq) .. ':' .. num(above))
            redis.call('ZADD', s, above, num(seq))
        end
        if question then
            redis.call('ZADD', q, question, num(seq))
        end
        above = seq
    end
    found.version = found.version + 1
    if found.branched == 1 then
        local used = redis.call('ZSCORE', l, num(parent))
        redis.call('ZREM', l, num(parent))
        redis.call('ZADD', l, make_head and found.version or tonumber(used or 0), num(seq))
    elseif parent ~= found.head then
        found.branched = 1
        if found.head > 0 then
            redis.call('ZADD', l, found.version - 1, num(found.head))
        end
        redis.call('ZADD', l, make_head and found.version or 0, num(seq))
    end
    found.last_seq = seq
    if make_head then
        found.head = seq
    end
    found.etag = etag
    if tonumber(updated) > tonumber(found.updated) then
        found.updated = updated
    end
    redis.call('HSET', c, 'version', num(found.version), 'etag', etag, 'last_seq', num(seq), 'head', num(found.head),
        'branched', num(found.branched), 'updated', found.updated)
    enlist(found)
end

-- The answer to an append: the numbers of the batch, and the leaf where the tail ends.
local function appended(found, previous, first, last, parent, leaf, window)
    local batch = {}
    for seq = first, last do
        batch[#batch + 1] = num(seq)
        batch[#batch + 1] = raw(seq)
    end
    return { num(found.version), found.etag, previous, name(parent), with_parents(batch), tail(found, leaf, window),
        found.updated }
end

local function change(found, etag)
    found.version = found.version + 1
    found.etag = etag
    redis.call('HSET', c, 'version', num(found.version), 'etag', etag, 'head', num(found.head))
end

-- An answer row: question, sibling, cancel, created, until, token, process, model, text; all but the last without "\n".
local function row_of(id)
    local value = redis.call('HGET', a, id)
    if not value then
        return nil
    end
    local question, sibling, cancel, created, till, token, process, model, text =
        string.match(value, '^(%d+)\n(%d)\n(%d)\n(%d+)\n(%d+)\n(%x+)\n([^\n]*)\n([^\n]*)\n(.*)$')
    return { id = id, question = tonumber(question), sibling = sibling, cancel = cancel, created = created,
        till = tonumber(till), token = token, process = process, model = model, text = text }
end

local function keep_row(row)
    redis.call('HSET', a, row.id, table.concat({ num(row.question), row.sibling, row.cancel, row.created, num(row.till),
        row.token, row.process, row.model, row.text }, '\n'))
end

local function rows()
    local out = {}
    for _, id in ipairs(redis.call('HKEYS', a)) do
        out[#out + 1] = row_of(id)
    end
    table.sort(out, function(x, y)
        return tonumber(x.created) < tonumber(y.created) or (x.created == y.created and x.id < y.id)
    end)
    return out
end

local function row_value(row, with_token)
    return { row.id, name(row.question), row.text, row.model, with_token and row.token or '', row.process, row.cancel,
        row.created, num(row.till) }
end
