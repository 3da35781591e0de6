/**
 * A whole frontend on loopback sockets, with a real link to a real link server; the directory is told what to say.
 */

import { once } from 'node:events';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import { startLinkServer } from '#backend-cluster/link/server.ts';
import { systemClock } from '#common/clock.ts';
import { parseClusterName, parseMemberName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import type { Connection } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { systemPorts } from '#common/system-ports.ts';
import { createThrowawayCa, type IssuedCertificate } from '#deploy/dev/throwaway-ca.ts';
import type { DirectoryChange, FollowerStatus } from '#directory/client/directory.ts';
import { type FrontendConfig, routingDefaults } from '#frontend/config.ts';
import { noMail } from '#frontend/listeners/smtp-contract.ts';
import { type RunningFrontend, startFrontendService } from '#frontend/service.ts';
import type { ChangingTls } from '#frontend/tls/frontend-tls.ts';
import { account, cluster, domain, FakeDirectory, subset, uuidOf } from './fakes.ts';

let certificate: IssuedCertificate;
let ca: string;
beforeAll(async () => {
  const authority = await createThrowawayCa(systemClock, systemRandom);
  ca = authority.certificate;
  certificate = await authority.issue(['localhost']);
});

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

interface World {
  readonly frontend: RunningFrontend;
  readonly directory: FakeDirectory;
  readonly followed: { status: FollowerStatus; change(change: DirectoryChange): void };
  port(index: number): number;
}

const calls: { method: string; params: unknown }[] = [];

async function start(
  options: {
    serve?: (channel: Connection) => void;
    drainMs?: number;
    through?: (port: number) => Promise<number>;
    tls?: Partial<ChangingTls>;
  } = {},
): Promise<World> {
  const ports: Ports = systemPorts(silentLogger);
  const member = await startLinkServer({
    name: parseMemberName('back1.west.isp.example'),
    cluster: parseClusterName('west.isp.example'),
    incarnation: 'i1',
    listen: { address: '127.0.0.1', port: 0 },
    tls: undefined,
    clusterNetwork: ['127.0.0.1'],
    clock: systemClock,
    network: systemNetwork,
    log: silentLogger,
    metrics: ports.metrics,
    status: () => ({ sessions: 0, openAccounts: 0, state: 'active' }),
    open: async (_peer, request) =>
      request.login?.mechanism === 'PLAIN' && request.login.password === 'wonderland'
        ? {
            answer: { outcome: 'opened', capabilities: ['IMAP4rev1'], accountName: request.account?.name ?? '' },
            serve: options.serve ?? echo,
          }
        : { answer: { outcome: 'refused', code: 'AUTH_FAILED', kind: 'auth', message: 'wrong' } },
    call: async (_peer, method, params) => {
      calls.push({ method, params });
      return { ended: false };
    },
  });
  undo.push(() => member.close());
  const west = {
    ...cluster(2, 'west.isp.example', []),
    members: [
      { name: parseMemberName('back1.west.isp.example'), host: '127.0.0.1', port: (await options.through?.(member.port)) ?? member.port },
    ],
  };
  const directory = new FakeDirectory();
  const status: FollowerStatus = {
    server: 'ldap://subset',
    state: 'following',
    refreshedOnce: true,
    silentMs: 0,
    changes: 0,
    lastError: undefined,
  };
  const followed: { status: FollowerStatus; change(change: DirectoryChange): void } = { status, change: () => {} };
  const listener = { address: '127.0.0.1', port: 0, connectionsMax: 100, allowPlaintextLogin: false };
  const config: FrontendConfig = {
    role: 'frontend',
    name: 'front1.eu.isp.example',
    subset: 'eu',
    defaultDomain: 'isp.example',
    listeners: [
      { ...listener, protocol: 'imap', tls: 'starttls' },
      { ...listener, protocol: 'imap', tls: 'implicit' },
      { ...listener, protocol: 'http', tls: 'none' },
      { ...listener, protocol: 'pop3', tls: 'starttls' },
      { ...listener, protocol: 'agent', tls: 'none' },
    ],
    directory: { servers: ['ldap://subset'], master: 'ldap://master', suffix: 'o=mail', bindDn: '', bindPassword: {}, timeoutMs: 1000 },
    queueDirectory: '/nonexistent',
    messageBytesMax: 1_000_000,
    routing: routingDefaults,
    drainMs: options.drainMs ?? 1000,
  };
  const frontend = await startFrontendService(
    config,
    { cert: certificate.certificate, key: certificate.key, ...options.tls },
    {
      link: createLinkClient({ name: config.name, role: 'frontend', tls: undefined, ports }),
      reader: directory,
      snapshots: undefined,
      foreign: { settings: new Map(), verifyPassword: async () => false },
      follow: (routes) => {
        const onChange = (change: DirectoryChange): void => routes.apply(change);
        followed.change = onChange;
        for (const record of [domain(1, 'isp.example'), west, account(10, 'alice@isp.example', 'west.isp.example')])
          onChange({ type: 'put', record });
        onChange({ type: 'refreshed', cookie: undefined });
        return {
          status: () => followed.status,
          position: () => undefined,
          refresh: () => {},
          whenRefreshed: async () => {},
          [Symbol.asyncDispose]: async () => {},
        };
      },
      startSmtp: async () => noMail,
    },
    ports,
  );
  undo.push(() => frontend[Symbol.asyncDispose]());
  return { frontend, directory, followed, port: (index) => frontend.status().listeners[index]?.port ?? 0 };
}

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

/** A client's socket with what it has received. */
class Wire {
  readonly socket: Socket;
  text = '';
  isClosed = false;
  #changed = Promise.withResolvers<void>();

  constructor(socket: Socket) {
    this.socket = socket;
    undo.push(() => socket.destroy());
    const wake = (): void => {
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    };
    socket.on('data', (chunk) => {
      this.text += chunk.toString('latin1');
      wake();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
      wake();
    });
  }

  async until(what: string | (() => boolean)): Promise<string> {
    const isThere = typeof what === 'string' ? () => this.text.includes(what) : what;
    while (!isThere()) await this.#changed.promise;
    const { text } = this;
    this.text = '';
    return text;
  }

  async secure(): Promise<Wire> {
    this.socket.removeAllListeners('data');
    const secure = connectTls({ socket: this.socket, ca, servername: 'localhost' });
    await new Promise((resolve, reject) => secure.once('secureConnect', () => resolve(undefined)).once('error', reject));
    return new Wire(secure);
  }
}

function dial(port: number): Wire {
  return new Wire(connectTcp({ host: '127.0.0.1', port }));
}

describe('a frontend on real sockets', () => {
  it('logs in over STARTTLS, relays, and forgets what was sent in clear after the command', async () => {
    const { port } = await start();
    const clear = dial(port(0));
    await clear.until('ready\r\n');
    clear.socket.write('a STARTTLS\r\nb LOGIN alice wonderland\r\n');
    await clear.until('a OK Begin TLS\r\n');
    const wire = await clear.secure();
    wire.socket.write('c LOGIN alice wonderland\r\nd ECHO\r\n');
    expect(await wire.until('d ECHO\r\n')).toBe('c OK [CAPABILITY IMAP4rev1] Logged in\r\nd ECHO\r\n');
  });

  it('serves TLS from the first byte, and shows the session and its bytes', async () => {
    const { port, frontend } = await start();
    const wire = await dial(port(1)).secure();
    await wire.until('ready\r\n');
    wire.socket.write('a LOGIN alice wonderland\r\n');
    await wire.until('Logged in\r\n');
    wire.socket.write('x'.repeat(1000));
    await wire.until(() => wire.text.length === 1000);
    expect(frontend.status()).toMatchObject({
      state: 'ready',
      sessions: [
        { account: 'alice@isp.example', cluster: 'west.isp.example', member: 'back1.west.isp.example', bytesIn: 1000, bytesOut: 1000 },
      ],
      logins: { ok: 1, failed: 0, refused: 0 },
      clusters: [{ name: 'west.isp.example', members: [{ state: 'up' }] }],
    });
    expect(frontend.status().listeners.map(({ protocol, sessions }) => `${protocol} ${sessions}`)).toEqual([
      'imap 0',
      'imap 1',
      'http 0',
      'pop3 0',
      'agent 0',
    ]);
    expect(frontend.readiness().every(({ ok }) => ok)).toBe(true);
  });

  it('says goodbye to the sessions of a link that is cut, and serves whoever comes next by another one', async () => {
    const carried = new Set<Socket>();
    const { port } = await start({
      through: async (memberPort) => {
        const wire = createServer((near) => {
          const far = connectTcp({ host: '127.0.0.1', port: memberPort });
          for (const [from, to] of [
            [near, far],
            [far, near],
          ] as const) {
            carried.add(from);
            from.on('error', () => {});
            from.once('close', () => to.destroy());
            from.pipe(to);
          }
        });
        undo.push(() => {
          for (const socket of carried) socket.destroy();
          wire.close();
        });
        wire.listen(0, '127.0.0.1');
        await once(wire, 'listening');
        return (wire.address() as { port: number }).port;
      },
    });
    const [imap, pop3] = [dial(port(0)), dial(port(3))];
    imap.socket.write('a LOGIN alice wonderland\r\n');
    await imap.until('Logged in\r\n');
    pop3.socket.write('USER alice\r\nPASS wonderland\r\n');
    await pop3.until('Logged in\r\n');
    for (const socket of carried) socket.resetAndDestroy();
    await imap.until('* BYE [UNAVAILABLE]');
    await Promise.all([imap, pop3].map((wire) => wire.until(() => wire.isClosed)));
    // Until the member has been probed back in, what is said is temporary.
    let answer = '';
    while (!answer.includes('Logged in')) {
      const next = dial(port(0));
      await next.until('ready\r\n');
      next.socket.write('a LOGIN alice wonderland\r\n');
      answer = await next.until('\r\n');
      expect(answer).toMatch(/^a (?:OK|NO \[UNAVAILABLE\])/);
      // Or there would be more of them than one address may have.
      next.socket.end('b LOGOUT\r\n');
      await next.until(() => next.isClosed);
    }
  });

  it('carries megabytes to a slow reader whole', async () => {
    const size = 12_000_000;
    const { port } = await start({
      serve: (channel) => {
        let left = size;
        const pump = (): void => {
          while (left > 0) {
            const chunk = Buffer.alloc(Math.min(left, 100_000), 'x');
            left -= chunk.length;
            if (!channel.write(chunk)) return;
          }
          channel.end();
        };
        channel.handle({ data: () => {}, drain: pump, close: () => {} });
        pump();
      },
    });
    const wire = dial(port(3));
    wire.socket.write('USER alice\r\nPASS wonderland\r\n');
    const answer = '+OK Logged in\r\n';
    const early = await wire.until(answer);
    let received = early.length - early.indexOf(answer) - answer.length;
    wire.socket.removeAllListeners('data');
    wire.socket.on('data', (chunk) => {
      received += chunk.length;
      wire.socket.pause();
      setImmediate(() => wire.socket.resume());
    });
    await wire.until(() => wire.isClosed);
    expect(received).toBe(size);
  });

  it('is not ready with a first certificate that is none any more, and says what it shows', async () => {
    const expired = { names: 'DNS:mail.isp.example', validFromMs: 0, validToMs: 1000, leftMs: -5 };
    const { frontend } = await start({ tls: { certificates: () => ({ shown: [expired], refused: undefined }) } });
    expect(frontend.readiness().find(({ name }) => name === 'certificate')).toMatchObject({
      ok: false,
      detail: 'valid from 1970-01-01T00:00:00.000Z to 1970-01-01T00:00:01.000Z',
    });
    expect(frontend.status().certificates).toMatchObject({ shown: [{ names: 'DNS:mail.isp.example', leftMs: -5 }] });
  });

  it('goes on with frozen routes while the directory is silent, and is ready all the same', async () => {
    const { port, frontend, directory, followed } = await start();
    followed.status = { ...followed.status, state: 'frozen', silentMs: 60_000 };
    directory.isSubsetDown = true;
    directory.isMasterDown = true;
    const wire = dial(port(0));
    wire.socket.write('a LOGIN alice wonderland\r\n');
    await wire.until('Logged in\r\n');
    const other = dial(port(0));
    other.socket.write('a LOGIN newcomer wonderland\r\n');
    await other.until('a NO [UNAVAILABLE]');
    expect(frontend.readiness().find(({ name }) => name === 'routes')).toMatchObject({ ok: true });
    expect(frontend.status().routes).toMatchObject({ state: 'frozen', silentMs: 60_000, accounts: 1 });
  });

  it('takes what the subset’s entry says at once, for clients and for the load balancer, and nothing that is none', async () => {
    const { port, frontend, followed } = await start();
    const agent = async (): Promise<string> => {
      const wire = dial(port(4));
      return wire.until(() => wire.isClosed);
    };
    const first = dial(port(0));
    await first.until('ready\r\n');
    const lines = ['weight 70', 'imap.perAddressMax 1', 'loginTimeoutMs 1000', 'interCluster.imap.connectionsMax 2'];
    followed.change({ type: 'put', record: subset(30, 'eu', lines) });
    expect(await agent()).toBe('up ready 70%\n');
    // It goes on; the next one is one too many, at this port.
    await dial(port(0)).until('* BYE [LIMIT]');
    first.socket.write('a LOGIN alice wonderland\r\n');
    await first.until('Logged in\r\n');
    const link = { member: 'back1.west.isp.example', service: 'imap', isShared: false, connections: 1, sessions: 1, misses: 1 };
    expect(frontend.status().links).toMatchObject([link]);
    const pop3 = dial(port(3));
    await pop3.until('+OK');
    await pop3.until('-ERR');
    followed.change({ type: 'put', record: subset(30, 'eu', ['weight 700', 'imap.perAddressMax none']) });
    expect(await agent()).toBe('up ready 70%\n');
    await dial(port(0)).until('* BYE [LIMIT]');
    expect(frontend.status().settingsRefused).toBe(2);
    expect(await frontend.control('settings', {})).toMatchObject({
      settings: expect.arrayContaining([{ setting: 'weight', value: 70, origin: 'subset' }]),
      refused: [
        { seen: 'weight 700', stays: 70 },
        { seen: 'imap.perAddressMax none', expected: '"none" is not a whole number', stays: 1 },
      ],
    });
    // What an operator orders here comes before what the entry says.
    await frontend.control('weight', { weight: 5 });
    followed.change({ type: 'put', record: subset(30, 'eu', ['weight 80']) });
    expect(await agent()).toBe('up ready 5%\n');
    followed.change({ type: 'remove', uuid: uuidOf(30) });
    await dial(port(0)).until('ready\r\n');
    expect(frontend.status().settingsRefused).toBe(0);
  });

  it('tells load balancers, drains at a pace, takes nobody new meanwhile, and comes back', async () => {
    const { port, frontend } = await start();
    const agent = async (): Promise<string> => {
      const wire = dial(port(4));
      return wire.until(() => wire.isClosed);
    };
    const ready = async (): Promise<number> => (await fetch(`http://127.0.0.1:${port(2)}/readyz`)).status;
    expect([await agent(), await ready()]).toEqual(['up ready 100%\n', 200]);
    await frontend.control('weight', { weight: 40 });
    expect(await agent()).toBe('up ready 40%\n');
    await frontend.control('cordon', {});
    expect([await agent(), await ready()]).toEqual(['drain\n', 503]);
    const clients = [];
    for (let i = 0; i < 5; i += 1) {
      const wire = dial(port(0));
      wire.socket.write('a LOGIN alice wonderland\r\n');
      await wire.until('Logged in\r\n');
      clients.push(wire);
    }
    const silent = dial(port(0));
    await silent.until('ready\r\n');
    const taken = port(0);
    calls.length = 0;
    expect(await frontend.control('drain', { deadlineMs: 20_000, perSecond: 20 })).toMatchObject({
      state: 'draining',
      drain: { connectionsAtStart: 6, perSecond: 20 },
    });
    const refused = dial(taken);
    await refused.until(() => refused.isClosed);
    expect(await silent.until(() => silent.isClosed)).toContain('BYE [UNAVAILABLE]');
    for (const wire of clients) await wire.until(() => wire.isClosed);
    // The member was asked to say the bye; this one does not know the session, so that the connection ended without.
    expect(calls.filter(({ method }) => method === 'sessions.bye').length).toBe(5);
    while (frontend.status().withdrawal.state !== 'drained') await new Promise((resolve) => setImmediate(resolve));
    await frontend.control('resume', {});
    expect([await agent(), await ready(), port(0)]).toEqual(['up ready 40%\n', 200, taken]);
    const back = dial(taken);
    await back.until('ready\r\n');
  });

  it('ends the sessions of an account, of an address or one by its id, and nobody else’s', async () => {
    const { port, frontend } = await start();
    const enter = async () => {
      const wire = dial(port(0));
      wire.socket.write('a LOGIN alice wonderland\r\n');
      await wire.until('Logged in\r\n');
      return wire;
    };
    const [first, second] = [await enter(), await enter()];
    const silent = dial(port(0));
    await silent.until('ready\r\n');
    await expect(frontend.control('kick', { what: 'bob@isp.example' })).resolves.toMatchObject({ ended: 0 });
    await expect(frontend.control('kick', { what: '192.0.2.0/24' })).resolves.toMatchObject({ ended: 0 });
    const oldest = frontend.status().sessions[0]?.sessionId;
    expect(await frontend.control('kick', { what: oldest })).toMatchObject({ ended: 1, sessions: [oldest] });
    await first.until(() => first.isClosed);
    expect([second.isClosed, silent.isClosed]).toEqual([false, false]);
    const third = await enter();
    expect(await frontend.control('kick', { what: 'Alice@isp.example' })).toMatchObject({ ended: 2 });
    for (const wire of [second, third]) await wire.until(() => wire.isClosed);
    const fourth = await enter();
    expect(await frontend.control('kick', { what: '127.0.0.0/8' })).toMatchObject({ ended: 1 });
    await fourth.until(() => fourth.isClosed);
    expect(silent.isClosed).toBe(false);
    await expect(frontend.control('kick', {})).rejects.toMatchObject({ code: 'ADMIN_BAD_REQUEST' });
  });

  it('says what it holds against an address, and does what operators decide', async () => {
    // Counted some microseconds apart, they come in either order.
    const equallyGrave = (...entries: object[]) => expect.arrayContaining(entries.map((entry) => expect.objectContaining(entry)));
    const { port, frontend } = await start();
    const wire = dial(port(0));
    await wire.until('ready\r\n');
    wire.socket.write('a LOGIN alice wrong\r\n');
    await wire.until('AUTHENTICATIONFAILED');
    expect(await frontend.control('guard-why', { what: '127.0.0.1' })).toMatchObject({
      connections: 1,
      verdict: expect.stringContaining('delayed'),
      entries: equallyGrave({ kind: 'address', key: '127.0.0.1' }, { kind: 'pair' }),
    });
    expect(await frontend.control('guard-why', { what: 'Alice@isp.example' })).toMatchObject({
      entries: equallyGrave({ kind: 'account' }, { kind: 'pair' }),
    });
    await frontend.control('guard-block', { what: '127.0.0.0/8', forMs: 60_000, reason: 'test' });
    const blocked = dial(port(0));
    expect(await blocked.until(() => blocked.isClosed)).toBe('');
    // A narrower rule goes before a wider one, and allowing forgives.
    await frontend.control('guard-allow', { what: '127.0.0.1' });
    const allowed = dial(port(0));
    await allowed.until('ready\r\n');
    expect(await frontend.control('guard-why', { what: '127.0.0.1' })).toMatchObject({ entries: [], rules: [{ verdict: 'allow' }] });
    await frontend.control('guard-forget', { what: '127.0.0.1' });
    await expect(frontend.control('guard-forget', { what: '192.0.2.1' })).rejects.toMatchObject({ code: 'ADMIN_NOT_FOUND' });
    await expect(frontend.control('guard-block', { what: 'everybody' })).rejects.toMatchObject({ code: 'ADMIN_BAD_REQUEST' });
    await expect(frontend.control('drain', { deadlineMs: -1 })).rejects.toMatchObject({ code: 'ADMIN_BAD_REQUEST' });
  });

  it('ends its sessions and lets go of its ports when it stops', async () => {
    const { port, frontend } = await start();
    const [idle, loggedIn] = [dial(port(0)), dial(port(0))];
    const taken = port(0);
    loggedIn.socket.write('a LOGIN alice wonderland\r\n');
    await loggedIn.until('Logged in\r\n');
    await idle.until('ready\r\n');
    await frontend[Symbol.asyncDispose]();
    expect(await idle.until(() => idle.isClosed)).toBe('* BYE [UNAVAILABLE] Shutting down, connect again\r\n');
    await loggedIn.until(() => loggedIn.isClosed);
    const late = dial(taken);
    await late.until(() => late.isClosed);
    expect(late.text).toBe('');
  });
});
