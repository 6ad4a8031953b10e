-- ARGV: answer id, process and end of lease that were seen, new token, new process, lease in microseconds.
local id, process, till, token, mine, lease = arg(), arg(), tonumber(arg()), arg(), arg(), tonumber(arg())
local row = find() and row_of(id)
if not row or row.process ~= process or row.till ~= till then
    return {} -- it was renewed, finished or claimed meanwhile
end
row.token = token
row.process = mine
row.till = now + lease
keep_row(row)
return row_value(row, true)
