import { describe, expect, it } from 'vitest';
import { parseRedisUrl } from '#backend-cluster/coordination/redis/endpoint.ts';

const plain = { masterName: undefined, username: undefined, database: 0, isTls: false };

describe('the URL of a Redis', () => {
  it.each([
    ['redis://cache.isp.example', { ...plain, kind: 'single', addresses: [{ host: 'cache.isp.example', port: 6379 }] }],
    [
      'rediss://mail@[2001:db8::1]:6380/3',
      { kind: 'single', addresses: [{ host: '2001:db8::1', port: 6380 }], username: 'mail', database: 3, isTls: true },
    ],
    [
      'redis-sentinel://s1.isp.example,s2.isp.example:26380/mymaster',
      {
        ...plain,
        kind: 'sentinel',
        masterName: 'mymaster',
        addresses: [
          { host: 's1.isp.example', port: 26_379 },
          { host: 's2.isp.example', port: 26_380 },
        ],
      },
    ],
    [
      'redis-cluster://10.0.0.1:7000,10.0.0.2:7000',
      {
        ...plain,
        kind: 'cluster',
        addresses: [
          { host: '10.0.0.1', port: 7000 },
          { host: '10.0.0.2', port: 7000 },
        ],
      },
    ],
    ['rediss-sentinel://a%40b@s1/m', { kind: 'sentinel', username: 'a@b', isTls: true, masterName: 'm' }],
  ])('%s names what it says', (url, expected) => {
    expect(parseRedisUrl(url)).toMatchObject(expected);
  });

  it.each([
    ['http://cache.isp.example', /is not a URL of the form redis:\/\/host:port/],
    ['redis://', /is not a URL/],
    ['redis://a,b', /several servers; use redis-sentinel/],
    ['redis://cache:0', /not host:port: "cache:0"/],
    ['redis://cache:70000', /not host:port/],
    ['redis://cache/mail', /not the number of a database/],
    ['redis://100%@cache', /holds a %/],
    ['redis-sentinel://s1,s2', /does not end in the name/],
    ['redis-cluster://c1/2', /a Redis Cluster has none/],
    [`redis-cluster://${Array.from({ length: 33 }, (_, i) => `c${i}`).join(',')}`, /at most 32/],
  ])('%s is refused as a mistake in the configuration', (url, expected) => {
    expect(() => parseRedisUrl(url)).toThrow(expected);
    expect(() => parseRedisUrl(url)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });

  it('holds no password, and one that does is not repeated', () => {
    expect(() => parseRedisUrl('redis://mail:hunter2@cache')).toThrow(/coordinator\.password/);
    for (const url of ['redis://mail:hunter2@cache', 'redis//mail:hunter2@cache']) {
      expect(() => parseRedisUrl(url)).toThrow(expect.objectContaining({ message: expect.not.stringContaining('hunter2') }));
    }
  });

  it('is shown without the user', () => {
    expect(parseRedisUrl('rediss://mail@cache:6380/3').label).toBe('rediss://cache:6380/3');
  });
});
