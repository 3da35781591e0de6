/** What only system calls of our own, and an OpenSSL that is called by hand, can get wrong. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createConnection, createServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { createDirectNetwork } from '#common/network/direct/direct-network.ts';
import type { DirectServer } from '#common/network/direct/direct-server.ts';
import { eventPoll } from '#common/network/direct/event-poll.ts';
import { type OpenSsl, openSsl } from '#common/network/direct/openssl.ts';
import { encodeSocketAddress } from '#common/network/direct/socket-address.ts';
import { linux } from '#common/network/direct/system-calls.ts';
import { boundAnew, ListeningSockets } from '#common/network/listening-sockets.ts';
import type { Network } from '#common/network/network.ts';
import { expectNoFaults, failureOf, identities, joined, kinds, listen, peerTo, Side, settled, within, withPeer } from './network-suite.ts';

vi.setConfig({ testTimeout: 60_000 });
afterEach(expectNoFaults);

const direct = createDirectNetwork(boundAnew) as Network;
const turn = (): Promise<void> => new Promise(setImmediate);

it('hears nothing more of a listening socket that it closed and another process has', async () => {
  const servers: Server[] = [];
  const network = createDirectNetwork({
    listen: (server, target) => {
      servers.push(server);
      return boundAnew.listen(server, target);
    },
  }) as Network;
  const listener = await listen(network, {}, (connection) => connection.destroy());
  const accepted = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  onTestFinished(() => release.resolve());
  const passed = new ListeningSockets().passOn(servers[0] as DirectServer, async (other) => {
    other.on('connection', () => accepted.resolve());
    await release.promise;
  });
  await turn();
  await listener.close();
  await turn();
  const before = eventPoll()?.turn;
  const socket = createConnection(listener.port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  await within(accepted.promise, 'nobody accepted');
  await turn();
  expect(eventPoll()?.turn).toBe(before);
  release.resolve();
  await passed;
});

it('takes no certificate for a name that cannot be in one', async () => {
  const { ca, server } = await identities();
  const listener = await listen(direct, { tls: server }, (connection) => connection.destroy());
  for (const serverName of ['', '.localhost', 'localhost\0.example.org', 'fe80::1%1']) {
    const tls = { ca: ca.certificate, serverName };
    expect((await failureOf(direct.connect({ port: listener.port, tls }))).code, serverName).toBe('NET_TLS_FAILED');
  }
});

it('leaves no error for whoever calls OpenSSL next', async () => {
  const ssl = openSsl();
  const peek = ssl?.calls.library.func('unsigned long ERR_peek_error()') as unknown as () => number;
  const { ca, server } = await identities();
  const listener = await listen(direct, { tls: server }, (connection) => connection.destroy());
  const failed = failureOf(direct.connect({ port: listener.port, tls: { ca: ca.certificate, serverName: `${'a'.repeat(300)}.org` } }));
  expect((await failed).code).toBe('NET_TLS_FAILED');
  expect(peek()).toBe(0);
  const { side } = await withPeer('made', direct);
  const started = failureOf(side.startTlsAsClient({ ca: ca.certificate, serverName: 'a'.repeat(300) }));
  expect(peek()).toBe(0);
  side.destroy();
  await started;
  expect(peek()).toBe(0);
});

it('refuses to start TLS twice, and stays as it was', async () => {
  const { server } = await identities();
  const { client, server: accepted } = await joined('under TLS', { client: direct, server: direct });
  expect((await failureOf(accepted.startTls(server))).code).toBe('NET_TLS_FAILED');
  accepted.write('still here');
  await client.untilText('still here');
});

/** Counts what OpenSSL makes for connections. */
function madeSessions() {
  const made = vi.spyOn(openSsl() as OpenSsl, 'SSL_new');
  onTestFinished(() => made.mockRestore());
  return made;
}

it.each([
  { when: 'TLS comes first', said: '', early: undefined },
  { when: 'TLS comes first behind a PROXY header', said: '', early: Buffer.alloc(0) },
  { when: 'STARTTLS has been answered', said: 'go\r\n', early: undefined },
])('has nothing made by OpenSSL for a client before its first octet where $when', async ({ said, early }) => {
  const { server } = await identities();
  const made = madeSessions();
  const freed = vi.spyOn(openSsl() as OpenSsl, 'SSL_free');
  onTestFinished(() => freed.mockRestore());
  const { side, peer } = await withPeer('accepted', direct);
  side.write(said);
  const started = failureOf(side.startTls(server, early));
  await peer.untilText(said);
  await settled();
  expect(made).not.toHaveBeenCalled();
  peer.socket.write(Buffer.of(0x16));
  await settled();
  expect(made).toHaveBeenCalledTimes(1);
  peer.socket.end();
  expect((await started).code).toBe('NET_TLS_FAILED');
  await side.untilClosed();
  expect(freed.mock.calls).toEqual(made.mock.results.map(({ value }) => [value]));
});

it.each(['nothing', 'one octet'])('gives a client that has said $0 the time of a handshake, and ends it then', async (said) => {
  const { server } = await identities();
  const { side, peer } = await withPeer('accepted', direct);
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const started = side.connection.startTls(server).catch(({ code, message }) => `${code} ${message}`);
  if (said !== 'nothing') peer.socket.write(Buffer.of(0x16));
  await settled();
  vi.advanceTimersByTime(20_000);
  await settled();
  expect(side.isClosed).toBe(false);
  vi.advanceTimersByTime(100);
  vi.useRealTimers();
  expect(await started).toMatch(/^NET_TLS_FAILED .*127\.0\.0\.1 failed: nothing came within 20000 ms$/);
  await side.untilClosed();
  await peer.untilGone();
});

it.each(kinds)('has no limit of time for a connection %s any more once it is there', async (kind) => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const { client, server } = await joined(kind, { client: direct, server: direct });
  vi.advanceTimersByTime(60_000);
  vi.useRealTimers();
  await settled();
  client.write('still here');
  await server.untilText('still here');
  server.write('so am I');
  await client.untilText('so am I');
});

it('sends in clear what was written before TLS was started, however slow the peer', async () => {
  const { server } = await identities();
  const made = madeSessions();
  const { side, peer } = await withPeer('accepted', direct);
  peer.socket.pause();
  const whole = Buffer.alloc(16_777_216, 'clear ');
  side.write(whole);
  expect(side.connection.bufferedBytes).toBeGreaterThan(0);
  const started = failureOf(side.startTls(server));
  await settled();
  peer.socket.resume();
  await peer.until(() => peer.chunks.reduce((sum, { length }) => sum + length, 0) >= whole.length);
  expect(Buffer.concat(peer.chunks).equals(whole)).toBe(true);
  expect(made).not.toHaveBeenCalled();
  peer.socket.end('no greeting of TLS');
  expect((await started).code).toBe('NET_TLS_FAILED');
});

it('knows the interface that stands behind an address, by its name or number', () => {
  for (const [name, addresses = []] of Object.entries(networkInterfaces())) {
    // Global addresses have none.
    const scopes = addresses.flatMap((address) => (address.family === 'IPv6' ? [address.scopeid] : []));
    if (scopes.length > 0) expect(encodeSocketAddress(`fe80::1%${name}`, 25)?.readUInt32LE(24)).toBe(Math.max(...scopes));
  }
  expect(encodeSocketAddress('fe80::1%7', 25)?.readUInt32LE(24)).toBe(7);
  expect(encodeSocketAddress('fe80::1%nosuch', 25)).toBeUndefined();
});

interface PausedWithSender {
  readonly side: Side;
  send(text: string, flags?: number): void;
  end(): void;
  reset(): void;
}

/** A connection that is paused before anything comes, and what sends to it without a turn of the event loop in between. */
async function pausedWithSender(): Promise<PausedWithSender> {
  const { calls } = openSsl() as OpenSsl;
  const accepted = Promise.withResolvers<Side>();
  const listener = await listen(direct, {}, (connection) => {
    const side = new Side(connection);
    side.pause();
    accepted.resolve(side);
  });
  const fd = calls.socket(2, 1, 0);
  onTestFinished(() => void calls.close(fd));
  const to = encodeSocketAddress('127.0.0.1', listener.port) as Buffer;
  expect(calls.connect(fd, to, to.length)).toBe(0);
  const side = await within(accepted.promise, 'nothing was accepted');
  const send = (text: string, flags = 0): void => void calls.send(fd, Buffer.from(text), text.length, flags);
  const end = (): void => void calls.shutdown(fd, linux.shutWrite);
  // An address of no family (AF_UNSPEC).
  const reset = (): void => void calls.connect(fd, Buffer.alloc(16), 16);
  return { side, send, end, reset };
}

const urgently = 1;

it('brings what stands behind urgent data without waiting for more', async () => {
  const { side, send } = await pausedWithSender();
  send('before');
  send('!', urgently);
  send(' behind');
  await settled();
  side.resume();
  await side.untilText('before behind');
});

it('is not woken by what comes while it is paused, and has all of it once it is resumed', async () => {
  const { side, send } = await pausedWithSender();
  for (const word of ['first', 'second']) {
    send(word);
    await settled();
    const before = eventPoll()?.turn;
    send(' more');
    await settled();
    send('!', urgently);
    send(' behind');
    await settled();
    expect(eventPoll()?.turn).toBe(before);
    side.resume();
    await side.untilText(`${word} more behind`);
    side.pause();
    side.chunks.length = 0;
  }
});

it('loses nothing that stands behind urgent data when the peer ends while nobody watches for that', async () => {
  const { side, send, end } = await pausedWithSender();
  send('before');
  await settled();
  send('!', urgently);
  send(' behind');
  end();
  await settled();
  side.watch({ end: () => {} });
  side.resume();
  await side.untilEnd();
  expect(side.text()).toBe('before behind');
});

it('takes a reset for no end when it comes at once with what was said before it', async () => {
  const { side, send, reset } = await pausedWithSender();
  side.watch({ end: () => {} });
  send('before');
  reset();
  side.resume();
  expect((await side.untilClosed()) as Error & { code?: string }).toMatchObject({ code: 'ECONNRESET' });
  expect([side.text(), side.hasEnded]).toEqual(['before', false]);
});

/** A client of TLS as bare as it can be: it reads when it is told to, and asks for keys as often. */
async function bareClient() {
  const ssl = openSsl();
  if (ssl === undefined) throw new Error('no OpenSSL');
  const { calls } = ssl;
  const keyUpdate = calls.library.func('int SSL_key_update(uintptr_t, int)') as unknown as (peer: number, asks: number) => number;
  const { server } = await identities();
  const accepted = Promise.withResolvers<Side>();
  const listener = await listen(direct, { tls: server }, (connection) => accepted.resolve(new Side(connection)));
  const fd = calls.socket(2, 1, 0);
  const to = encodeSocketAddress('127.0.0.1', listener.port) as Buffer;
  const context = ssl.SSL_CTX_new(ssl.TLS_client_method());
  const peer = ssl.SSL_new(context);
  onTestFinished(() => {
    ssl.SSL_free(peer);
    ssl.SSL_CTX_free(context);
    calls.close(fd);
  });
  expect(calls.connect(fd, to, to.length)).toBe(0);
  const one = Buffer.from(Int32Array.of(1).buffer);
  calls.setSocketOption(fd, linux.levelTcp, linux.optionNoDelay, one, one.length);
  // F_SETFL, O_NONBLOCK
  calls.fileControl(fd, 4, 0o4000);
  ssl.SSL_set_fd(peer, fd);
  ssl.SSL_set_connect_state(peer);
  while (ssl.SSL_do_handshake(peer) !== 1) await turn();
  const askForKeys = (): void => expect(keyUpdate(peer, 1)).toBe(1);
  return { ssl, fd, peer, askForKeys, side: await within(accepted.promise, 'nothing was accepted') };
}

/** Reads to the end, record by record. */
async function readAll(ssl: OpenSsl, peer: number): Promise<Buffer[]> {
  const memory = Buffer.alloc(65_536);
  const address = Number(ssl.calls.koffi.address(memory));
  const records: Buffer[] = [];
  let returned = 0;
  do {
    returned = ssl.SSL_read(peer, address, memory.length);
    if (returned > 0) records.push(Buffer.from(memory.subarray(0, returned)));
    else await turn();
  } while (returned > 0 || ssl.SSL_get_error(peer, returned) === 2);
  // It ended in good order (SSL_ERROR_ZERO_RETURN).
  expect(ssl.SSL_get_error(peer, returned)).toBe(6);
  ssl.ERR_clear_error();
  return records;
}

it.each([
  { writes: 'nothing', bytes: 0 },
  { writes: 'more than there is room for', bytes: 16_000_000 },
])('goes on with new keys whenever the peer asks for them, while it writes $writes', async ({ bytes }) => {
  const { ssl, peer, askForKeys, side } = await bareClient();
  const whole = Buffer.alloc(bytes, 'what was written ');
  side.write(whole);
  for (let i = 1; i <= 200; i += 1) {
    askForKeys();
    expect(ssl.SSL_write(peer, Buffer.from('x'), 1)).toBe(1);
    await side.until(() => side.bytes === i);
  }
  side.end();
  const records = await readAll(ssl, peer);
  expect(Buffer.concat(records).equals(whole)).toBe(true);
  expect(side.isClosed).toBe(false);
});

it('sends small pieces together that had to wait, as there may be very many', async () => {
  const { ssl, peer, side } = await bareClient();
  side.write(Buffer.alloc(16_000_000, 'large '));
  expect(side.connection.bufferedBytes).toBeGreaterThan(0);
  for (let i = 0; i < 10_000; i += 1) side.write('small ');
  side.end();
  const records = await readAll(ssl, peer);
  const whole = Buffer.concat([Buffer.alloc(16_000_000, 'large '), Buffer.alloc(60_000, 'small ')]);
  expect(Buffer.concat(records).equals(whole)).toBe(true);
  expect(records.length).toBeLessThan(5_000);
});

it('cuts off a peer that asks for new keys without end, before it has the process for itself', async () => {
  const { ssl, fd, peer, askForKeys, side } = await bareClient();
  // Nothing goes to the peer yet; then all at once.
  const memory = ssl.BIO_new(ssl.BIO_s_mem());
  ssl.SSL_set0_wbio(peer, memory);
  for (let i = 0; i < 1_000; i += 1) {
    askForKeys();
    expect(ssl.SSL_do_handshake(peer)).toBe(1);
  }
  const all = Buffer.alloc(1_048_576);
  const length = ssl.BIO_read(memory, all, all.length);
  expect(length).toBeLessThan(all.length);
  side.pause();
  for (let at = 0; at < length; ) {
    const count = ssl.calls.send(fd, all.subarray(at, length), length - at, 0);
    if (count > 0) at += count;
    else await turn();
  }
  side.resume();
  expect((await side.untilClosed())?.message).toBe('the peer asks for one handshake after another');
});

it('tells the end of a TLS peer that came at once with its last words, and by no close_notify', async () => {
  const { ssl, fd, peer, side } = await bareClient();
  side.watch({ end: () => {} });
  // The second read begins where nothing is left of the first.
  for (const [at, word] of ['first', 'second', 'last'].entries()) {
    expect(ssl.SSL_write(peer, Buffer.from(word), word.length)).toBe(word.length);
    if (word === 'last') ssl.calls.shutdown(fd, linux.shutWrite);
    await side.until(() => side.bytes >= ([5, 11, 15][at] as number));
  }
  await side.untilEnd();
});

it('accepts for a server of Node’s, which gets sockets of Node’s, also of clients that have gone again', async () => {
  const server = createServer({ allowHalfOpen: true });
  const seen: unknown[] = [];
  server.on('connection', (socket) => {
    onTestFinished(() => void socket.destroy());
    seen.push([socket.remoteAddress, socket.remotePort, socket.localPort]);
    socket.on('error', () => {});
    socket.on('data', (chunk) => socket.write(chunk)).on('end', () => socket.end());
  });
  const door = direct.serverFor?.(server) as Server;
  onTestFinished(() => void door.close());
  const { port } = await boundAnew.listen(door, { host: '127.0.0.1', port: 0 });
  const gone = await peerTo(port);
  gone.socket.resetAndDestroy();
  const peer = await peerTo(port);
  const from = peer.socket.localPort;
  peer.socket.end('said');
  await peer.until(() => peer.hasEnded);
  expect([peer.text(), seen.length, server.listening, door.listening]).toEqual(['said', 2, false, true]);
  expect(seen[1]).toEqual(['127.0.0.1', from, port]);
  const stays = await peerTo(port);
  stays.socket.write('here');
  await stays.untilText('here');
  door.close();
  await turn();
  expect(door.listening).toBe(false);
  stays.socket.write(', still');
  await stays.untilText('here, still');
  await boundAnew.listen(door, { host: '127.0.0.1', port });
  const late = await peerTo(port);
  late.socket.write('again');
  await late.untilText('again');
});

it('accepts for a server of HTTP, which still cuts off a request that does not come', async () => {
  const server = createHttpServer({ connectionsCheckingInterval: 10, headersTimeout: 1, requestTimeout: 1 });
  const door = direct.serverFor?.(server) as Server;
  onTestFinished(() => {
    door.close();
    server.close();
  });
  const peer = await peerTo((await boundAnew.listen(door, { host: '127.0.0.1', port: 0 })).port);
  peer.socket.write('GET / HTTP/1.1\r\nHost: ');
  await peer.until(() => peer.hasEnded);
  expect(peer.text()).toMatch(/^HTTP\/1\.1 408 /);
});

const scarce = 'keeps clients of $0 waiting while there are no descriptors, says so once, and takes them up when others have gone';
it.each(['its-own', 'for-node', 'for-http'])(scarce, async (whose) => {
  const command = `"${process.execPath}" "${join(import.meta.dirname, 'network-scarce.ts')}" ${whose}`;
  const child = spawn('sh', ['-c', `ulimit -n 100; exec ${command}`], { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const lines: string[] = [];
  const output = createInterface(child.stdout).on('line', (text) => void lines.push(text));
  await within(once(output, 'line'), 'the child did not listen');
  const [line] = lines;
  let served = 0;
  const answered = Array.from({ length: 150 }, () => {
    const socket = createConnection(Number(line), '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    return once(socket, 'data').then(() => {
      served += 1;
      return socket;
    });
  });
  await within(Promise.race(answered), 'nobody was served');
  await settled();
  expect(served).toBeLessThan(100);
  while (lines.length < 2) await within(once(output, 'line'), 'nobody was told');
  expect(lines).toEqual([
    line,
    expect.stringMatching(/^cannot accept connections at 127\.0\.0\.1:\d+: too many open files; .*LimitNOFILE/),
  ]);
  // Who was served goes, and makes room.
  const gone = answered.map((socket) => socket.then((each) => each.destroy()));
  await within(Promise.all(gone), () => `only ${served} of 150 were served`);
  while (lines.length < 3) await within(once(output, 'line'), 'nobody was told that it is over');
  expect(lines[2]).toBe('connections are accepted again');
  expect(child.exitCode).toBeNull();
});

it.each(kinds)('finishes as a whole %s: the peer gets everything, and need not end for its part', async (kind) => {
  const { client, server } = await joined(kind, { client: direct, server: direct });
  // What the client’s handshake leaves to be read would be waited for.
  client.write('?');
  await server.untilText('?');
  const all = Buffer.alloc(50_000_000, 'all');
  client.watch({ end: () => {} });
  client.pause();
  server.write(all);
  expect(server.connection.finish?.()).toBe(false);
  await turn();
  client.resume();
  await client.until(() => client.hasEnded);
  expect(client.bytes).toBe(all.length);
  await expect(server.untilClosed()).resolves.toBeUndefined();
  expect(server.hasEnded).toBe(false);
});

it('says at once that it is finished when the system took all, and leaves what lies unread to a half-close', async () => {
  const { client, server } = await joined('in clear', { client: direct, server: direct });
  client.watch({ end: () => {} });
  expect(server.connection.finish?.()).toBe(true);
  expect(server.isClosed).toBe(false);
  await server.untilClosed();
  await client.untilEnd();
  const { client: talker, server: other } = await joined('in clear', { client: direct, server: direct });
  talker.watch({ end: () => {} });
  other.watch({ data: () => {}, end: () => {} });
  other.pause();
  talker.write(Buffer.alloc(200_000));
  await settled();
  other.write('bye');
  expect(other.connection.finish?.()).toBe(false);
  await talker.untilEnd();
  expect(talker.text()).toBe('bye');
  talker.end();
  other.resume();
  await expect(other.untilClosed()).resolves.toBeUndefined();
});

it.each(kinds)('sends what was written last with the end, or before long when no end follows: %s', async (kind) => {
  const { client, server } = await joined(kind, { client: direct, server: direct });
  client.watch({ end: () => {} });
  server.connection.write('not yet', true);
  await client.untilText('not yet');
  server.connection.write(', but now', true);
  server.connection.end();
  await client.untilEnd();
  expect(client.text()).toBe('not yet, but now');
});

it.each([true, false])('says of a piece whether nothing but the end comes behind it: %s', async (ends) => {
  const accepted = Promise.withResolvers<Side>();
  const listener = await listen(direct, {}, (connection) => accepted.resolve(new Side(connection, false)));
  const client = await direct.connect({ port: listener.port });
  onTestFinished(() => client.destroy());
  const server = await within(accepted.promise, 'nobody came');
  client.write('last');
  if (ends) client.end();
  // All of it is there before anything is read.
  await settled();
  let endsNext: boolean | undefined;
  server.watch({ data: () => (endsNext = server.connection.endsNext), end: () => {} });
  await server.until(() => server.bytes === 4);
  expect(endsNext).toBe(ends);
  if (!ends) return;
  await server.untilEnd();
});

it('leaves no octet of TLS behind, however the system hands them out', async () => {
  const { ca, server } = await identities();
  const accepted = Promise.withResolvers<Side>();
  const listener = await listen(direct, { tls: server }, (connection) => accepted.resolve(new Side(connection)));
  // What goes to the listener is cut anywhere, with a turn of the event loop or two in between.
  const cutter = createServer((from) => {
    const to = createConnection(listener.port, '127.0.0.1').setNoDelay();
    onTestFinished(() => void to.destroy());
    to.pipe(from);
    to.on('error', () => {});
    let sent = Promise.resolve();
    from
      .on('error', () => {})
      .on('data', (chunk: Buffer) => {
        sent = sent.then(async () => {
          for (let at = 0, step = 1; at < chunk.length; at += step) {
            step = 1 + ((chunk[at] as number) % 7 === 0 ? 3 : (chunk[at] as number) * 97);
            to.write(chunk.subarray(at, at + step));
            await turn();
          }
        });
      });
    from.once('end', () => void sent.then(() => to.end()));
  }).listen(0, '127.0.0.1');
  onTestFinished(() => void cutter.close());
  await once(cutter, 'listening');
  const { port } = cutter.address() as { port: number };
  const client = await direct.connect({ port, host: '127.0.0.1', tls: { ca: ca.certificate, serverName: 'localhost' } });
  onTestFinished(() => client.destroy());
  const side = await within(accepted.promise, 'nobody came');
  side.watch({ end: () => {} });
  let wanted = 0;
  for (let i = 0; i < 120; i += 1) {
    // Each is waited for: nothing that comes later tells of it.
    const length = [1, 30, 700, 16_383, 16_384, 40_000][i % 6] as number;
    wanted += length + i + 1;
    // Two records at least, which may come in one piece.
    client.write('y');
    client.write(Buffer.alloc(length + i, 'x'));
    await side.until(() => side.bytes === wanted);
  }
  client.end();
  await side.untilEnd();
});
