-- With: answers
-- ARGV: answer id, token, lease in microseconds, text.
local id, token, lease, text = arg(), arg(), tonumber(arg()), arg()
local row = find() and row_of(id)
if not row or row.token ~= token then
    return fail('lease lost', id)
end
row.text = text
row.till = now() + lease
keep_row(row)
return { row.cancel }
