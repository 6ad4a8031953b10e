-- With: answers
-- ARGV: id, answer id or "".
local id, answer_id = arg(), arg()
if not find() then
    return fail('not found', 'conversation', id)
end
local count = 0
for _, row in ipairs(rows()) do
    if answer_id == '' or row.id == answer_id then
        row.cancel = '1'
        keep_row(row)
        count = count + 1
    end
end
return { num(count) }
