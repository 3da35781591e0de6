/** What TLS clients of every implementation of `Network` promise, with Node's TLS at the other end. */
import { once } from 'node:events';
import { createServer as createPlainServer } from 'node:net';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { PlatformError } from '#common/errors/platform-error.ts';
import type { Network, TlsClientOptions } from '#common/network/network.ts';
import {
  binding,
  codeOf,
  expectNoFaults,
  expiredCa,
  failureOf,
  type Identities,
  identities,
  implementations,
  issued,
  Peer,
  peerServer,
  Side,
  Transport,
  within,
} from './network-suite.ts';

vi.setConfig({ testTimeout: 60_000 });
afterEach(expectNoFaults);

let ids: Identities;
beforeAll(async () => {
  ids = await identities();
});

/** A client that begins with TLS, and one that goes over to it. */
const clientModes = ['that connects', 'of a connection'] as const;
type ClientMode = (typeof clientModes)[number];

/** Node's TLS server, for either. */
async function tlsPeerServer(mode: ClientMode, options: TlsOptions): Promise<{ port: number; next: () => Promise<Peer<TLSSocket>> }> {
  const secure = createServer({ allowHalfOpen: true, ...options } as TlsOptions);
  const peers: Peer<TLSSocket>[] = [];
  let wake = (): void => {};
  secure.on('secureConnection', (socket) => {
    const peer = new Peer(socket);
    socket.on('data', (chunk) => socket.write(chunk));
    peers.push(peer);
    wake();
  });
  secure.on('tlsClientError', (_error, socket) => socket.destroy());
  const server =
    mode === 'that connects'
      ? secure
      : createPlainServer({ allowHalfOpen: true }, (socket) => {
          socket.on('error', () => {});
          socket.once('data', () => {
            socket.write('G');
            secure.emit('connection', socket);
          });
        });
  server.listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await within(once(server, 'listening'), 'Node could not listen');
  const next = async (): Promise<Peer<TLSSocket>> => {
    while (peers.length === 0) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return peers.shift() as Peer<TLSSocket>;
  };
  return { port: (server.address() as { port: number }).port, next: () => within(next(), 'nobody finished a handshake') };
}

async function secured(network: Network, mode: ClientMode, port: number, tls: TlsClientOptions): Promise<Side> {
  if (mode === 'that connects') return new Side(await network.connect({ host: '127.0.0.1', port, tls }));
  const side = new Side(await network.connect({ host: '127.0.0.1', port }));
  side.write('S');
  await side.untilText('G');
  side.chunks.length = 0;
  try {
    await side.startTlsAsClient(tls);
  } catch (error) {
    // Whoever handles the connection learns that it is over.
    await side.untilClosed();
    throw error;
  }
  return side;
}

const clientCases = implementations.flatMap(({ name, network }) => clientModes.map((mode) => ({ name, network, mode })));

describe.each(clientCases)('a TLS client $mode by $name', ({ network, mode }) => {
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('speaks %s, and says what it knows of the session', async (version) => {
    const server = await tlsPeerServer(mode, { ...ids.server, minVersion: version, maxVersion: version });
    const side = await secured(network, mode, server.port, { ca: ids.ca.certificate, serverName: 'localhost' });
    const peer = await server.next();
    expect((peer.socket as TLSSocket & { servername?: string }).servername).toBe('localhost');
    const { tls } = side.connection;
    expect(tls).toMatchObject({ protocol: version, cipher: peer.socket.getCipher().name });
    expect(tls?.peerNames).toContain('localhost');
    expect(tls?.channelBinding?.().toString('hex')).toBe(version === 'TLSv1.3' ? binding(peer.socket) : undefined);
    side.write('hello');
    await side.untilText('hello');
    side.end();
    await peer.until(() => peer.hasEnded);
    peer.socket.end('after your end');
    await side.untilEnd();
    expect(side.text()).toBe('helloafter your end');
    expect(await side.untilClosed()).toBeUndefined();
  });

  it('trusts a certificate for the name it wants only', async () => {
    const server = await tlsPeerServer(mode, await issued(ids.ca, ['mail.example', '*.wild.example']));
    const to = (serverName: string): Promise<Side> => secured(network, mode, server.port, { ca: ids.ca.certificate, serverName });
    for (const name of ['mail.example', 'MAIL.example', 'a.wild.example']) {
      const side = await to(name);
      side.write('x');
      await side.untilText('x');
    }
    for (const name of ['other.example', 'wild.example', 'a.b.wild.example', 'sub.mail.example', '127.0.0.1']) {
      const failure = await failureOf(to(name));
      expect(failure.code).toBe('NET_TLS_FAILED');
      expect(failure.message).toMatch(/match/i);
    }
  });

  it('takes an address as the name, which the certificate must have and which is not asked for by SNI', async () => {
    const server = await tlsPeerServer(mode, ids.server);
    for (const serverName of ['127.0.0.1', '::1']) {
      const side = await secured(network, mode, server.port, { ca: ids.ca.certificate, serverName });
      side.write('x');
      await side.untilText('x');
      // RFC 6066 §3: no literal addresses.
      expect((await server.next()).socket).toHaveProperty('servername', false);
    }
    expect((await failureOf(secured(network, mode, server.port, { ca: ids.ca.certificate, serverName: '127.0.0.2' }))).message).toMatch(
      /match/i,
    );
  });

  it('says why it does not trust: unknown authority, expired certificate', async () => {
    const unknown = await tlsPeerServer(mode, await issued(ids.stranger, ['localhost']));
    const failure = await failureOf(secured(network, mode, unknown.port, { ca: ids.ca.certificate, serverName: 'localhost' }));
    expect(failure.code).toBe('NET_TLS_FAILED');
    expect(failure.message).toMatch(/verif|issuer|self.signed|trust/i);
    const expired = await tlsPeerServer(mode, await issued(await expiredCa(), ['localhost']));
    const late = await failureOf(secured(network, mode, expired.port, { ca: ids.ca.certificate, serverName: 'localhost' }));
    expect(late.code).toBe('NET_TLS_FAILED');
    expect(late.message).toMatch(/expired/i);
    // Without an authority of its own it asks those that everybody trusts.
    const server = await tlsPeerServer(mode, ids.server);
    expect(await codeOf(secured(network, mode, server.port, { serverName: 'localhost' }))).toBe('NET_TLS_FAILED');
  });

  it('shows its certificate where it is asked for', async () => {
    const server = await tlsPeerServer(mode, { ...ids.server, ca: ids.ca.certificate, requestCert: true, rejectUnauthorized: true });
    const shown = await issued(ids.ca, ['client.example', 'urn:archipelago:role:frontend']);
    const side = await secured(network, mode, server.port, { ca: ids.ca.certificate, serverName: 'localhost', ...shown });
    side.write('x');
    await side.untilText('x');
    expect((await server.next()).socket.getPeerCertificate().subjectaltname).toBe('DNS:client.example, URI:urn:archipelago:role:frontend');
    // With TLS 1.3 the client is through before the server has seen what it lacks: then the connection breaks at once.
    const outcome = await secured(network, mode, server.port, { ca: ids.ca.certificate, serverName: 'localhost' }).then(
      async (without) => {
        without.write('x');
        await without.until(() => without.hasEnded || without.isClosed);
        return without.text();
      },
      (error: PlatformError) => error.code,
    );
    expect(['', 'NET_TLS_FAILED']).toContain(outcome);
  });

  it('fails where the peer speaks no TLS, or hangs up in the handshake', async () => {
    const { port, next } = await peerServer();
    const tls = { ca: ids.ca.certificate, serverName: 'localhost' };
    for (const behave of ['garbage', 'end', 'reset', 'part of an answer, then end'] as const) {
      const outcome = failureOf(secured(network, mode, port, tls));
      const { socket } = await next();
      // The last `data` is the beginning of a handshake.
      if (mode === 'of a connection') {
        await within(once(socket, 'data'), 'nothing came');
        socket.write('G');
      }
      await within(once(socket, 'data'), 'no handshake began');
      if (behave === 'garbage') socket.write('220 mail.example ESMTP, and no TLS at all\r\n');
      else if (behave === 'end') socket.end();
      else if (behave === 'reset') socket.resetAndDestroy();
      else socket.end(Buffer.from([0x16, 3, 3, 0, 100, 2, 0, 0, 96]));
      const { code, message } = await outcome;
      if (behave === 'reset') expect(['NET_TLS_FAILED', 'NET_CONNECT_FAILED']).toContain(code);
      else expect(code).toBe('NET_TLS_FAILED');
      expect(message).toContain('127.0.0.1');
    }
  });

  it('bears an end that is not announced, a reset, and what is no TLS any more', async () => {
    const { port, next } = await peerServer();
    const tls = { ca: ids.ca.certificate, serverName: 'localhost' };
    for (const behave of ['end', 'reset', 'garbage'] as const) {
      const coming = secured(network, mode, port, tls);
      const { socket: plain } = await next();
      if (mode === 'of a connection') {
        await within(once(plain, 'data'), 'nothing came');
      }
      const transport = new Transport((bytes) => void (plain.writable && plain.write(bytes)));
      plain.on('data', (chunk) => transport.push(chunk));
      if (mode === 'of a connection') plain.write('G');
      const secure = createServer({ ...ids.server });
      const secureConnection = once(secure, 'secureConnection');
      secure.emit('connection', transport);
      const [[socket], side] = await within(Promise.all([secureConnection, coming]), 'no TLS with Node');
      onTestFinished(() => socket.destroy());
      socket.on('error', () => {});
      socket.write('hello');
      await side.untilText('hello');
      if (behave === 'end') plain.end();
      else if (behave === 'reset') plain.resetAndDestroy();
      else plain.end('garbage '.repeat(20));
      await side.until(() => side.hasEnded || side.isClosed);
      side.end();
      const error = await side.untilClosed();
      if (behave !== 'end') expect(error).toBeInstanceOf(Error);
      expect(side.text()).toBe('hello');
    }
  });
});

describe.each(implementations)('a TLS connection by $name that cannot be made', ({ network }) => {
  it('is told apart by where it failed', async () => {
    const { server, port } = await peerServer();
    await new Promise((closed) => server.close(closed));
    expect(await codeOf(network.connect({ host: '127.0.0.1', port, tls: { serverName: 'localhost' } }))).toBe('NET_CONNECT_FAILED');
  });
});
