-- What wrk sends and what it tells: one JWT after another, and one JSON line at the end.
--
--     wrk … --latency -s load.lua URL -- REQUEST_FILE [exact]
--
-- The file holds the method, the path, the body and then one JWT a line. A body is sent as JSON.
--
-- wrk counts a slow answer several times, for the requests that a patient client would have sent
-- meanwhile. `exact` counts each answer once; it is for one connection, since it keeps one time.

local requests = {}
local turn = 0
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init(arguments)
  local lines = {}
  for line in io.lines(arguments[1]) do
    lines[#lines + 1] = line
  end
  local method, path, body = lines[1], lines[2], lines[3]
  if body == "" then
    body = nil
  end
  for number = 4, #lines do
    local headers = { ["Authorization"] = "Bearer " .. lines[number] }
    if body then
      headers["Content-Type"] = "application/json"
    end
    -- Made once: the load shall cost those that it measures as little as it can.
    requests[#requests + 1] = wrk.format(method, path, headers, body)
  end
  if arguments[2] == "exact" then
    time_each()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function time_each()
  local ffi = require("ffi")
  ffi.cdef("typedef struct { long s, ns; } moment; int clock_gettime(int clock, moment *at);")
  local moment = ffi.new("moment")
  local function now_ms()
    ffi.C.clock_gettime(1, moment) -- CLOCK_MONOTONIC
    return tonumber(moment.s) * 1e3 + tonumber(moment.ns) / 1e6
  end
  local untimed = request
  local began
  took_ms = {} -- global: `done` asks the thread for it
  function request()
    began = now_ms()
    return untimed()
  end
  function response()
    took_ms[#took_ms + 1] = now_ms() - began
  end
end

-- The four figures of an answer's time: those of wrk, or each answer's own.
local function percentiles(latency)
  local took = threads[1]:get("took_ms")
  if not took then
    local function of_wrk(percent)
      return latency:percentile(percent) / 1000 -- wrk counts in microseconds
    end
    return of_wrk(50), of_wrk(95), of_wrk(99), latency.max / 1000
  end
  table.sort(took)
  local function own(percent)
    return took[math.max(1, math.ceil(#took * percent / 100))] or 0
  end
  return own(50), own(95), own(99), own(100)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "not_2xx": %d, "connect": %d, "read": %d, "write": %d, '
      .. '"timeout": %d, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status, errors.connect, errors.read,
    errors.write, errors.timeout, percentiles(latency)))
end
