-- ARGV: id. The ends of the branches, the one last used first.
local id = arg()
local found = find()
if not found then
    return fail('not found', 'conversation', id)
end
if found.branched == 1 then
    return redis.call('ZREVRANGE', l, 0, -1)
end
return found.head > 0 and { num(found.head) } or {}
