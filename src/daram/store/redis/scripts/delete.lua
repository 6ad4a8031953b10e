-- ARGV: id, milliseconds that the tombstone stays, "1" to delete also what has expired (the purge).
local id, stay, expired = arg(), arg(), arg()
if not find() then
    if expired ~= '1' or redis.call('EXISTS', c) == 0 then
        return fail('not found', 'conversation', id)
    end
elseif expired == '1' then
    return { '0' } -- it was given more time meanwhile
end
clear()
redis.call('SET', d, '1', 'PX', stay)
return { '1' }
