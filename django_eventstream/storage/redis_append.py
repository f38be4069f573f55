"""What Redis does to append events; see `redis_scripts.py` for what stands before it.

Whatever may fail is asked before the first write. Nothing behind the events makes an append fail:
they are stored by then, and whoever sent them would believe that they are not.
"""

from __future__ import annotations

TRIM_EVERY = 16
"""After so many events of a channel, expired ones are looked for."""

SLOT_SECONDS = 300
"""Far longer than anybody tries to append the same events again."""

# KEYS: …, the slot, the streams. ARGV: number of the call, channel for news, the news,
# then for each stream: its channel, for how many milliseconds and how many events to keep (or
# empty), how many events there are now, the events.
# Each appended event may remove some that have expired, but only each so many looks for them.
# Returns three lines: the epoch and the last ids before, why it was not announced, and what else
# failed once the events were stored.
APPEND = f"""
local before = redis.call('GET', KEYS[4])
if before then
  -- Whoever did not get the answer asks again. What was asked first may come last, when the caller
  -- has gone on.
  local call, said = before:match('^(%d+) (.*)$')
  if tonumber(call) >= tonumber(ARGV[1]) then
    return said
  end
end

local reply = {{ epoch() }}
local time = now()
local streams = {{}}
local at = 4
for number = 5, #KEYS do
  local last, stored = end_of(ARGV[at], KEYS[number])
  -- Never before the event before it, whatever the clock does.
  streams[number] = {{ at = at, last = last, suffix = '-' .. text(math.max(time, stored)) }}
  reply[#reply + 1] = text(last)
  at = at + 4 + tonumber(ARGV[at + 3])
end

for number = 5, #KEYS do
  local stream = streams[number]
  local count = tonumber(ARGV[stream.at + 3])
  for n = 1, count do
    local id = text(stream.last + n) .. stream.suffix
    redis.call('XADD', KEYS[number], id, 'e', ARGV[stream.at + 3 + n])
  end
  redis.call('HSET', KEYS[1], ARGV[stream.at], text(stream.last + count) .. stream.suffix)
end

local trouble = ''
local function attempt(action, ...)
  local is_done, problem = pcall(action, ...)
  if is_done then
    return ''
  end
  problem = type(problem) == 'table' and problem.err or tostring(problem)
  return (problem:gsub('%s+', ' '))
end

local function look_after(key, stream)
  local channel, count = ARGV[stream.at], tonumber(ARGV[stream.at + 3])
  local kept, keep = tonumber(ARGV[stream.at + 1]), tonumber(ARGV[stream.at + 2])
  if math.floor(stream.last / {TRIM_EVERY}) < math.floor((stream.last + count) / {TRIM_EVERY}) then
    trim(key, channel, kept and time - kept, keep, {TRIM_EVERY} * 4 + count * 2)
  end
  if kept then
    -- Nothing is in it then that has not expired.
    redis.call('PEXPIRE', key, kept)
  else
    redis.call('PERSIST', key)
  end
end

for number = 5, #KEYS do
  local problem = attempt(look_after, KEYS[number], streams[number])
  trouble = problem ~= '' and problem or trouble
end
local ids = table.concat(reply, ' ')
local untold = attempt(redis.call, 'PUBLISH', ARGV[2], ids .. '\\n' .. ARGV[3])
local said = ids .. '\\n' .. untold .. '\\n'
local problem = attempt(redis.call, 'SET', KEYS[4], ARGV[1] .. ' ' .. said, 'EX', {SLOT_SECONDS})
return said .. (problem ~= '' and problem or trouble)
"""
