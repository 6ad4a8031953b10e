-- KEYS[1] the value; ARGV: the stamp that it must begin with, the new value, milliseconds to live.
-- What another state left there is dropped: whoever wrote it last knew something that this caller does not.
-- So is what is no string at all (pcall gives a table that holds the error).
local found = redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
if found == '' or found == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 1
end
redis.call('DEL', KEYS[1])
return 0
