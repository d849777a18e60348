-- Sends texts of which no two are alike, counts the tokens that the server reports, and prints one JSON object at the end.
-- Arguments: file of words, seed, least and most words of a text, the body before the text, the body behind it.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end

function init(args)
  words = {}
  for word in io.lines(args[1]) do words[#words + 1] = word end
  math.randomseed(tonumber(args[2]) + number)
  least, most = tonumber(args[3]), tonumber(args[4])
  before, behind = args[5], args[6]
  tokens, uncounted, statuses = 0, 0, ""
  codes = {}
end

function request()
  local text = {}
  for position = 1, math.random(least, most) do text[position] = words[math.random(#words)] end
  return wrk.format("POST", nil, nil, before .. table.concat(text, " ") .. behind)
end

local function tokens_of(headers, body)
  local counted = tonumber(headers["x-poolhouse-tokens"] or headers["X-Poolhouse-Tokens"])
  if counted then return counted end
  -- The usage stands at one of the body's ends; the vectors between them are not searched unless it is not there.
  for _, part in ipairs({ body:sub(-512), body:sub(1, 512), body }) do
    local found = part:match('"prompt_tokens"%s*:%s*(%d+)') or part:match('"total_tokens"%s*:%s*(%d+)')
    if found then return tonumber(found) end
  end
end

function response(status, headers, body)
  if status ~= 200 then
    codes[status] = (codes[status] or 0) + 1
    -- Threads hand over strings and numbers only.
    local parts = {}
    for code, count in pairs(codes) do parts[#parts + 1] = string.format('"%d":%d', code, count) end
    statuses = table.concat(parts, ",")
    return
  end
  local counted = tokens_of(headers, body)
  if counted then tokens = tokens + counted else uncounted = uncounted + 1 end
end

function done(summary, latency, requests)
  local tokens, uncounted, statuses = 0, 0, {}
  for _, thread in ipairs(threads) do
    tokens = tokens + thread:get("tokens")
    uncounted = uncounted + thread:get("uncounted")
    statuses[#statuses + 1] = "{" .. thread:get("statuses") .. "}"
  end
  local histogram = {}
  for position = 1, #latency do
    local value, count = latency(position)
    histogram[position] = string.format("[%d,%d]", value, count)
  end
  local errors = summary.errors
  io.write(string.format(
    '\nresult {"duration_us":%d,"requests":%d,"tokens":%d,"uncounted":%d,"statuses":[%s],' ..
    '"connect":%d,"read":%d,"write":%d,"timeout":%d,"latency_us":[%s]}\n',
    summary.duration, summary.requests, tokens, uncounted, table.concat(statuses, ","),
    errors.connect, errors.read, errors.write, errors.timeout, table.concat(histogram, ",")))
end
