import { describe, expect, it } from 'vitest';
import { readFindings } from '#backend-cluster/coordination/redis/findings.ts';

const info = (...lines: string[]): string => `# Replication\r\n${lines.join('\r\n')}\r\n`;
const replica = (index: number, state: string, lag: number): string =>
  `slave${index}:ip=10.0.0.${index},port=6379,state=${state},offset=56,lag=${lag}`;

describe('what Redis says of itself', () => {
  it('is in order without replicas', () => {
    expect(readFindings(info('role:master', 'connected_slaves:0'))).toEqual({
      role: 'master',
      replicas: 0,
      replicasInStep: 0,
      warnings: [],
    });
  });

  it('counts as in step the replicas that are online and were heard of within ten seconds', () => {
    const text = info(
      'role:master',
      'connected_slaves:4',
      replica(0, 'online', 0),
      replica(1, 'online', 11),
      replica(2, 'wait_bgsave', 0),
      replica(3, 'online', 10),
      'min_slaves_good_slaves:2',
    );
    expect(readFindings(text)).toEqual({ role: 'master', replicas: 4, replicasInStep: 2, warnings: [] });
  });

  it('gives a warning when replicas exist and min-replicas-to-write is 0', () => {
    expect(readFindings(info('role:master', 'connected_slaves:1', replica(0, 'online', 0))).warnings).toEqual([
      expect.stringContaining('set min-replicas-to-write 1'),
    ]);
  });

  it.each([
    ['allkeys-lru', 1_000_000, 1],
    ['volatile-ttl', 1_000_000, 1],
    ['noeviction', 1_000_000, 0],
    ['allkeys-lru', 0, 0],
  ])('with maxmemory-policy %s and maxmemory %i gives %i warnings', (policy, maxmemory, warnings) => {
    const memory = `# Memory\r\nmaxmemory:${maxmemory}\r\nmaxmemory_policy:${policy}\r\n`;
    expect(readFindings(info('role:master', 'connected_slaves:0'), memory).warnings).toHaveLength(warnings);
  });
});
