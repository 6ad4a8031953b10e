-- ARGV: id, milliseconds that the tombstone stays, "1" to delete also what has expired (the purge), who deletes it.
local id, stay, expired, token = arg(), arg(), arg(), arg()
if not find() then
    if redis.call('GET', d) == token then
        return { '1' } -- once more, by the same caller
    end
    if expired ~= '1' or redis.call('EXISTS', c) == 0 then
        return fail('not found', 'conversation', id)
    end
elseif expired == '1' then
    return { '0' } -- it was given more time meanwhile
end
clear()
if expired ~= '1' then -- what has expired may be made again
    redis.call('SET', d, token, 'PX', stay)
end
return { '1' }
