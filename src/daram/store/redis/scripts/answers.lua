-- With: answers
-- ARGV: id, "1" to be told of none where the conversation is not there.
local id, quiet = arg(), arg()
if not find() then
    return quiet == '1' and { num(now()) } or fail('not found', 'conversation', id)
end
local out = { num(now()) }
for _, row in ipairs(rows()) do
    out[#out + 1] = row_value(row, false)
end
return out
