-- P1: appends events of one job to its log and publishes each, or does neither.
-- KEYS[1]  the log's stream, also the job's channel
-- ARGV[1]  epoch   [2] most events kept   [3] seconds kept   [4] the thread's channel
-- ARGV[5]  the `queued` event (id 0-1) as JSON, put first where the log is empty; '' for none
-- ARGV[6…] pairs: n, event as a JSON object
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

for i = 6, #ARGV, 2 do
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
            local prev = last_id == '' and 'null' or '"' .. last_id .. '"'
            json = string.sub(json, 1, -2) .. ',"prev":' .. prev .. '}'
        end
        put(string.format('%d-%d', epoch, n), json)
        out[#out + 1] = 1
    end
end
redis.call('EXPIRE', key, ARGV[3])
return out
