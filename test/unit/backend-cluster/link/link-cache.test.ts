import { afterEach, describe, expect, it } from 'vitest';
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { type CacheOwner, LinkCache } from '#backend-cluster/client/link-cache.ts';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import { type LinkConnection, unansweredMax } from '#backend-cluster/client/link-connection.ts';
import { type InterClusterConfig, linkSettingsOf } from '#backend-cluster/client/link-settings.ts';
import { startLinkServer } from '#backend-cluster/link/server.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { parseClusterName, parseMemberName } from '#common/host-server.ts';
import { type Logger, type LogLevel, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import type { Connection, Network } from '#common/network/network.ts';
import { systemRandom } from '#common/random.ts';
import { authenticateMethod, type LinkService, type OpenSession } from '#protocol/link/messages.ts';
import { FakeClock, settle } from '../../../fakes/clock.ts';
import { connectionPair } from '../../../fakes/memory-connection.ts';

const cleanup: (() => unknown)[] = [];
afterEach(async () => {
  for (const undo of cleanup.splice(0).reverse()) await undo();
});

/** Connections in memory, to whatever listens. */
class MemoryNetwork implements Network {
  dialled = 0;
  isDown = false;
  #accept: ((connection: Connection) => void) | undefined;

  async listen(_options: unknown, accept: (connection: Connection) => void) {
    this.#accept = accept;
    return { address: '127.0.0.1', port: 1, close: async () => {} };
  }

  async connect(): Promise<Connection> {
    if (this.isDown) throw new PlatformError('NET_CONNECT_FAILED', 'nobody is there');
    this.dialled += 1;
    const [near, far] = connectionPair();
    this.#accept?.(far);
    return near;
  }
}

interface Line {
  readonly level: string;
  readonly protocol: unknown;
  readonly message: string;
}

/** Lines that a logger of the process's level `info`, or of a level of its own, would write. */
function recordingLog(lines: Line[], level: LogLevel = 'info'): Logger {
  const order = ['trace', 'debug', 'info', 'warn', 'error', 'silent'];
  const at = (name: LogLevel) => (fields: Record<string, unknown>, message: string) => {
    if (order.indexOf(name) >= order.indexOf(level)) lines.push({ level: name, protocol: fields.protocol, message });
  };
  const log: Logger = {
    child: () => log,
    atLevel: (other) => recordingLog(lines, other),
    trace: at('trace'),
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
  };
  return log;
}

async function build(config: InterClusterConfig = {}, isAnswering: () => boolean = () => true) {
  const clock = new FakeClock();
  const network = new MemoryNetwork();
  const metrics = createMetrics();
  const lines: Line[] = [];
  const name = parseMemberName('back1.west.isp.example');
  const server = await startLinkServer({
    name,
    cluster: parseClusterName('west.isp.example'),
    incarnation: 'i1',
    listen: { address: '127.0.0.1', port: 0 },
    tls: undefined,
    clusterNetwork: ['127.0.0.1'],
    clock,
    network,
    log: silentLogger,
    metrics: createMetrics(),
    status: () => ({ sessions: 0, openAccounts: 0, state: 'active' }),
    open: async () => {
      if (!isAnswering()) await new Promise(() => {});
      return {
        answer: { outcome: 'opened', capabilities: [], accountName: 'a@isp.example' },
        serve: (channel) => channel.handle({ data: (chunk) => void channel.write(chunk), close: () => {} }),
      };
    },
    call: async (_peer, method) => method,
  });
  const ports = { clock, random: systemRandom, network, log: recordingLog(lines), metrics };
  const link = createLinkClient({
    name: 'front1.eu.isp.example',
    role: 'frontend',
    tls: undefined,
    settings: linkSettingsOf(config),
    ports,
  });
  cleanup.push(
    () => server.close(),
    () => link[Symbol.asyncDispose](),
  );
  const member: MemberAddress = { name, host: '127.0.0.1', port: 1 };
  return { clock, network, metrics, lines, link, member, server };
}

function requestOf(service: LinkService): OpenSession {
  return { service, sessionId: 's1', client: { address: '192.0.2.1', port: 1, tls: true }, from: 'front1.eu.isp.example', hops: 0 };
}

/** Opens so many, one after the other; a connection that is dialled beside is there when the next one comes. */
async function open(link: LinkClient, member: MemberAddress, count: number, service: LinkService = 'imap'): Promise<Connection[]> {
  const channels: Connection[] = [];
  for (let index = 0; index < count; index += 1) {
    const { channel } = await link.openSession(member, requestOf(service));
    if (channel === undefined) throw new Error('expected a channel');
    channel.handle({ data: () => {}, close: () => {} });
    channels.push(channel);
    await settle();
  }
  return channels;
}

function useOf(link: LinkClient, service: string) {
  return link.use().find((use) => use.service === service);
}

describe('connections to a member', () => {
  it('are one for 2,048 sessions of all services, and stay, where nothing is set', async () => {
    const { link, member, network, clock } = await build();
    const channels = await open(link, member, 1);
    await open(link, member, 2, 'pop3');
    await link.call(member, 'status', {});
    channels.push(...(await open(link, member, 2_045)));
    expect(network.dialled).toBe(1);
    await open(link, member, 2);
    expect(network.dialled).toBe(2);
    for (const channel of channels) channel.destroy();
    await clock.advance(600_000);
    expect(useOf(link, 'imap')).toMatchObject({ isShared: true, connections: 2, misses: 1 });
  });

  it('are dialled while one is busy, for those who come next, up to the most that there may be', async () => {
    const { link, member, network } = await build({ connectionsMax: 3, sessionsPerConnection: 2 });
    await open(link, member, 20);
    expect(network.dialled).toBe(3);
    // Nobody but the first has waited.
    expect(useOf(link, 'imap')).toEqual({
      member: member.name,
      service: 'imap',
      isShared: true,
      connections: 3,
      sessions: 20,
      hits: 19,
      misses: 1,
      refused: 0,
    });
  });

  it('are as many for calls under way as for sessions', async () => {
    const { link, member, network } = await build({ calls: { connectionsMax: 2, sessionsPerConnection: 1 } });
    await link.call(member, 'status', {});
    await Promise.all([1, 2, 3].map(() => link.call(member, 'status', {})));
    await settle();
    expect(network.dialled).toBe(2);
    expect(useOf(link, 'calls')).toMatchObject({ isShared: false, connections: 2, hits: 3, misses: 1 });
  });

  it('refuse for the time being what none of them has room for, name the option, and say so once a minute', async () => {
    let isAnswering = false;
    const { link, member, lines, network, metrics } = await build({ imap: { connectionsMax: 1 } }, () => isAnswering);
    const waiting = Array.from({ length: unansweredMax }, () => link.openSession(member, requestOf('imap')));
    for (const one of waiting) one.catch(() => {});
    await settle();
    for (let index = 0; index < 3; index += 1) {
      await expect(link.openSession(member, requestOf('imap'))).rejects.toMatchObject({
        code: 'LIMIT_CONNECTIONS',
        kind: 'limit',
        message: expect.stringContaining('interCluster.imap.connectionsMax allows no more'),
      });
    }
    expect(lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
    // Others have connections of their own, and go on.
    isAnswering = true;
    await open(link, member, 1, 'pop3');
    expect(network.dialled).toBe(2);
    expect(useOf(link, 'imap')).toMatchObject({ isShared: false, connections: 1, refused: 3 });
    const shown = await metrics.render();
    expect(shown).toContain('archipelago_link_asked_total{peer="back1.west.isp.example",protocol="imap",outcome="refused"} 3');
    expect(shown).toContain('archipelago_link_asked_total{peer="back1.west.isp.example",protocol="pop3",outcome="miss"} 1');
    expect(shown).toContain('archipelago_link_connections{peer="back1.west.isp.example",connections_of="imap"} 1');
    expect(shown).toContain('archipelago_link_connections{peer="back1.west.isp.example",connections_of="shared"} 1');
    // Counted once, however often it is looked at.
    expect(await metrics.render()).toBe(shown);
  });

  it('are closed when nothing has used them for so long, but for the oldest', async () => {
    const { link, member, clock, metrics } = await build({ sessionsPerConnection: 1, connectionsMax: 3, unusedKeptMs: 10_000 });
    const channels = await open(link, member, 5);
    expect(useOf(link, 'imap')).toMatchObject({ connections: 3, sessions: 5 });
    const [stays, ...others] = channels;
    for (const channel of others) channel.destroy();
    await clock.advance(9_000);
    expect(useOf(link, 'imap')?.connections).toBe(3);
    await clock.advance(10_000);
    expect(useOf(link, 'imap')).toMatchObject({ connections: 1, sessions: 1 });
    const heard: string[] = [];
    stays?.handle({ data: (chunk) => void heard.push(String(chunk)), close: () => {} });
    stays?.write('NOOP');
    await settle();
    expect(heard).toEqual(['NOOP']);
    stays?.destroy();
    await clock.advance(60_000);
    expect(useOf(link, 'imap')).toMatchObject({ connections: 1, sessions: 0 });
    expect(link.health(member).state).toBe('up');
    expect(await metrics.render()).toContain(
      'archipelago_link_unused_closed_total{peer="back1.west.isp.example",connections_of="shared"} 2',
    );
  });

  it('are filled from the oldest on where unused ones are closed, so that the rest falls out of use while sessions come and go', async () => {
    const { link, member, clock } = await build({ sessionsPerConnection: 2, connectionsMax: 2, unusedKeptMs: 4_000 });
    const [stays, ...first] = await open(link, member, 4);
    expect(useOf(link, 'imap')?.connections).toBe(2);
    for (const channel of first) channel.destroy();
    for (let second = 0; second < 8; second += 1) {
      const [channel] = await open(link, member, 1);
      await clock.advance(1_000);
      channel?.destroy();
    }
    expect(useOf(link, 'imap')).toMatchObject({ connections: 1, sessions: 1 });
    stays?.destroy();
  });

  it('are kept while short sessions come, though none is there whenever it is looked', async () => {
    const { link, member, clock, network } = await build({ sessionsPerConnection: 1, connectionsMax: 2, unusedKeptMs: 4_000 });
    const [, second] = await open(link, member, 2);
    second?.destroy();
    for (let times = 0; times < 10; times += 1) {
      const [short] = await open(link, member, 1);
      short?.destroy();
      await clock.advance(1_500);
    }
    expect(useOf(link, 'imap')?.connections).toBe(2);
    expect(network.dialled).toBe(2);
  });

  it('make room for another when their numbers are used up, and are closed with their last session', async () => {
    const clock = new FakeClock();
    const made: { hasRoom: boolean; isSpent: boolean; inUse: number; close(): void; isClosed: boolean }[] = [];
    const owner: CacheOwner = {
      member: { name: parseMemberName('back1.west.isp.example'), host: '127.0.0.1', port: 1 },
      clock,
      barred: () => undefined,
      reached: () => {},
      failed: () => {},
      connect: async (to) => {
        const link = {
          hasRoom: true,
          isSpent: false,
          inUse: 1,
          isClosed: false,
          close() {
            this.isClosed = true;
          },
        };
        made.push(link);
        to.add(link as unknown as LinkConnection);
        return link as unknown as LinkConnection;
      },
    };
    const cache = new LinkCache('shared', owner, { connectionsMax: 1, sessionsPerConnection: 10, unusedKeptMs: 0 }, silentLogger);
    await cache.another();
    const [spent] = made;
    if (spent === undefined) throw new Error('expected a connection');
    spent.hasRoom = false;
    await expect(cache.another()).rejects.toMatchObject({ code: 'LIMIT_CONNECTIONS' });
    spent.isSpent = true;
    expect(cache.best()).toBeUndefined();
    expect(await cache.another()).toBe(made[1]);
    await clock.advance(5_000);
    expect([spent.isClosed, cache.connections]).toEqual([false, 2]);
    spent.inUse = 0;
    await clock.advance(1_000);
    expect([spent.isClosed, cache.connections]).toEqual([true, 1]);
  });

  it('are never all closed, however long nobody comes', async () => {
    const { link, member, clock, network } = await build({ sessionsPerConnection: 1, connectionsMax: 3, unusedKeptMs: 1_000 });
    for (const channel of await open(link, member, 4)) channel.destroy();
    await clock.advance(20_000);
    expect(useOf(link, 'imap')).toMatchObject({ connections: 1, sessions: 0 });
    await open(link, member, 1);
    expect(network.dialled).toBe(3);
    expect(useOf(link, 'imap')?.misses).toBe(1);
  });
});

describe('services on the link', () => {
  it('have connections of their own when a limit is set for them, and only then', async () => {
    const { link, member, network } = await build({
      lmtp: { connectionsMax: 1 },
      submission: { unusedKeptMs: 1_000 },
      pop3: { logLevel: 'debug' },
      sessionsPerConnection: 1,
      connectionsMax: 2,
    });
    await open(link, member, 5, 'lmtp');
    expect(network.dialled).toBe(1);
    await open(link, member, 3);
    await open(link, member, 3, 'pop3');
    expect(network.dialled).toBe(3);
    await link.call(member, authenticateMethod, {});
    expect(network.dialled).toBe(4);
    await link.call(member, 'sessions.bye', {});
    expect(network.dialled).toBe(4);
    expect(link.use().map(({ service, isShared, connections }) => [service, isShared, connections])).toEqual([
      ['lmtp', false, 1],
      ['imap', true, 2],
      ['pop3', true, 2],
      ['submission', false, 1],
      ['calls', true, 2],
    ]);
  });

  it('go over to other limits at once; what is under way stays where it is to its end', async () => {
    const { link, member, clock } = await build({ sessionsPerConnection: 1, connectionsMax: 4 });
    const channels = await open(link, member, 6);
    expect(useOf(link, 'imap')).toMatchObject({ isShared: true, connections: 4 });
    link.configure(linkSettingsOf({ connectionsMax: 2 }));
    const more = await open(link, member, 8);
    expect(useOf(link, 'imap')).toMatchObject({ connections: 4, sessions: 14 });
    await clock.advance(5_000);
    const heard: string[] = [];
    for (const channel of channels) {
      channel.handle({ data: (chunk) => void heard.push(String(chunk)), close: () => heard.push('closed') });
      channel.write('NOOP');
    }
    await settle();
    expect(heard).toEqual(Array.from({ length: 6 }, () => 'NOOP'));
    for (const channel of [...channels, ...more]) channel.destroy();
    await clock.advance(5_000);
    expect(useOf(link, 'imap')).toMatchObject({ connections: 2, sessions: 0 });
    // Now it has its own, and those that nobody shares any more are given up.
    link.configure(linkSettingsOf({ imap: { connectionsMax: 1 } }));
    await open(link, member, 2);
    await clock.advance(5_000);
    expect(useOf(link, 'imap')).toMatchObject({ isShared: false, connections: 1, sessions: 2 });
    link.configure(linkSettingsOf());
    await open(link, member, 1);
    expect(useOf(link, 'imap')).toMatchObject({ isShared: true, connections: 1, sessions: 1 });
  });

  it('are told when limits change while a connection is being made, and lose nothing', async () => {
    const { link, member, network } = await build();
    const opening = link.openSession(member, requestOf('imap'));
    link.configure(linkSettingsOf({ imap: { connectionsMax: 1 } }));
    const { channel } = await opening;
    const heard: string[] = [];
    channel?.handle({ data: (chunk) => void heard.push(String(chunk)), close: () => {} });
    channel?.write('NOOP');
    await open(link, member, 1);
    expect(network.dialled).toBe(2);
    expect(heard).toEqual(['NOOP']);
  });

  it('are left alone together while their member cannot be reached', async () => {
    const { link, member, network } = await build({ lmtp: { connectionsMax: 1 } });
    network.isDown = true;
    await expect(link.openSession(member, requestOf('imap'))).rejects.toThrow('nobody is there');
    expect(link.health(member).state).toBe('down');
    network.isDown = false;
    // Old news, and not dialled for each of them.
    await expect(link.openSession(member, requestOf('lmtp'))).rejects.toThrow('nobody is there');
    expect(network.dialled).toBe(0);
  });

  it('come back on connections of their own after their member was away', async () => {
    const { link, member, clock, server, network } = await build({ lmtp: { connectionsMax: 1 } });
    await open(link, member, 1);
    await open(link, member, 1, 'lmtp');
    server.kill();
    await settle();
    await clock.advance(5_000);
    expect(useOf(link, 'lmtp')?.connections).toBe(1);
    expect(link.health(member).state).toBe('up');
    await open(link, member, 1);
    expect(network.dialled).toBe(4);
  });
});

describe('the log of the link', () => {
  it('has what is worth a look for all services at the process’s level, and more of one that is asked for', async () => {
    const { link, member, lines } = await build({ lmtp: { connectionsMax: 1, logLevel: 'trace' }, calls: { logLevel: 'debug' } });
    await open(link, member, 2);
    await link.call(member, 'status', {});
    expect(lines).toEqual([]);
    await open(link, member, 1, 'lmtp');
    expect(lines).toEqual([
      { level: 'debug', protocol: 'lmtp', message: 'link connection to back1.west.isp.example made' },
      { level: 'trace', protocol: 'lmtp', message: 'back1.west.isp.example was reached over the link' },
      { level: 'trace', protocol: 'lmtp', message: 'back1.west.isp.example answered over the link' },
    ]);
  });

  it('has what a service could not ask where its level is debug, though its connections are those of all', async () => {
    const { link, member, lines, network } = await build({ calls: { logLevel: 'debug' } });
    network.isDown = true;
    await expect(link.openSession(member, requestOf('imap'))).rejects.toThrow('nobody is there');
    expect(lines).toEqual([]);
    await expect(link.call(member, 'status', {})).rejects.toThrow('nobody is there');
    expect(lines).toEqual([
      { level: 'debug', protocol: 'calls', message: 'back1.west.isp.example could not be asked over the link: nobody is there' },
    ]);
  });

  it('is silent where that is asked for', async () => {
    const { link, member, lines, server, clock } = await build({ logLevel: 'silent', imap: { logLevel: 'info' } });
    await open(link, member, 1);
    server.kill();
    await settle();
    await clock.advance(1_000);
    expect(lines).toEqual([]);
  });
});
