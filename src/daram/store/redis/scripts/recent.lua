-- With: tree
-- ARGV: id, the number below which to begin (0: at the end), how many places to look at. Of all branches, newest first.
-- Reply: the number to go on below (0: that was all), the messages.
local id, below, count = arg(), tonumber(arg()), tonumber(arg())
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
local high = below > 0 and math.min(below - 1, found.last_seq) or found.last_seq
local low = math.max(1, high - count + 1)
local out = {}
local values = high > 0 and redis.call('LRANGE', m, low - 1, high - 1) or {}
for n = #values, 1, -1 do
    if not parse(values[n]).deleted then
        out[#out + 1] = low + n - 1
        out[#out + 1] = values[n]
    end
end
return { low > 1 and num(low) or '0', with_parents(out) }
