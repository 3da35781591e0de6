/**
 * What Redis does in one step each, and the names of the keys. All keys of a cluster carry one hash tag, so that in a Redis Cluster they are
 * on one node and a script may use them together.
 *
 *   {archipelago:<cluster>}:lease:<key>   JSON of the holder, a line feed, JSON of the value; lapses by PX
 *   {archipelago:<cluster>}:index         sorted set of the keys, all of score 0: listing by prefix without looking at foreign keys
 *   {archipelago:<cluster>}:generation    made at random when it is missing: another one tells members that Redis has lost its memory
 */

/** Index and generation outlive the last lease by a day, so that a cluster that is no more leaves nothing behind. */
const keepMs = 86_400_000;

/** The scripts, as ioredis defines them. */
export const scripts = {
  /**
   * KEYS lease, index, generation. ARGV holder line, record, length in ms, generation known to the caller or '', generation if there is none,
   * whether the caller held the lease ('1'), key, most leases. Answers [outcome, generation, record of the other holder].
   */
  takeLease: {
    numberOfKeys: 3,
    lua: `
local generation = redis.call('GET', KEYS[3])
if not generation then
  generation = ARGV[5]
  redis.call('SET', KEYS[3], generation)
end
redis.call('PEXPIRE', KEYS[3], ${keepMs})
local held = redis.call('GET', KEYS[1])
if held then
  if string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return {'other', generation, held} end
else
  if ARGV[4] ~= '' and ARGV[4] ~= generation and ARGV[6] ~= '1' then return {'anew', generation} end
  if not redis.call('ZSCORE', KEYS[2], ARGV[7]) and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[8]) then return {'full', generation} end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[7])
redis.call('PEXPIRE', KEYS[2], ${keepMs})
return {held and 'prolonged' or 'taken', generation}
`,
  },
  /** KEYS lease, index. ARGV holder line, key. */
  releaseLease: {
    numberOfKeys: 2,
    lua: `
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
`,
  },
  /** KEYS index, lease. ARGV key. Takes a lapsed lease out of the index. */
  forgetLapsed: {
    numberOfKeys: 2,
    lua: `
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
`,
  },
} as const;

/** Names of a cluster's keys. */
export interface LeaseKeys {
  readonly index: string;
  readonly generation: string;
  lease(key: string): string;
}

/** See the header of this file. */
export function leaseKeysOf(cluster: string): LeaseKeys {
  const tag = `{archipelago:${cluster}}`;
  return { index: `${tag}:index`, generation: `${tag}:generation`, lease: (key) => `${tag}:lease:${key}` };
}

/** First line of a record: compared as a whole, so no holder is the beginning of another. JSON has no line feed of its own. */
export function holderLine(holder: string): string {
  return `${JSON.stringify(holder)}\n`;
}

/** A lease as it is stored. */
export function encodeRecord(holder: string, value: unknown): string {
  return `${holderLine(holder)}${JSON.stringify(value ?? null)}`;
}

/** The other way; `undefined` for what is no record of ours. */
export function decodeRecord(record: string): { holder: string; value: unknown } | undefined {
  const end = record.indexOf('\n');
  try {
    const holder: unknown = JSON.parse(record.slice(0, end));
    return typeof holder === 'string' ? { holder, value: JSON.parse(record.slice(end + 1)) } : undefined;
  } catch {
    return undefined;
  }
}
