-- Making, changing and ending a conversation.

-- How it stands in the index of its owner.
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

-- Where nothing is left to write nothing is: a first command that frees memory would let the rest of the script through
-- on a server whose memory is full.
local function clear(owner, id)
    -- Without its first key the rest is what an evicting server left: nothing of it may come back under the same id.
    if redis.call('EXISTS', c, m, i, f, s, l, a, q) == 0 then
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
    clear(owner, id)
    redis.call('HSET', c, 'owner', owner, 'id', id, 'title', title, 'metadata', metadata, 'pinned', '0', 'archived', '0',
        'version', '0', 'etag', etag, 'last_seq', '0', 'head', '0', 'branched', '0', 'holes', '0', 'created', updated,
        'updated', updated, 'expires', expires)
    redis.call('DEL', d)
    local found = { owner = owner, id = id, version = 0, etag = etag, last_seq = 0, head = 0, branched = 0, holes = '0',
        updated = updated, expires = expires }
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

local function change(found, etag)
    found.version = found.version + 1
    found.etag = etag
    redis.call('HSET', c, 'version', found.version, 'etag', etag, 'head', found.head)
end
