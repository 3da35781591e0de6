/**
 * What a Redis server says of itself in INFO, and what an operator should know of it. Pure. INFO needs no right to read the
 * configuration, which hosted servers do not give.
 */

/** A master and those who copy it. */
export interface RedisFindings {
  readonly role: string;
  /** Replicas that are connected, whatever their state. */
  readonly replicas: number;
  /** Replicas that have spoken within `lagSecondsMax`: such as a WAIT can expect an answer from. */
  readonly replicasInStep: number;
  /** What should be changed and why, a sentence each. */
  readonly warnings: readonly string[];
}

/** Redis' own default of min-replicas-max-lag. */
const lagSecondsMax = 10;

/** Reads the sections `replication` and, if given, `memory`. */
export function readFindings(replication: string, memory = ''): RedisFindings {
  const fields = new Map(
    `${replication}\r\n${memory}`.split(/\r?\n/).map((line): [string, string] => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1)];
    }),
  );
  const replicas = Number(fields.get('connected_slaves') ?? 0);
  let replicasInStep = 0;
  for (const [name, value] of fields) {
    if (!/^slave\d+$/.test(name)) continue;
    const lag = Number(/(?:^|,)lag=(\d+)/.exec(value)?.[1] ?? Number.POSITIVE_INFINITY);
    if (/(?:^|,)state=online(?:,|$)/.test(value) && lag <= lagSecondsMax) replicasInStep += 1;
  }
  const warnings: string[] = [];
  // The line is there only while min-replicas-to-write is more than 0.
  if (replicas > 0 && !fields.has('min_slaves_good_slaves')) {
    warnings.push(
      `it has ${replicas} replica${replicas === 1 ? '' : 's'} and min-replicas-to-write is 0, so a master that is cut off goes on giving out ` +
        'leases; set min-replicas-to-write 1 and min-replicas-max-lag 10',
    );
  }
  const policy = fields.get('maxmemory_policy');
  if (policy !== undefined && policy !== 'noeviction' && Number(fields.get('maxmemory') ?? 0) > 0) {
    warnings.push(`it may drop leases when its memory is full (maxmemory-policy ${policy}); set maxmemory-policy noeviction`);
  }
  return { role: fields.get('role') ?? 'unknown', replicas, replicasInStep, warnings };
}
