-- Sends the requests of a file one after the other; every thread takes a part of its own.
local threads = 0

function setup(thread)
  thread:set("part", threads)
  threads = threads + 1
end

function init(args)
  local path, size, count, parts = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  record_size = size
  first = math.floor(count / parts) * part
  last = first + math.floor(count / parts)
  position = first
  file = io.open(path, "rb")
  file:seek("set", first * size)
end

function request()
  if position == last then
    position = first
    file:seek("set", first * record_size)
  end
  position = position + 1
  return file:read(record_size)
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"max_ms":%f,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
