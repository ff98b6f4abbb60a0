-- P1: appends events of one job to its log and publishes each, or does neither.
-- KEYS[1]  the log's stream, also the job's channel
-- ARGV[1]  epoch   [2] most events kept   [3] seconds kept   [4] the thread's channel
-- ARGV[5]  the `queued` event (id 0-1) as JSON, put first where the log is empty; '' for none
-- ARGV[6]  the last position that was given to an event before this epoch, in the log or lost on its way; '' if unknown
-- ARGV[7…] pairs: n, event as a JSON object
-- Result: {the log's last id before the call or '', then per event 1 appended | 0 already there | -1 stale epoch}
local key, epoch = KEYS[1], tonumber(ARGV[1])
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
local last_id = last[1] and last[1][1] or ''
local out = {last_id}

local function put(id, json)
    redis.call('XADD', key, 'MAXLEN', '~', ARGV[2], id, 'e', json)
    redis.call('PUBLISH', key, json)
    redis.call('PUBLISH', ARGV[4], json)
    last_id = id
end

local function later(one, other)
    local epoch_one, n_one = string.match(one, '^(%d+)-(%d+)$')
    local epoch_other, n_other = string.match(other, '^(%d+)-(%d+)$')
    if not epoch_one or not epoch_other then return false end
    epoch_one, epoch_other = tonumber(epoch_one), tonumber(epoch_other)
    return epoch_one > epoch_other or (epoch_one == epoch_other and tonumber(n_one) > tonumber(n_other))
end

for i = 7, #ARGV, 2 do
    local n, json = tonumber(ARGV[i]), ARGV[i + 1]
    local top_epoch, top_n = string.match(last_id, '^(%d+)-(%d+)$')
    top_epoch, top_n = tonumber(top_epoch or -1), tonumber(top_n or 0)
    if epoch < top_epoch then
        out[#out + 1] = -1
    elseif epoch == top_epoch and n <= top_n then
        out[#out + 1] = 0
    else
        if last_id == '' and ARGV[5] ~= '' and not (epoch == 0 and n == 1) then
            put('0-1', ARGV[5])
            -- Above epoch 1 the log is not new but lost: what stood before this event is not `queued`.
            if epoch > 1 then last_id = '' end
        end
        if n == 1 and epoch > 0 then
            -- A transition's event says what came before it, which only this script knows (P2).
            -- Where its epoch's events did not all arrive, it names the last that there was: readers see the gap.
            local before = later(ARGV[6], last_id) and ARGV[6] or last_id
            local prev = before == '' and 'null' or '"' .. before .. '"'
            json = string.sub(json, 1, -2) .. ',"prev":' .. prev .. '}'
        end
        put(string.format('%d-%d', epoch, n), json)
        out[#out + 1] = 1
    end
end
redis.call('EXPIRE', key, ARGV[3])
return out
