"""The scripts that Redis runs, each whole or not at all, on the clock of the server.

KEYS: the state of one (server, key, model), its runs at the provider, the workers that ask for it. Numbers are written
with six decimals: Lua's own way drops the microseconds of a clock.
"""

from worker.limits.asking import AHEAD, BURST, BUSY_LOOK, LEAST_REQUESTS, SPARED

PLACE_SECONDS = 30.0  # a run whose worker has not said for so long that it goes on is not counted any more
_HEARD_SECONDS = 30.0  # a worker that has asked for nothing for so long has no share any more
_KEPT = 3600  # seconds that what was learnt outlives its last use
# A refusal slows all workers down a little; one soon after another shows that the limit is not what we think.
_MILD, _HARD, _SLOWEST = 0.98, 0.9, 0.1
_SOON = 15.0  # seconds
_RECOVERY = 0.005  # of the full pace, for each second

_BEGIN = f"""
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local function number(value) return string.format('%.6f', value) end
local function field(name) return tonumber(redis.call('HGET', KEYS[1], name) or nil) end
local function keep(name, value) redis.call('HSET', KEYS[1], name, number(value)) end
local function pace()
  return math.min(1, (field('pace') or 1) + {_RECOVERY} * (now - (field('paced_at') or now)))
end
"""
_END = f"""
redis.call('EXPIRE', KEYS[1], {_KEPT})
"""

# ARGV: worker; limits set for requests, tokens, runs (0: none); left of requests, tokens ('': not told); then for each
# create its run, tokens, and 1 where it is bulk. Returns what `Given` holds, times in microseconds.
RESERVE = f"""{_BEGIN}
local function stricter(learnt, set)
  if learnt and learnt > 0 and (set == 0 or learnt < set) then return learnt end
  return set
end
local function bucket(kind, set, left, least)
  local limit = stricter(field(kind), tonumber(set))
  if limit == 0 then return nil end
  local one = {{kind = kind, rate = limit / 60 * pace(), room = math.max(least, limit / 60 * {BURST})}}
  one.spared = math.max(least / 2, {SPARED} * one.room)
  one.level = math.min(one.room, (field(kind .. '_level') or one.room) + one.rate * (now - (field('at') or now)))
  if tonumber(left) then one.level = math.min(one.level, tonumber(left)) end
  return one
end
local function seconds(one, cost, bulk)
  if not one then return 0 end
  local needed = math.min(one.room, cost + (bulk and one.spared or 0))
  return math.max(0, needed - one.level) / one.rate
end

redis.call('ZADD', KEYS[3], number(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', number(now - {_HEARD_SECONDS}))
redis.call('EXPIRE', KEYS[3], {_KEPT})
local requests = bucket('requests', ARGV[2], ARGV[5], {LEAST_REQUESTS})
local tokens = bucket('tokens', ARGV[3], ARGV[6], 1)
local runs, held = tonumber(ARGV[4]), 0
if runs > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', number(now))
  held = redis.call('ZCARD', KEYS[2])
end
local silence = math.max(0, (field('not_before') or 0) - now)
local delays, wait = {{}}, silence
for i = 7, #ARGV, 3 do
  local run, cost, bulk = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1'
  local after = math.max(silence, seconds(requests, 1, bulk), seconds(tokens, cost, bulk))
  local place = runs - (bulk and math.floor(runs * {SPARED}) or 0)
  local full = runs > 0 and held >= place and not redis.call('ZSCORE', KEYS[2], run)
  if after > {AHEAD} or full then
    wait = math.max(after - {AHEAD}, full and {BUSY_LOOK} or 0.005)
    break
  end
  delays[#delays + 1] = math.floor(after * 1e6)
  if requests then requests.level = requests.level - 1 end
  if tokens then tokens.level = tokens.level - cost end
  if runs > 0 then
    held = held + redis.call('ZADD', KEYS[2], number(now + {PLACE_SECONDS}), run)
    redis.call('EXPIRE', KEYS[2], {_KEPT})
  end
end
for _, one in pairs({{requests or false, tokens or false}}) do
  if one then keep(one.kind .. '_level', one.level) end
end
keep('pace', pace())
keep('paced_at', now)
keep('at', now)
{_END}
local workers = redis.call('ZCARD', KEYS[3])
return {{math.floor(wait * 1e6), field('requests') or 0, field('tokens') or 0, workers, unpack(delays)}}
"""

# ARGV: run whose place is free ('': none), requests and tokens that were reserved and not used (below 0: the reverse).
SETTLE = f"""{_BEGIN}
if ARGV[1] ~= '' then redis.call('ZREM', KEYS[2], ARGV[1]) end
for i, kind in ipairs({{'requests', 'tokens'}}) do
  local level = field(kind .. '_level')
  if level then keep(kind .. '_level', level + tonumber(ARGV[i + 1])) end
end
{_END}
"""

# ARGV: seconds that the provider asks to wait. Refusals within a second are one: they went out together.
REFUSED = f"""{_BEGIN}
local last = field('refused_at') or 0
if now - last > 1 then
  local by = now - last < {_SOON} and {_HARD} or {_MILD}
  keep('pace', math.max({_SLOWEST}, pace() * by))
  keep('paced_at', now)
  keep('refused_at', now)
end
for _, kind in ipairs({{'requests', 'tokens'}}) do
  local level = field(kind .. '_level')
  if level then keep(kind .. '_level', math.min(level, 0)) end
end
keep('not_before', math.max(field('not_before') or 0, now + tonumber(ARGV[1])))
{_END}
"""

# ARGV: limits of requests and tokens that the provider told (0: none).
LEARN = f"""{_BEGIN}
for i, kind in ipairs({{'requests', 'tokens'}}) do
  local told = tonumber(ARGV[i])
  if told > 0 and told ~= field(kind) then
    keep(kind, told)
    redis.call('HDEL', KEYS[1], 'pace', 'refused_at')  -- what was refused before, was so under another limit
  end
end
{_END}
"""

# ARGV: runs that still go on at the provider.
RENEW = f"""{_BEGIN}
for _, run in ipairs(ARGV) do redis.call('ZADD', KEYS[2], number(now + {PLACE_SECONDS}), run) end
redis.call('EXPIRE', KEYS[2], {_KEPT})
"""
