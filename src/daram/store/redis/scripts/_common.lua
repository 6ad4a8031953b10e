-- In front of every script of a conversation; what else one needs its first line names ("-- With: tree, write").
-- All keys of a conversation carry one hash tag, so that they are in one slot:
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
-- Numbers of messages and versions are given to commands and replies as they are; microseconds go through num, as Lua
-- would print them with an exponent.
local c, m, i, f, s, l, a, q, d =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local index, expiries, leases = KEYS[10], KEYS[11], KEYS[12]
local next_arg = 1

local function arg()
    next_arg = next_arg + 1
    return ARGV[next_arg - 1]
end

local function num(value)
    return string.format('%.0f', value)
end

local offset, moment = arg(), nil

-- Microseconds since 1970 by the server's clock; the offset moves the engine's clock in tests.
local function now()
    if not moment then
        local time = redis.call('TIME')
        moment = tonumber(time[1]) * 1000000 + tonumber(time[2]) + tonumber(offset)
    end
    return moment
end

local function fail(...)
    return { '!', ... }
end

-- What most scripts look at; value_of reads the rest.
local function find()
    local v = redis.call('HMGET', c, 'owner', 'id', 'version', 'etag', 'last_seq', 'head', 'branched', 'holes', 'updated',
        'expires')
    if not v[1] then
        return nil
    end
    local expires = v[10] or ''
    if expires ~= '' and tonumber(expires) <= now() then
        return nil
    end
    return { owner = v[1], id = v[2], version = tonumber(v[3]), etag = v[4], last_seq = tonumber(v[5]),
        head = tonumber(v[6]), branched = tonumber(v[7]), holes = v[8], updated = v[9], expires = expires }
end

local function broken()
    error('a message of ' .. c .. ' is missing or none')
end

local function parse(value)
    local parent, deleted, created, question, role, status, digest, id =
        string.match(value or '', '^(%d+)\n(%d)\n(%d+)\n(%d*)\n(%a+)\n(%a+)\n(%x*)\n([^\n]*)\n')
    if not id then
        broken()
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
    return string.match(raw(seq) or '', '^%d+\n%d\n%d+\n%d*\n%a+\n%a+\n%x*\n([^\n]*)\n') or broken()
end

local function value_of(found)
    local v = redis.call('HMGET', c, 'title', 'metadata', 'pinned', 'archived', 'created')
    return { found.owner, found.id, v[1], v[2], v[3], v[4], found.version, found.etag, found.last_seq, found.head,
        found.branched, v[5], found.updated, found.expires, name(found.head) }
end
