/** What TLS servers of every implementation of `Network` promise, with Node's TLS at the other end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { PlatformError } from '#common/errors/platform-error.ts';
import type { Network, TlsServerOptions } from '#common/network/network.ts';
import { systemRandom } from '#common/random.ts';
import {
  binding,
  expectNoFaults,
  expiredCa,
  type Identities,
  identities,
  implementations,
  issued,
  lacks,
  listen,
  Peer,
  peerTo,
  Side,
  settled,
  Transport,
  within,
} from './network-suite.ts';

vi.setConfig({ testTimeout: 60_000 });
afterEach(expectNoFaults);

let ids: Identities;
beforeAll(async () => {
  ids = await identities();
});

interface Served {
  readonly port: number;
  /** Those whose handshake succeeded, in their order. */
  readonly sides: Side[];
  /** Addresses and reasons of the others. */
  readonly turnedAway: { address: string; why: string }[];
  next(): Promise<Side>;
  nextTurnedAway(): Promise<{ address: string; why: string }>;
}

/** A listener's TLS, and that of connections which start it themselves. */
const serverModes = ['that listens', 'of a connection'] as const;
type ServerMode = (typeof serverModes)[number];

async function served(network: Network, mode: ServerMode, options: TlsServerOptions): Promise<Served> {
  const sides: Side[] = [];
  const turnedAway: Served['turnedAway'] = [];
  let wake = (): void => {};
  const take = async <T>(from: T[], seen: { count: number }): Promise<T> => {
    const found = async (): Promise<T> => {
      while (from[seen.count] === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      seen.count += 1;
      return from[seen.count - 1] as T;
    };
    return within(found(), () => `nobody came; turned away: ${JSON.stringify(turnedAway)}`);
  };
  const echo = (side: Side): void => {
    side.watch({
      data: (chunk) => {
        side.chunks.push(chunk);
        side.write(chunk);
      },
      end: () => side.end(),
    });
    sides.push(side);
    wake();
  };
  const refused = (address: string, why: string): void => {
    turnedAway.push({ address, why });
    wake();
  };
  const listener =
    mode === 'that listens'
      ? await listen(network, { tls: options, turnedAway: refused }, (connection) => echo(new Side(connection)))
      : await listen(network, {}, (connection) => {
          const side = new Side(connection);
          side.startTls(options).then(
            () => echo(side),
            (error: PlatformError) => refused(error.code === 'NET_TLS_FAILED' ? connection.remoteAddress : error.code, error.message),
          );
        });
  const [seenSides, seenRefusals] = [{ count: 0 }, { count: 0 }];
  return {
    port: listener.port,
    sides,
    turnedAway,
    next: () => take(sides, seenSides),
    nextTurnedAway: () => take(turnedAway, seenRefusals),
  };
}

/** Connects Node's TLS; resolves once its side of the handshake is over. */
async function tlsPeerTo(port: number, options: ConnectionOptions = {}): Promise<Peer<TLSSocket>> {
  const socket = connect({ port, host: '127.0.0.1', ca: ids.ca.certificate, servername: 'localhost', ...options });
  const peer = new Peer(socket);
  await within(once(socket, 'secureConnect'), 'no TLS with Node');
  return peer;
}

/** Connects Node's TLS to be turned away; resolves once it knows. */
async function turnedAwayFrom(port: number, options: ConnectionOptions = {}): Promise<void> {
  const peer = new Peer(connect({ port, host: '127.0.0.1', ca: ids.ca.certificate, servername: 'localhost', ...options }));
  await peer.untilGone();
}

async function answers(peer: Peer, text: string): Promise<void> {
  peer.chunks.length = 0;
  peer.socket.write(text);
  await peer.untilText(text);
}

const serverCases = implementations.flatMap(({ name, network }) => serverModes.map((mode) => ({ name, network, mode })));

describe.each(serverCases)('a TLS server $mode by $name', ({ name, network, mode }) => {
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('speaks %s, and says what it knows of the session', async (version) => {
    const server = await served(network, mode, ids.server);
    const peer = await tlsPeerTo(server.port, { minVersion: version, maxVersion: version });
    const side = await server.next();
    await answers(peer, 'hello');
    const { tls } = side.connection;
    expect(tls).toMatchObject({ protocol: version, cipher: peer.socket.getCipher().name, serverName: 'localhost', peerNames: [] });
    // Before TLS 1.3 it would not be unique to the connection (RFC 9266 §4.2).
    expect(tls?.channelBinding?.().toString('hex')).toBe(version === 'TLSv1.3' ? binding(peer.socket) : undefined);
    expect(side.connection.remotePort).toBe(peer.socket.localPort);
    expect(side.connection.localPort).toBe(server.port);
    peer.socket.end();
    expect(await side.untilClosed()).toBeUndefined();
    await peer.until(() => peer.isClosed);
    expect(peer.error).toBeUndefined();
  });

  it('bears an end that is not announced (close_notify), and a reset', async () => {
    const server = await served(network, mode, ids.server);
    const { peer, plain } = await overTransport(server.port);
    const side = await server.next();
    await answers(peer, 'hello');
    plain.end();
    await side.until(() => side.hasEnded || side.isClosed);
    await side.untilClosed();

    const other = await overTransport(server.port);
    const otherSide = await server.next();
    await answers(other.peer, 'hello');
    other.plain.resetAndDestroy();
    expect(await otherSide.untilClosed()).toBeInstanceOf(Error);
  });

  it('closes where what comes is no TLS any more, and hands none of it on', async () => {
    const server = await served(network, mode, ids.server);
    const { peer, plain } = await overTransport(server.port);
    const side = await server.next();
    await answers(peer, 'hello');
    plain.end('A1 LOGIN in clear\r\n'.repeat(10));
    const error = await side.untilClosed();
    if (mode === 'that listens' || !lacks(name, 'error of a broken session')) expect(error).toBeInstanceOf(Error);
    expect(side.text()).toBe('hello');
  });

  it('brings what comes in one flight with the end of the handshake', async () => {
    const server = await served(network, mode, ids.server);
    const socket = connect({ port: server.port, host: '127.0.0.1', ca: ids.ca.certificate, servername: 'localhost' });
    const peer = new Peer(socket);
    socket.write('at ');
    socket.write('once');
    socket.end();
    await peer.untilText('at once');
    expect(await (await server.next()).untilClosed()).toBeUndefined();
  });

  it('lets clients read at their own pace and sends the rest before the end', async () => {
    const server = await served(network, mode, ids.server);
    const peer = await tlsPeerTo(server.port);
    const side = await server.next();
    const whole = Buffer.concat(
      [1, 15_999, 16_000, 16_001, 7, 16_384, 65_536, 3, 3_000_000, 9000].map((size, i) => Buffer.alloc(size, `${i},`)),
    );
    peer.socket.pause();
    let at = 0;
    for (const size of [1, 15_999, 16_000, 16_001, 7, 16_384, 65_536, 3]) {
      side.write(whole.subarray(at, at + size));
      at += size;
    }
    side.writeAll([whole.subarray(at, at + 3_000_000), whole.subarray(at + 3_000_000)]);
    side.end();
    await settled();
    peer.socket.resume();
    await peer.until(() => peer.hasEnded);
    expect(Buffer.concat(peer.chunks).equals(whole)).toBe(true);
    expect(side.connection.bufferedBytes).toBe(0);
  });

  it('is not disturbed by new keys (RFC 8446 §4.6.3)', async () => {
    const server = await served(network, mode, ids.server);
    const client = spawn('openssl', ['s_client', '-connect', `127.0.0.1:${server.port}`, '-tls1_3']);
    onTestFinished(() => void client.kill('SIGKILL'));
    const side = await server.next();
    let said = '';
    client.stdout.on('data', (chunk) => {
      said += chunk;
    });
    let noticed = '';
    client.stderr.on('data', (chunk) => {
      noticed += chunk;
    });
    const until = (isSo: () => boolean): Promise<void> => {
      const watch = async (): Promise<void> => {
        while (!isSo()) await Promise.race([once(client.stdout, 'data'), once(client.stderr, 'data')]);
      };
      return within(watch(), () => `the client said ${said.slice(-300)} and ${noticed.slice(-300)}`);
    };
    // K asks the server to change its keys too, k does not. A command is swallowed with all that is read with it.
    for (const [i, command] of ['K', 'k', 'K'].entries()) {
      client.stdin.write(`${command}\n`);
      await until(() => noticed.split('KEYUPDATE').length === i + 2);
      client.stdin.write(`line ${i}\n`);
      await side.until(() => side.text().endsWith(`line ${i}\n`));
      await until(() => said.includes(`line ${i}\n`));
    }
    expect(side.text()).toBe('line 0\nline 1\nline 2\n');
    client.stdin.end();
    await side.untilClosed();
  });

  it('turns away a client that can speak no version of those allowed', async () => {
    const server = await served(network, mode, { ...ids.server, minVersion: 'TLSv1.3' });
    await turnedAwayFrom(server.port, { maxVersion: 'TLSv1.2' });
    const refusal = await server.nextTurnedAway();
    expect(refusal.address).toBe('127.0.0.1');
    expect(refusal.why).toMatch(/protocol|version/i);
    await answers(await tlsPeerTo(server.port, { maxVersion: 'TLSv1.3' }), 'but goes on with others');
    const later = await served(network, mode, ids.server);
    await turnedAwayFrom(later.port, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' });
    expect((await later.nextTurnedAway()).address).toBe('127.0.0.1');
  });

  it('turns away what is no TLS, and bears those who go away', async () => {
    const server = await served(network, mode, ids.server);
    const talker = await peerTo(server.port);
    talker.socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const refusal = await server.nextTurnedAway();
    expect(refusal.address).toBe('127.0.0.1');
    expect(refusal.why).not.toBe('');
    await talker.untilGone();
    const before = server.turnedAway.length;
    for (const begin of [Buffer.alloc(0), Buffer.from([0x16]), Buffer.from([0x16, 3, 1, 0, 200, 1, 0, 0, 196])]) {
      for (const leave of ['end', 'resetAndDestroy'] as const) {
        const peer = await peerTo(server.port);
        if (begin.length > 0) peer.socket.write(begin);
        peer.socket[leave]();
      }
    }
    await settled();
    await answers(await tlsPeerTo(server.port), 'but goes on with others');
    // A listener tells of those whom it turned away, not of those who left.
    if (mode === 'that listens') expect(server.turnedAway.length).toBe(before);
    expect(server.sides.length).toBe(1);
  });

  it('asks for a certificate and turns away who has none or an unknown one', async () => {
    const server = await served(network, mode, { ...ids.server, ca: ids.ca.certificate, requestCert: true });
    await turnedAwayFrom(server.port);
    const missing = await server.nextTurnedAway();
    expect(missing.address).toBe('127.0.0.1');
    expect(missing.why).toMatch(/certificate|verif/i);
    await turnedAwayFrom(server.port, await issued(ids.stranger, ['client.example']));
    const unknown = await server.nextTurnedAway();
    expect(unknown.address).toBe('127.0.0.1');
    if (mode === 'that listens') expect(unknown.why).toMatch(/verif|issuer|self.signed|certificate/i);
    expect(server.sides.length).toBe(0);

    for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
      const peer = await tlsPeerTo(server.port, {
        ...(await issued(ids.ca, ['client.example', 'urn:archipelago:role:frontend', 'Other.Example'])),
        maxVersion,
      });
      await answers(peer, 'let in');
      const side = await server.next();
      expect(side.connection.tls?.peerNames).toEqual(['client.example', 'urn:archipelago:role:frontend', 'Other.Example']);
    }
  });

  it('asks for a certificate where it may be missing, and believes only one that it can verify', async () => {
    const server = await served(network, mode, { ...ids.server, ca: ids.ca.certificate, requestCert: true, rejectUnauthorized: false });
    const names = async (shown: ConnectionOptions): Promise<readonly string[] | undefined> => {
      const peer = await tlsPeerTo(server.port, shown);
      await answers(peer, 'let in');
      return (await server.next()).connection.tls?.peerNames;
    };
    expect(await names({})).toEqual([]);
    expect(await names(await issued(ids.stranger, ['client.example']))).toEqual([]);
    expect(await names(await issued(await expiredCa(), ['client.example']))).toEqual([]);
    expect(await names(await issued(ids.ca, ['client.example']))).toEqual(['client.example']);
    expect(server.turnedAway).toEqual([]);
  });
});

/** Node's TLS client over a plain socket that the case has in hand. */
async function overTransport(port: number): Promise<{ peer: Peer<TLSSocket>; plain: Socket }> {
  const { socket: plain } = await peerTo(port);
  const transport = new Transport((bytes) => void (plain.writable && plain.write(bytes)));
  plain.on('data', (chunk) => transport.push(chunk));
  const peer = new Peer(connect({ socket: transport, ca: ids.ca.certificate, servername: 'localhost' }));
  await within(once(peer.socket, 'secureConnect'), 'no TLS with Node');
  return { peer, plain };
}

describe.each(implementations)('the certificates and sessions of a TLS server by $name', ({ network }) => {
  const shownTo = async (port: number, servername: string): Promise<string | undefined> => {
    const peer = await tlsPeerTo(port, { servername, rejectUnauthorized: false });
    const shown = peer.socket.getPeerCertificate().subjectaltname;
    peer.socket.end();
    return shown;
  };

  it('are chosen by the name that the client asks for, one that names it before one that covers it', async () => {
    const further = [
      await issued(ids.ca, ['*.isp.example']),
      await issued(ids.ca, ['exact.example', 'Mail.ISP.example']),
      await issued(ids.ca, ['*.other.example']),
    ];
    const { port } = await served(network, 'of a connection', { ...ids.server, further });
    const first = await shownTo(port, 'localhost');
    expect(first).toContain('DNS:localhost');
    expect(await shownTo(port, 'mail.isp.example')).toContain('DNS:exact.example');
    expect(await shownTo(port, 'MAIL.isp.EXAMPLE')).toContain('DNS:exact.example');
    expect(await shownTo(port, 'imap.isp.example')).toBe('DNS:*.isp.example');
    expect(await shownTo(port, 'a.other.example')).toBe('DNS:*.other.example');
    expect(await shownTo(port, 'exact.example')).toContain('DNS:exact.example');
    // A wildcard stands for one label (RFC 9525 §6.3).
    for (const name of ['a.b.isp.example', 'isp.example', 'unknown.example', '']) expect(await shownTo(port, name)).toBe(first);
  });

  it('say which name a client asked for, if any', async () => {
    const server = await served(network, 'of a connection', { ...ids.server, further: [await issued(ids.ca, ['mail.isp.example'])] });
    for (const servername of ['mail.isp.example', 'unknown.example', '']) {
      await answers(await tlsPeerTo(server.port, { servername, rejectUnauthorized: false }), 'x');
      expect((await server.next()).connection.tls?.serverName).toBe(servername === '' ? undefined : servername);
    }
  });

  it('change with the version of the options, for new connections', async () => {
    const options = { ...(await issued(ids.ca, ['old.example'])), version: '1', further: [await issued(ids.ca, ['old-further.example'])] };
    const { port } = await served(network, 'of a connection', options);
    const old = await tlsPeerTo(port, { rejectUnauthorized: false });
    expect(old.socket.getPeerCertificate().subjectaltname).toBe('DNS:old.example');
    expect(await shownTo(port, 'old-further.example')).toBe('DNS:old-further.example');
    Object.assign(options, await issued(ids.ca, ['new.example']), {
      version: '2',
      further: [await issued(ids.ca, ['new-further.example'])],
    });
    expect(await shownTo(port, 'localhost')).toBe('DNS:new.example');
    expect(await shownTo(port, 'new-further.example')).toBe('DNS:new-further.example');
    expect(await shownTo(port, 'old-further.example')).toBe('DNS:new.example');
    await answers(old, 'goes on');
  });

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('are resumed in %s wherever the ticket key is the same, and nowhere else', async (version) => {
    const key = systemRandom.bytes(48);
    // As separate servers have them: equal, not identical.
    const options = (ticketKey: Buffer): TlsServerOptions => ({ ...ids.server, ticketKey: Buffer.from(ticketKey) });
    const one = await served(network, 'of a connection', options(key));
    const same = await served(network, 'of a connection', options(key));
    const other = await served(network, 'of a connection', options(systemRandom.bytes(48)));
    const visit = async (port: number, session?: Buffer): Promise<{ isReused: boolean; session: Buffer }> => {
      const socket = connect({
        port,
        host: '127.0.0.1',
        ca: ids.ca.certificate,
        servername: 'localhost',
        minVersion: version,
        maxVersion: version,
        ...(session === undefined ? {} : { session }),
      });
      const peer = new Peer(socket);
      const given = new Promise<Buffer>((resolve) => socket.once('session', resolve));
      await answers(peer, 'visit');
      // A session that is taken up again in TLS 1.2 needs no new ticket.
      const kept = socket.isSessionReused() && session !== undefined ? session : await within(given, 'no ticket came');
      socket.end();
      return { isReused: socket.isSessionReused(), session: kept };
    };
    const first = await visit(one.port);
    expect(first.isReused).toBe(false);
    expect((await visit(same.port, first.session)).isReused).toBe(true);
    expect((await visit(one.port, (await visit(one.port)).session)).isReused).toBe(true);
    expect((await visit(other.port, (await visit(one.port)).session)).isReused).toBe(false);
    const side = one.sides.at(-1) as Side;
    expect(side.connection.tls).toMatchObject({ protocol: version, serverName: 'localhost' });
  });
});
