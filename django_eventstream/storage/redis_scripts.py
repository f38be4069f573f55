"""What `RedisStorage` makes Redis do, each in one step that nobody sees the middle of.

Keys, each behind the project's prefix: `ids` is a hash of channels with the stream id of the last
event of each, and of the epoch, under the empty name; they are lost together or not at all. `log:…`
is the stream of a channel. A stream id is `n-t`: n is the event's id, t when it was stored, in
milliseconds. `old` has the last ids of django-eventstream 5.3.4, as long as its events are kept.
`run` names the run of the server that the data were last seen in, and whether that one kept all
that it acknowledged.

Every script compares `run` with the run that it is executed in. A server that was started again,
or a replica that took over, may have lost what was acknowledged, and would give its ids again:
nothing is read or written there before `recognise` has seen to it. A client alone cannot tell,
since a server may be started again between any two of its commands.

Redis takes nothing back of a script that fails in the middle. So whatever may fail is asked before
the first write, and what follows the events (housekeeping, the announcement) fails on its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from django_eventstream.storage.redis_append import APPEND

OLD_SECONDS = 24 * 60 * 60
"""How long 5.3.4 kept an event."""

UNRECOGNISED = "UNRECOGNISED the server was started again, or another one took over"
"""What every script but `recognise` answers in a run of the server that is not known yet."""


@dataclass(frozen=True)
class Script:
    """A program in Lua, as Redis knows it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


# KEYS[1] is `ids`, KEYS[2] is `old`, KEYS[3] is `run`.
_COMMON = f"""
local this_run = redis.call('INFO', 'server'):match('run_id:(%x+)') or ''
local known_run = redis.call('GET', KEYS[3])

local function is_recognised()
  return known_run and known_run:match('^%S*') == this_run
end

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
  -- Fails before the first write if it is something else.
  redis.call('HLEN', KEYS[2])
  -- Not everybody may list keys.
  local counters = redis.pcall('KEYS', 'event_counter:?*')
  for _, key in ipairs(counters.err and {{}} or counters) do
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

-- The same for whoever appends, who goes on after the events that are there in any case.
local function end_of(channel, stream)
  local last, stored = last_of(channel, stream)
  if redis.call('XRANGE', stream, text(last + 1), '+', 'COUNT', 1)[1] then
    local found = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1][1]
    local id, time = found:match('^(%d+)-(%d+)$')
    return tonumber(id), tonumber(time)
  end
  return last, stored
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

_ONLY_IF_RECOGNISED = f"""
if not is_recognised() then
  return redis.error_reply('{UNRECOGNISED}')
end
"""

# KEYS: …, the stream. ARGV: channel, after, limit, most bytes.
# Returns the epoch, the oldest id that is kept if it is not the one wanted, else 0, and the events.
_READ = """
-- There is always room for one.
local channel, room = ARGV[1], math.max(1, tonumber(ARGV[4]))
local found = { epoch(), '0' }
local last = last_of(channel, KEYS[4])
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
  local page = redis.call('XRANGE', KEYS[4], text(wanted), text(finish), 'COUNT', step)
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
  found[2] = text(first_old(old) or first_from(KEYS[4], wanted) or last + 1)
end
return found
"""

# KEYS: …, the stream. ARGV: channel, stored before (or empty), how many to keep (or empty), limit.
_TRIM = """
return trim(KEYS[4], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
"""

# ARGV: channels. Returns the epoch, and the stream id of the last event of each.
_POSITION = """
local found = { epoch() }
-- Lua unpacks some thousands at most.
for at = 1, #ARGV, 1000 do
  local values = redis.call('HMGET', KEYS[1], unpack(ARGV, at, math.min(at + 999, #ARGV)))
  for n = 1, #values do
    found[at + n] = values[n]
  end
end
return found
"""

# ARGV: channel for news.
_BEGIN_EPOCH = """
local found = text(math.max(now(), tonumber(epoch()) + 1))
redis.call('HSET', KEYS[1], '', found)
redis.pcall('PUBLISH', ARGV[1], found .. '\\n')
return found
"""

# ARGV: channel for news, the run that the server was in when it was asked whether it keeps all that
# it acknowledges, and its answer. Returns whether a new epoch has begun.
_RECOGNISE = f"""
if this_run ~= ARGV[2] then
  return redis.error_reply('{UNRECOGNISED}')
end
if is_recognised() then
  return 0
end
local found = redis.call('HGET', KEYS[1], '')
-- What the run before has lost counts, and what this one will lose.
local may_miss = found and (ARGV[3] == '0' or known_run and known_run:match(' 0$'))
if may_miss then
  found = text(math.max(now(), tonumber(found) + 1))
  redis.call('HSET', KEYS[1], '', found)
end
redis.call('SET', KEYS[3], this_run .. ' ' .. ARGV[3])
if may_miss then
  redis.pcall('PUBLISH', ARGV[1], found .. '\\n')
end
return may_miss and 1 or 0
"""


class Scripts:
    """The programs, as one project has them."""

    def __init__(self) -> None:
        asked = _COMMON + _ONLY_IF_RECOGNISED
        self.append = Script(asked + APPEND)
        self.read = Script(asked + _READ)
        self.position = Script(asked + _POSITION)
        self.trim = Script(asked + _TRIM)
        self.begin_epoch = Script(asked + _BEGIN_EPOCH)
        self.recognise = Script(_COMMON + _RECOGNISE)
