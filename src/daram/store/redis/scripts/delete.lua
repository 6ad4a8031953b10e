-- With: write
-- ARGV: owner, id, milliseconds that the tombstone stays, which ("0": what has not expired, "1": what has, as the purge
-- does, "2": whatever is there), who deletes it. Reply: "1", or "0" and when it expires.
local owner, id, stay, which, token = arg(), arg(), arg(), arg(), arg()
local found = find()
if not found then
    if redis.call('GET', d) == token then
        return { '1' } -- once more, by the same caller
    end
    if which == '0' or redis.call('EXISTS', c, m, i, f, s, l, a, q) == 0 then
        return fail('not found', 'conversation', id)
    end
elseif which == '1' then
    return { '0', found.expires } -- it was given more time meanwhile, or has some left by this clock
end
clear(owner, id)
if which ~= '1' then -- what the purge took may be made again
    redis.call('SET', d, token, 'PX', stay)
end
return { '1' }
