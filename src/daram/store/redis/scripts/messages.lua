-- With: tree
-- ARGV: id, limit, order, seq, leaf (both 0 without a cursor). See Engine._messages.
local id, limit, order, seq, leaf = arg(), tonumber(arg()), arg(), tonumber(arg()), tonumber(arg())
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
if order == 'desc' then
    local start = found.head
    if seq > 0 then
        start = seq <= found.last_seq and parse(raw(seq)).parent or 0
    end
    return { tail(found, start, limit), found.head }
end
if seq == 0 or on_path(found, seq, found.head) then
    leaf = found.head
end
local path = {}
if leaf <= found.last_seq then
    local at = leaf
    while at > seq do
        local low, parent = run_of(found, at)
        path[#path + 1] = { math.max(low, seq + 1), at }
        at = parent
    end
end
local out, count = {}, 0
for n = #path, 1, -1 do
    local run = path[n]
    local low = run[1]
    while low <= run[2] and count < limit do
        local high = math.min(run[2], low + (limit - count) - 1)
        for place, value in ipairs(redis.call('LRANGE', m, low - 1, high - 1)) do
            if not parse(value).deleted then
                out[#out + 1] = low + place - 1
                out[#out + 1] = value
                count = count + 1
            end
        end
        low = high + 1
    end
end
return { with_parents(out), leaf }
