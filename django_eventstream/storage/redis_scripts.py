"""What `RedisStorage` makes Redis do, each in one step that nobody sees the middle of.

Keys, each behind the project's prefix: `ids` is a hash of channels with the stream id of the last
event of each, and of the epoch, under the empty name; they are lost together or not at all. `log:…`
is the stream of a channel. A stream id is `n-t`: n is the event's id, t when it was stored, in
milliseconds. `old` has the last ids of django-eventstream 5.3.4, as long as its events are kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

OLD_SECONDS = 24 * 60 * 60
"""How long 5.3.4 kept an event."""

TRIM_EVERY = 16
"""After so many events of a channel, expired ones are looked for."""

SLOT_SECONDS = 300
"""Far longer than anybody tries to append the same events again."""


@dataclass(frozen=True)
class Script:
    """A program in Lua, as Redis knows it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


# KEYS[1] is `ids`, KEYS[2] is `old`.
_COMMON = f"""
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- An empty Redis begins a new life of the log; one of 5.3.4 goes on in its first life.
local function epoch()
  local found = redis.call('HGET', KEYS[1], '')
  if found then
    return found
  end
  found = text(now())
  for _, key in ipairs(redis.call('KEYS', 'event_counter:?*')) do
    local value = redis.pcall('GET', key)
    if type(value) == 'string' and value:match('^[1-9]%d*$') then
      found = '0'
      redis.call('HSETNX', KEYS[1], key:sub(15), value)
      redis.call('HSET', KEYS[2], key:sub(15), value)
      redis.call('EXPIRE', KEYS[2], {OLD_SECONDS})
    end
  end
  redis.call('HSET', KEYS[1], '', found)
  return found
end

-- The last id of a channel, and when it was given.
local function last_of(channel, stream)
  local found = redis.call('HGET', KEYS[1], channel)
  if not found then
    local entry = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    found = entry and entry[1] or '0'
  end
  local id, time = found:match('^(%d+)-?(%d*)$')
  return tonumber(id), tonumber(time) or 0
end

local function first_from(stream, id)
  local entry = redis.call('XRANGE', stream, text(id), '+', 'COUNT', 1)[1]
  if entry then
    local found, time = entry[1]:match('^(%d+)-(%d+)$')
    return tonumber(found), tonumber(time)
  end
end

-- Removes the oldest events: those stored before, and those beyond the last so many to keep.
local function trim(stream, channel, before, keep, limit)
  local first = first_from(stream, 0)
  if not first then
    return 0
  end
  local last = last_of(channel, stream)
  local most = math.min(first - 1 + limit, last)
  local low, high = math.max(first - 1, math.min(keep and last - keep or 0, most)), most
  while before and low < high do
    local middle = math.ceil((low + high) / 2)
    local _, stored = first_from(stream, middle)
    if stored and stored < before then
      low = middle
    else
      high = middle - 1
    end
  end
  if low < first then
    return 0
  end
  local removed = redis.call('XTRIM', stream, 'MINID', text(low + 1))
  if redis.call('XLEN', stream) == 0 then
    redis.call('DEL', stream)
  end
  return removed
end
"""

# KEYS: …, the slot, the streams. ARGV: number of the call, channel for news, the news,
# then for each stream: its channel, for how many milliseconds and how many events to keep (or
# empty), how many events there are now, the events.
# Each appended event may remove some that have expired, but only each so many looks for them.
_APPEND = f"""
local before = redis.call('GET', KEYS[3])
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
local at = 4
for number = 4, #KEYS do
  local stream, channel, count = KEYS[number], ARGV[at], tonumber(ARGV[at + 3])
  local kept, keep = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local last, stored = last_of(channel, stream)
  -- Never before the event before it, whatever the clock does.
  local suffix = '-' .. text(math.max(time, stored))
  for n = 1, count do
    redis.call('XADD', stream, text(last + n) .. suffix, 'e', ARGV[at + 3 + n])
  end
  redis.call('HSET', KEYS[1], channel, text(last + count) .. suffix)
  if math.floor(last / {TRIM_EVERY}) < math.floor((last + count) / {TRIM_EVERY}) then
    trim(stream, channel, kept and time - kept, keep, {TRIM_EVERY} * 4 + count * 2)
  end
  if kept then
    -- Nothing is in it then that has not expired.
    redis.call('PEXPIRE', stream, kept)
  else
    redis.call('PERSIST', stream)
  end
  reply[#reply + 1] = text(last)
  at = at + 4 + count
end
local said = table.concat(reply, ' ')
redis.call('PUBLISH', ARGV[2], said .. '\\n' .. ARGV[3])
redis.call('SET', KEYS[3], ARGV[1] .. ' ' .. said, 'EX', {SLOT_SECONDS})
return said
"""

# KEYS: …, the stream. ARGV: channel, after, limit, most bytes.
# Returns the epoch, the oldest id that is kept if it is not the one wanted, else 0, and the events.
_READ = """
-- There is always room for one.
local channel, room = ARGV[1], math.max(1, tonumber(ARGV[4]))
local found = { epoch(), '0' }
local last = last_of(channel, KEYS[3])
local wanted = tonumber(ARGV[2]) + 1
local finish = math.min(wanted - 1 + tonumber(ARGV[3]), last)
local bytes = 0

local function take(event)
  found[#found + 1] = event
  bytes = bytes + #event
  wanted = wanted + 1
end

local function old_event()
  local value = redis.pcall('GET', 'event:' .. channel .. ':' .. text(wanted))
  local is_json, event = pcall(cjson.decode, value)
  if is_json and type(event) == 'table' and type(event.type) == 'string' then
    local data = event.data
    return event.type .. '\\n\\n' .. (type(data) == 'string' and data or cjson.encode(data))
  end
end

-- Old events expire in their order, so that those before the first one that is there are gone.
local function first_old(last_old)
  local low, high = wanted, last_old + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if redis.call('EXISTS', 'event:' .. channel .. ':' .. text(middle)) == 1 then
      high = middle
    else
      low = middle + 1
    end
  end
  return low <= last_old and low or nil
end

local old = 0
if wanted <= finish then
  old = tonumber(redis.call('HGET', KEYS[2], channel) or 0)
  while wanted <= math.min(old, finish) and bytes < room do
    local event = old_event()
    if not event then
      break
    end
    take(event)
  end
end

local has_more = true
while has_more and wanted <= finish and bytes < room do
  -- As many as fit, going by those before: a look at more would copy them.
  local mean = bytes > 0 and bytes / (#found - 2) or room / 8
  local step = math.max(1, math.min(256, math.ceil((room - bytes) / mean)))
  local page = redis.call('XRANGE', KEYS[3], text(wanted), text(finish), 'COUNT', step)
  has_more = #page == step
  for _, entry in ipairs(page) do
    if tonumber(entry[1]:match('^%d+')) ~= wanted then
      has_more = false
      break
    end
    take(entry[2][2])
    if bytes >= room then
      break
    end
  end
end
if #found == 2 and wanted <= last then
  found[2] = text(first_old(old) or first_from(KEYS[3], wanted) or last + 1)
end
return found
"""

# KEYS: …, the stream. ARGV: channel, stored before (or empty), how many to keep (or empty), limit.
_TRIM = """
return trim(KEYS[3], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
"""

# ARGV: channel for news.
_BEGIN_EPOCH = """
local found = text(math.max(now(), tonumber(epoch()) + 1))
redis.call('HSET', KEYS[1], '', found)
redis.call('PUBLISH', ARGV[1], found .. '\\n')
return found
"""

# KEYS: …, the run of the server that we know. ARGV: channel for news, the run that it is in, and
# whether it loses nothing.
# A server that came back may have lost what it had acknowledged, and its ids would be used again.
_RECOGNISE = """
local known = redis.call('GET', KEYS[3])
local found = redis.call('HGET', KEYS[1], '')
if known ~= ARGV[2] then
  redis.call('SET', KEYS[3], ARGV[2])
  if found and ARGV[3] == '0' then
    found = text(math.max(now(), tonumber(found) + 1))
    redis.call('HSET', KEYS[1], '', found)
    redis.call('PUBLISH', ARGV[1], found .. '\\n')
    return 1
  end
end
return 0
"""


class Scripts:
    """The programs, as one project has them.

    Redis forgets programs when it ends, and that is how we notice. So no two projects may share
    one: the first of them would notice for both.
    """

    def __init__(self, owner: str) -> None:
        head = f"-- {owner!r}\n{_COMMON}"
        self.append = Script(head + _APPEND)
        self.read = Script(head + _READ)
        self.trim = Script(head + _TRIM)
        self.epoch = Script(head + "return epoch()")
        self.begin_epoch = Script(head + _BEGIN_EPOCH)
        self.recognise = Script(head + _RECOGNISE)
