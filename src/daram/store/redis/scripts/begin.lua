-- With: tree, write, append, answers
-- ARGV: owner, id, create, parent, expect, window, etag of a new conversation, etag, updated,
-- answer id, lease in microseconds, model, token, process, number and names of dead processes, batch.
local owner, id, create, wanted, expect, window = arg(), arg(), arg(), arg(), arg(), tonumber(arg())
local first_etag, etag, updated = arg(), arg(), arg()
local answer_id, lease, model, token, process = arg(), tonumber(arg()), arg(), arg(), arg()
local dead = {}
for _ = 1, tonumber(arg()) do
    dead[arg()] = true
end
local batch = read_batch()

local running = answering()

local function late(row)
    return row.till <= now() or dead[row.process] == true
end

local function busy(found, at)
    for _, row in ipairs(next(running) and rows() or {}) do
        if on_path(found, row.question, at) then
            return fail('busy', row.id, late(row) and '1' or '0', row.process)
        end
    end
    return nil
end

local found = find()
local fresh = false
if not found then
    if create ~= '1' or #batch == 0 or is_tombstoned() then
        return missing(id)
    end
    local wrong = unexpected({ version = 0, etag = first_etag }, expect)
    if wrong then
        return wrong
    end
    if string.len(wanted) > 1 then
        return fail('not found', 'message', string.sub(wanted, 2))
    end
    fresh = true
end

local function answer_taken()
    local seq = tonumber(redis.call('HGET', i, answer_id) or nil)
    if seq and parse(raw(seq)).deleted then
        return fail('gone', 'message', answer_id)
    end
    if seq or running[answer_id] then
        return fail('answer taken', answer_id)
    end
    return nil
end

local done, question, sibling
if #batch == 0 then
    local wrong = unexpected(found, expect)
    if wrong then
        return wrong
    end
    question, wrong = place(found, wanted == '+' and '-' or wanted)
    if wrong then
        return wrong
    end
    if question == 0 then
        return fail('not found', 'message', '(the conversation is empty)')
    end
    local value = raw(question)
    if parse(value).deleted then
        return fail('gone', 'message', parse(value).id)
    end
    done = { found.version, found.etag, found.etag, name(question), {}, tail(found, question, window), found.updated }
    local mine = row_of(answer_id)
    if mine and mine.question == question and not late(mine) then
        return { 'started', done, row_value(mine, true) }
    end
else
    local stored, wrong
    if not fresh then
        stored, wrong = repeated(batch, wanted, running)
        if wrong then
            return wrong
        end
    end
    if stored then
        question = stored[#stored]
        done = appended(found, stored[1], question, window)
        for _, row in ipairs(rows()) do
            if row.question == question and not late(row) then
                local mine = row.id == answer_id
                return { mine and 'started' or 'running', done, row_value(row, mine) }
            end
        end
        -- The newest answer that came to its end, be it that a turn made it or that it was appended.
        local best
        for _, seq in ipairs(children(found, question)) do
            local child = parse(raw(seq))
            if child.role == 'assistant' and not child.question and not child.deleted
                and (child.status == 'complete' or child.status == 'cancelled') then
                best = math.max(best or 0, seq)
            end
        end
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', q, question, question)) do
            local child = parse(raw(tonumber(member)))
            if not child.deleted and (child.status == 'complete' or child.status == 'cancelled') then
                best = math.max(best or 0, tonumber(member))
            end
        end
        if best then
            return { 'finished', done, with_parents({ best, raw(best) }) }
        end
    end
end

if done then
    local wrong = busy(found, question) or answer_taken()
    if wrong then
        return wrong
    end
    sibling = #children(found, question) > 0
else
    local parent = 0
    if not fresh then
        local wrong = unexpected(found, expect)
        if wrong then
            return wrong
        end
        parent, wrong = place(found, wanted)
        if wrong then
            return wrong
        end
        wrong = busy(found, parent) or answer_taken()
        if wrong then
            return wrong
        end
    else
        found = make(owner, id, '', '', '', first_etag, updated)
    end
    done = append(found, batch, parent, true, nil, etag, updated, window)
    question = found.head
    sibling = false
end
local row = { id = answer_id, question = question, sibling = sibling and '1' or '0', cancel = '0', created = num(now()),
    till = now() + lease, token = token, process = process, model = model, text = '' }
keep_row(row)
watch_lease(found, row.till)
return { 'started', done, row_value(row, true, #batch > 0 and batch[#batch].id or nil) }
