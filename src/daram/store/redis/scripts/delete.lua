-- With: write
-- ARGV: id, milliseconds that the tombstone stays, which ("0": what has not expired, "1": what has, as the purge does,
-- "2": either), who deletes it.
local id, stay, which, token = arg(), arg(), arg(), arg()
if not find() then
    if redis.call('GET', d) == token then
        return { '1' } -- once more, by the same caller
    end
    if which == '0' or redis.call('EXISTS', c) == 0 then
        return fail('not found', 'conversation', id)
    end
elseif which == '1' then
    return { '0' } -- it was given more time meanwhile
end
clear()
if which ~= '1' then -- what the purge took may be made again
    redis.call('SET', d, token, 'PX', stay)
end
return { '1' }
