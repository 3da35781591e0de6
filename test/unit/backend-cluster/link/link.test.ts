import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import { type LinkServer, type LinkServerOptions, startLinkServer } from '#backend-cluster/link/server.ts';
import { systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { parseClusterName, parseMemberName } from '#common/host-server.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import type { Connection } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import type { OpenSession } from '#protocol/link/messages.ts';

const ports = { clock: systemClock, random: systemRandom, network: systemNetwork, log: silentLogger };
const session: OpenSession = {
  service: 'imap',
  sessionId: 's1',
  client: { address: '192.0.2.1', port: 1234, tls: true },
  from: 'front1.eu.isp.example',
  hops: 0,
};
const cleanup: (() => unknown)[] = [];
afterEach(async () => {
  for (const undo of cleanup.splice(0).reverse()) await undo();
});

async function serve(options: Partial<LinkServerOptions> = {}): Promise<{ server: LinkServer; member: MemberAddress; client: LinkClient }> {
  const name = parseMemberName('back1.west.isp.example');
  const server = await startLinkServer({
    name,
    cluster: parseClusterName('west.isp.example'),
    incarnation: 'i1',
    listen: { address: '127.0.0.1', port: 0 },
    tls: undefined,
    clusterNetwork: ['127.0.0.1'],
    clock: systemClock,
    network: systemNetwork,
    log: silentLogger,
    metrics: createMetrics(),
    status: () => ({ sessions: 3, openAccounts: 2, state: 'active' }),
    open: async () => ({ answer: { outcome: 'opened', capabilities: ['IDLE'], accountName: 'a@isp.example' }, serve: echo }),
    call: async (_peer, method, params) => ({ method, params }),
    ...options,
  });
  cleanup.push(() => server.close());
  const client = createLinkClient({ name: 'front1.eu.isp.example', role: 'frontend', tls: undefined, ports });
  cleanup.push(() => client[Symbol.asyncDispose]());
  return { server, member: { name, host: '127.0.0.1', port: server.port }, client };
}

/** Sends back what comes, with back-pressure, and half-closes when the peer does. */
function echo(channel: Connection): void {
  channel.handle({
    data: (chunk) => {
      if (!channel.write(chunk)) channel.pause();
    },
    drain: () => channel.resume(),
    end: () => channel.end(),
    close: () => {},
  });
}

function collect(channel: Connection): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    channel.handle({
      data: (chunk) => void chunks.push(chunk),
      close: (error) => (error === undefined ? resolve(Buffer.concat(chunks)) : reject(error)),
    });
  });
}

async function opened(client: LinkClient, member: MemberAddress, sessionId = 's1'): Promise<Connection> {
  const { channel } = await client.openSession(member, { ...session, sessionId });
  if (channel === undefined) throw new Error('expected a channel');
  return channel;
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 8_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error('the condition did not come true in time');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('sessions on the link', () => {
  it('carry bytes both ways far beyond the credit window, and half-close', async () => {
    const { client, member } = await serve();
    const channel = await opened(client, member);
    const sent = randomBytes(3_000_000);
    const received = collect(channel);
    channel.write(sent);
    channel.end();
    expect((await received).equals(sent)).toBe(true);
  });

  it('hold back a writer whose peer does not read, while another session on the same connection goes on', async () => {
    const served: Connection[] = [];
    const { client, member } = await serve({
      open: async (_peer, request) => ({
        answer: { outcome: 'opened', capabilities: [], accountName: 'a@isp.example' },
        serve: (channel) => {
          served.push(channel);
          if (request.sessionId !== 'bulk') echo(channel);
        },
      }),
    });
    const slow = await opened(client, member, 'bulk');
    let read = 0;
    slow.handle({
      data: (chunk) => {
        read += chunk.length;
      },
      close: () => {},
    });
    slow.pause();
    const bulk = served[0] as Connection;
    bulk.handle({ data: () => {}, close: () => {} });
    expect(bulk.write(Buffer.alloc(8_000_000))).toBe(false);
    for (let i = 0; i < 50; i += 1) {
      const quick = await opened(client, member, `quick${i}`);
      const answer = collect(quick);
      quick.write('NOOP\r\n');
      quick.end();
      expect((await answer).toString()).toBe('NOOP\r\n');
    }
    expect(bulk.bufferedBytes).toBe(8_000_000 - 65_536);
    const drained = new Promise<void>((resolve) => bulk.handle({ data: () => {}, drain: resolve, close: () => {} }));
    slow.resume();
    await drained;
    await until(() => read === 8_000_000);
    slow.destroy();
  });

  it('end on both sides when either drops them, after what was sent before', async () => {
    const { client, member } = await serve({
      open: async () => ({
        answer: { outcome: 'opened', capabilities: [], accountName: 'a@isp.example' },
        serve: (channel) => {
          channel.handle({ data: () => {}, close: () => {} });
          channel.write('* BYE\r\n');
          channel.destroy();
        },
      }),
    });
    const channel = await opened(client, member);
    expect((await collect(channel)).toString()).toBe('* BYE\r\n');
  });

  it('end with an error when the member dies, and the member counts as down', async () => {
    const { client, member, server } = await serve();
    const channel = await opened(client, member);
    const ending = collect(channel);
    server.kill();
    await expect(ending).rejects.toMatchObject({ code: 'NET_CLOSED' });
    await expect(client.call(member, 'x', {})).rejects.toMatchObject({ kind: 'unavailable' });
    expect(client.health(member).state).toBe('down');
  });

  it('pass refusals and redirects on as they were said', async () => {
    const { client, member } = await serve({
      open: async (_peer, request) => {
        if (request.sessionId === 'moved') return { answer: { outcome: 'moved', hostServer: 'east.isp.example' } };
        throw new PlatformError('CLUSTER_NO_CONTROLLER', 'nobody leads');
      },
    });
    expect((await client.openSession(member, { ...session, sessionId: 'moved' })).answer).toEqual({
      outcome: 'moved',
      hostServer: 'east.isp.example',
    });
    expect((await client.openSession(member, session)).answer).toMatchObject({ outcome: 'refused', code: 'CLUSTER_NO_CONTROLLER' });
    expect((await client.openSession(member, { ...session, hops: 4 })).answer).toMatchObject({ outcome: 'refused', code: 'ROUTE_LOOP' });
  });
});

describe('calls and state on the link', () => {
  it('bring results and the member’s own errors', async () => {
    const { client, member } = await serve({
      call: async (peer, method, params) => {
        if (method === 'fail') throw new PlatformError('ACCT_EXISTS', 'alice is there already');
        return { role: peer.role, params };
      },
    });
    expect(await client.call(member, 'ask', { a: 1 })).toEqual({ role: 'frontend', params: { a: 1 } });
    await expect(client.call(member, 'fail', {})).rejects.toMatchObject({ code: 'ACCT_EXISTS', message: 'alice is there already' });
  });

  it('tell load and draining', async () => {
    let state: 'active' | 'draining' = 'active';
    const { client, member, server } = await serve({ status: () => ({ sessions: 3, openAccounts: 2, state }) });
    expect(client.health(member).state).toBe('unknown');
    await client.call(member, 'x', {});
    expect(client.health(member)).toMatchObject({ state: 'up' });
    expect(client.health(member).load).toBeGreaterThanOrEqual(5);
    state = 'draining';
    server.announce();
    await until(() => client.health(member).state === 'draining');
  });

  it('refuse another member than the one that was meant', async () => {
    const { client, member } = await serve();
    const wrong = { ...member, name: parseMemberName('back9.west.isp.example') };
    await expect(client.call(wrong, 'x', {})).rejects.toMatchObject({ code: 'LINK_REFUSED' });
  });
});

describe('strangers on the link', () => {
  function recordingLog(lines: string[]): Logger {
    const log: Logger = { ...silentLogger, child: () => log, warn: (_fields, message) => void lines.push(message) };
    return log;
  }

  function gone(connection: Connection): Promise<Buffer> {
    return new Promise((resolve) => {
      const chunks: Buffer[] = [];
      connection.handle({ data: (chunk) => void chunks.push(chunk), close: () => resolve(Buffer.concat(chunks)) });
    });
  }

  it('are cut off at the first garbage, named in the log once a minute, and disturb nobody', async () => {
    const lines: string[] = [];
    const { client, member, server } = await serve({ log: recordingLog(lines) });
    const channel = await opened(client, member);
    for (let i = 0; i < 3; i += 1) {
      const stranger = await systemNetwork.connect({ host: '127.0.0.1', port: server.port });
      stranger.write('GET / HTTP/1.1\r\n\r\n');
      await gone(stranger);
    }
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('refused');
    const answer = collect(channel);
    channel.write('still here');
    channel.end();
    expect((await answer).toString()).toBe('still here');
  });

  it('are named once a minute when they speak for a Controller that was replaced', async () => {
    const lines: string[] = [];
    const call = async (): Promise<never> => {
      throw new PlatformError('CLUSTER_STALE_TERM', 'a message of term 3 came, and term 4 is accepted here');
    };
    const { client, member } = await serve({ log: recordingLog(lines), call });
    for (let i = 0; i < 3; i += 1)
      await expect(client.call(member, 'cluster.ping', {})).rejects.toMatchObject({ code: 'CLUSTER_STALE_TERM' });
    expect(lines).toEqual(['request from front1.eu.isp.example refused: a message of term 3 came, and term 4 is accepted here']);
  });

  it('are refused when their address is not in the Cluster Network', async () => {
    const { client, member } = await serve({ clusterNetwork: ['192.0.2.0/24'] });
    await expect(client.call(member, 'x', {})).rejects.toMatchObject({ kind: 'unavailable' });
  });

  it('learn why when their version is too old or too new', async () => {
    const { server } = await serve();
    const stranger = await systemNetwork.connect({ host: '127.0.0.1', port: server.port });
    const hello = Buffer.from(
      JSON.stringify({
        magic: 'archipelago-link',
        versionMin: 90,
        versionMax: 91,
        role: 'frontend',
        name: 'f.eu.isp.example',
        incarnation: 'x',
      }),
    );
    stranger.write(Buffer.concat([Buffer.from([0, 0, hello.length, 1, 0, 0, 0, 0]), hello]));
    expect((await gone(stranger)).toString()).toContain('90 to 91');
  });
});
