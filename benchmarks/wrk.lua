-- For wrk: posts the lines of one file in turn, with the headers of another; the last line it
-- prints is what wrk counted, as JSON. It has no response(): wrk counts the statuses itself.
local requests, last = {}, 0

function init(args)
  wrk.method = "POST"
  for line in io.lines(args[1]) do
    local name, value = line:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
  for body in io.lines(args[2]) do
    requests[#requests + 1] = wrk.format(nil, nil, nil, body)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "refused": %d, "lost": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.status, e.connect + e.read + e.write + e.timeout))
end
