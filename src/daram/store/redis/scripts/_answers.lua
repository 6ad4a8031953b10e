-- An answer row: question, sibling, cancel, created, until, token, process, model, text; all but the last without "\n".
local function row_of(id)
    local value = redis.call('HGET', a, id)
    if not value then
        return nil
    end
    local question, sibling, cancel, created, till, token, process, model, text =
        string.match(value, '^(%d+)\n(%d)\n(%d)\n(%d+)\n(%d+)\n(%x+)\n([^\n]*)\n([^\n]*)\n(.*)$')
    return { id = id, question = tonumber(question), sibling = sibling, cancel = cancel, created = created,
        till = tonumber(till), token = token, process = process, model = model, text = text }
end

local function keep_row(row)
    redis.call('HSET', a, row.id, table.concat({ row.question, row.sibling, row.cancel, row.created, num(row.till),
        row.token, row.process, row.model, row.text }, '\n'))
end

local function rows()
    local out = {}
    for _, id in ipairs(redis.call('HKEYS', a)) do
        out[#out + 1] = row_of(id)
    end
    table.sort(out, function(x, y)
        return tonumber(x.created) < tonumber(y.created) or (x.created == y.created and x.id < y.id)
    end)
    return out
end

-- question: its id, where that is known.
local function row_value(row, with_token, question)
    return { row.id, question or name(row.question), row.text, row.model, with_token and row.token or '', row.process,
        row.cancel, row.created, num(row.till) }
end

local function watch_lease(found, till)
    if leases then
        redis.call('ZADD', leases, num(till), found.owner .. '\n' .. found.id)
    end
end
