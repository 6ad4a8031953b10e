-- Along the branches.

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
                    out[#out + 1] = from + n - 1
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
        here[pairs_of[n]] = true
    end
    for n = 1, #pairs_of, 2 do
        local parent = tonumber(string.match(pairs_of[n + 1] or '', '^(%d+)\n') or broken())
        out[#out + 1] = pairs_of[n]
        out[#out + 1] = pairs_of[n + 1]
        out[#out + 1] = here[parent] and '' or name(parent)
    end
    return out
end

-- The last messages that end at the leaf: triples, newest first. Where nothing has branched or was deleted nothing has
-- to be looked at: then it is the first number and the values as they are, oldest first, with one more where there is
-- one, for its name.
local function tail(found, leaf, limit)
    if limit < 1 or leaf == 0 then
        return {}
    end
    if found.branched == 0 and found.holes == '0' then
        local from = math.max(1, leaf - limit)
        local values = redis.call('LRANGE', m, from - 1, leaf - 1)
        return #values == leaf - from + 1 and { from, values } or broken()
    end
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
