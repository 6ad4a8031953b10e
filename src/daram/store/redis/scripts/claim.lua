-- With: answers
-- ARGV: answer id, process and end of lease that were seen, new token, new process, lease in microseconds.
local id, process, till, token, mine, lease = arg(), arg(), tonumber(arg()), arg(), arg(), tonumber(arg())
local found = find()
local row = found and row_of(id)
if row and row.token == token then
    return row_value(row, true) -- once more, by the same caller
end
if not row or row.process ~= process or row.till ~= till then
    return {} -- it was renewed, finished or claimed meanwhile
end
row.token = token
row.process = mine
row.till = now() + lease
keep_row(row)
watch_lease(found, row.till)
return row_value(row, true)
