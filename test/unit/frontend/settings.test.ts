import { describe, expect, it } from 'vitest';
import { type FrontendConfig, type FrontendListener, routingDefaults } from '#frontend/config.ts';
import { Settings } from '#frontend/subset/settings.ts';
import { subset } from './fakes.ts';

const listener = (protocol: FrontendListener['protocol'], more: Partial<FrontendListener> = {}): FrontendListener => ({
  protocol,
  tls: 'none',
  address: '127.0.0.1',
  port: 0,
  allowPlaintextLogin: false,
  ...more,
});
const imap = listener('imap');
const pop3 = listener('pop3', { perAddressMax: 7 });
const smtp = listener('smtp');

function settings(more: Partial<FrontendConfig> = {}, processes = 1): Settings {
  const config: FrontendConfig = {
    role: 'frontend',
    name: 'front1.eu.isp.example',
    subset: 'EU',
    listeners: [imap, pop3, smtp],
    directory: { servers: [], master: '', suffix: 'o=mail', bindDn: '', bindPassword: {}, timeoutMs: 1000 },
    routing: routingDefaults,
    queueDirectory: '/nonexistent',
    ...more,
  };
  return new Settings({ config, processes });
}

describe('settings of a subset', () => {
  it('come from the node file, then from the entry (a protocol’s own first), then from the product', () => {
    const made = settings({ loginTimeoutMs: 5000 });
    expect([made.loginTimeoutMs, made.weight, made.limits(imap).perAddressMax]).toEqual([5000, 100, 100]);
    expect(
      made.take([
        subset(1, 'us', ['weight 1']),
        subset(2, 'eu', ['loginTimeoutMs 9000', 'weight 60', 'perAddressMax 50', 'IMAP.perAddressMax  200', 'routing.masterPerSecond 20']),
      ]),
    ).toEqual([]);
    expect([made.loginTimeoutMs, made.weight, made.masterPerSecond]).toEqual([5000, 60, 20]);
    expect([imap, pop3, smtp].map((one) => made.limits(one).perAddressMax)).toEqual([200, 7, 50]);
    const { entry, settings: shown } = made.report();
    expect(entry).toBe('cn=eu,ou=topology,o=mail');
    expect(shown).toContainEqual({ setting: 'loginTimeoutMs', value: 5000, origin: 'node file' });
    expect(shown).toContainEqual({ setting: 'weight', value: 60, origin: 'subset' });
    expect(shown).toContainEqual({ setting: 'drainMs', value: 1000, origin: 'default' });
    expect(shown).toContainEqual({ setting: 'pop3:0 perAddressMax', value: 7, origin: 'node file' });
    made.take([]);
    expect([made.weight, made.limits(smtp).perAddressMax, made.report().entry]).toEqual([100, 100, undefined]);
  });

  it('set the limits of connections to members, for all services and for one; one that has none shares', () => {
    const made = settings({
      interCluster: { connectionsMax: 4, imap: { sessionsPerConnection: 100, logLevel: 'debug' }, logLevel: 'warn' },
    });
    const nothing = { sessionsPerConnection: 2048, unusedKeptMs: 0 };
    expect(made.links()).toEqual({
      shared: { connectionsMax: 4, ...nothing },
      own: { imap: { connectionsMax: 4, sessionsPerConnection: 100, unusedKeptMs: 0 } },
      logLevels: { shared: 'warn', imap: 'debug' },
    });
    const lines = [
      'interCluster.connectionsMax 16',
      'interCluster.unusedKeptMs 60000',
      'interCluster.LMTP.connectionsMax 2',
      'interCluster.imap.sessionsPerConnection 7',
    ];
    expect(made.take([subset(2, 'eu', lines)])).toEqual([]);
    expect(made.links()).toMatchObject({
      shared: { connectionsMax: 4, sessionsPerConnection: 2048, unusedKeptMs: 60_000 },
      own: {
        imap: { connectionsMax: 4, sessionsPerConnection: 100, unusedKeptMs: 60_000 },
        lmtp: { connectionsMax: 2, sessionsPerConnection: 2048, unusedKeptMs: 60_000 },
      },
    });
    expect(made.report().settings.filter(({ setting }) => setting.startsWith('interCluster'))).toEqual([
      { setting: 'interCluster.connectionsMax', value: 4, origin: 'node file' },
      { setting: 'interCluster.sessionsPerConnection', value: 2048, origin: 'default' },
      { setting: 'interCluster.unusedKeptMs', value: 60_000, origin: 'subset' },
      { setting: 'interCluster.imap.sessionsPerConnection', value: 100, origin: 'node file' },
      { setting: 'interCluster.lmtp.connectionsMax', value: 2, origin: 'subset' },
    ]);
    made.take([]);
    expect(Object.keys(made.links().own)).toEqual(['imap']);
    expect(settings().links()).toEqual({ shared: { connectionsMax: 8, ...nothing }, own: {}, logLevels: {} });
  });

  it('share paces out to the processes of a frontend', () => {
    const made = settings({}, 4);
    made.take([subset(2, 'eu', ['acceptPerSecond 100', 'routing.masterPerSecond 10'])]);
    expect([made.masterPerSecond, made.limits(imap).acceptPerSecond, made.limits(smtp).acceptPerSecond]).toEqual([3, 25, 100]);
  });

  it.each([
    ['weight 150', '150 is too large; at most 100 is expected', 60],
    ['weight 6O', '"6O" is not a whole number', 60],
    ['weight', 'a name, a space and a value are expected, as in "perAddressMax 50"', undefined],
    ['', 'a name, a space and a value are expected, as in "perAddressMax 50"', undefined],
    ['wieght 50', 'the name of a setting is expected; did you mean weight?', undefined],
    ['http.weight 50', 'the name of a setting is expected', undefined],
    ['weight 99999999999999999999', 'is not a whole number', 60],
    ['perAddressMax 0', '0 is too small; at least 1 is expected', 50],
    ['perAddressMax 1\u0000', 'is not a whole number', 50],
    ['interCluster.lmtp.connectionsMax 65', '65 is too large; at most 64 is expected', undefined],
    ['interCluster.connectionsMax 0', '0 is too small; at least 1 is expected', undefined],
    ['interCluster.lmtp.logLevel debug', 'the name of a setting is expected', undefined],
    ['interCluster.ftp.connectionsMax 2', 'the name of a setting is expected; did you mean interCluster.lmtp.connectionsMax?', undefined],
    ['__proto__ 1', 'the name of a setting is expected', undefined],
  ])('refuse %j and say what is expected; the last good value stays, and the rest is taken', (line, expected, stays) => {
    const made = settings();
    made.take([subset(2, 'eu', ['weight 60', 'perAddressMax 50', 'drainMs 1'])]);
    const others = ['weight 60', 'perAddressMax 50'].filter((other) => other.split(' ')[0] !== line.split(' ')[0]);
    const refused = made.take([subset(2, 'eu', [line, ...others, 'drainMs 2'])]);
    expect(refused).toHaveLength(1);
    expect(refused[0]).toMatchObject({ entry: 'cn=eu,ou=topology,o=mail', expected: expect.stringContaining(expected), stays });
    expect(made.drainMs).toBe(2);
    if (line.startsWith('perAddressMax')) expect(made.limits(imap).perAddressMax).toBe(50);
    if (/^weight ./.test(line)) expect(made.weight).toBe(60);
    // Told once, shown for as long as it is so.
    expect(made.take([subset(2, 'eu', [line, ...others, 'drainMs 2'])])).toEqual([]);
    expect(made.report().refused).toHaveLength(1);
    expect(made.take([subset(2, 'eu', ['weight 61'])])).toEqual([]);
    expect([made.weight, made.report().refused]).toEqual([61, []]);
  });

  it('believe neither of two values for one setting, and the first of two entries', () => {
    const made = settings();
    made.take([subset(2, 'eu', ['weight 60'])]);
    expect(made.take([subset(2, 'eu', ['weight 10', 'weight 20'])])).toMatchObject([{ stays: 60 }]);
    expect(made.weight).toBe(60);
    const lying = { ...subset(1, 'eu', ['weight 1']), dn: 'cn=eu,ou=a,o=mail' };
    expect(made.take([lying, subset(2, 'eu', ['weight 30'])])).toMatchObject([{ entry: 'cn=eu,ou=a,o=mail' }]);
    expect(made.weight).toBe(30);
    const endless = Array.from({ length: 1000 }, (_, index) => `weight${index} 1`);
    expect(made.take([subset(2, 'eu', endless)]).length).toBeLessThanOrEqual(201);
  });
});
