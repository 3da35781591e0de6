/** What goes from socket to socket unread: all of it, once, in order, and as with what is copied whatever happens to either side. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { DirectNetwork } from '#common/network/direct/direct-network.ts';
import { eventPoll } from '#common/network/direct/event-poll.ts';
import { type OpenSsl, openSsl } from '#common/network/direct/openssl.ts';
import { isPaced, Pipes } from '#common/network/direct/pipes.ts';
import { ReadBuffers } from '#common/network/direct/read-buffers.ts';
import { encodeSocketAddress } from '#common/network/direct/socket-address.ts';
import { linux, type SystemCalls } from '#common/network/direct/system-calls.ts';
import { boundAnew } from '#common/network/listening-sockets.ts';
import type { Connection, ConnectOptions, ListenOptions } from '#common/network/network.ts';
import { readProxyHeader } from '#frontend/listeners/proxied-connection.ts';
import { type Splice, splice } from '#frontend/relay/splice.ts';
import { spliceOwner } from '#test/fakes/splice-owner.ts';
import { expectNoFaults, identities, listen, type Peer, peerServer, peerTo, Side, settled, within } from './network-suite.ts';

vi.setConfig({ testTimeout: 60_000 });
afterEach(expectNoFaults);

const { calls: real } = openSsl() as OpenSsl;
const body = randomBytes(24_000_000);
const idlePipesMax = 4;
const optionReceiveBuffer = 8;

type Splicing = (from: number, to: number, count: number) => number;

/** A network whose sockets do not pace themselves, whatever the machine has set, and the calls that it makes. */
class Watched {
  readonly network: DirectNetwork;
  readonly pipes: Pipes;
  readonly pipeEnds = new Set<number>();
  /** Octets that sockets took from pipes. */
  passed = 0;
  /** What its sockets are said to have instead of what they have. */
  paced: string | undefined;
  hasPipes = true;
  /** For what its sockets have received. */
  room: number | undefined;
  splice: Splicing = (from, to, count) => real.splice(from, null, to, null, count, linux.spliceMove | linux.spliceNonBlocking);
  errno: number | undefined;

  constructor() {
    const calls = {
      ...real,
      accept4: (...given: Parameters<SystemCalls['accept4']>) => this.#set(real.accept4(...given)),
      socket: (...given: Parameters<SystemCalls['socket']>) => this.#set(real.socket(...given)),
      getSocketOption: (...given: Parameters<SystemCalls['getSocketOption']>) => {
        const returned = real.getSocketOption(...given);
        const [, , option, value, length] = given;
        if (option !== linux.optionCongestion || this.paced === undefined) return returned;
        (length as Buffer).writeInt32LE((value as Buffer).write(this.paced));
        return returned;
      },
      pipe: (ends: Buffer, flags: number) => {
        if (!this.hasPipes) return -1;
        const returned = real.pipe(ends, flags);
        for (const at of [0, 4]) this.pipeEnds.add(ends.readInt32LE(at));
        return returned;
      },
      close: (fd: number) => {
        this.pipeEnds.delete(fd);
        return real.close(fd);
      },
      splice: (from: number, _from: null, to: number, _to: null, count: number) => {
        this.errno = undefined;
        const moved = this.splice(from, to, count);
        if (moved > 0 && !this.pipeEnds.has(to)) this.passed += moved;
        return moved;
      },
      errno: () => this.errno ?? real.errno(),
    } as unknown as SystemCalls;
    const poll = eventPoll();
    if (poll === undefined) throw new Error('no event poll');
    this.pipes = new Pipes(calls);
    this.network = new DirectNetwork({ calls, poll, buffers: new ReadBuffers(calls), pipes: this.pipes }, boundAnew, undefined);
  }

  /** For `splice`: an error of the system. */
  fail(errno: number): number {
    this.errno = errno;
    return -1;
  }

  #set(fd: number): number {
    const name = Buffer.from('reno');
    if (fd >= 0) expect(real.setSocketOption(fd, linux.levelTcp, linux.optionCongestion, name, name.length)).toBe(0);
    if (this.room === undefined) return fd;
    const room = Buffer.from(Int32Array.of(this.room).buffer);
    real.setSocketOption(fd, linux.levelSocket, optionReceiveBuffer, room, room.length);
    return fd;
  }
}

interface Relayed {
  readonly client: Peer;
  readonly member: Peer;
  readonly clientSide: Connection;
  readonly channel: Connection;
  readonly relay: Splice;
  readonly ends: string[];
}

/** A client and a member of Node's, and a relay between them. */
async function relayed({ network }: Watched, lastWords: () => string | undefined = () => undefined, header = ''): Promise<Relayed> {
  const accepted = Promise.withResolvers<Connection>();
  const listener = await listen(network, {}, (connection) => {
    connection.pause();
    accepted.resolve(connection);
  });
  const client = await peerTo(listener.port);
  const { port, next } = await peerServer();
  const channel = await network.connect({ port });
  const member = await next();
  const arrived = await within(accepted.promise, 'nobody came');
  const clientSide = header === '' ? arrived : await behindBalancer(arrived, client, header);
  const ends: string[] = [];
  const owner = spliceOwner({ spliceEnded: (by, error) => void ends.push(`${by}${error === undefined ? '' : ' error'}`), lastWords });
  const relay = splice(owner, clientSide, channel, Buffer.alloc(0));
  onTestFinished(() => relay.destroy());
  for (const { socket } of [client, member]) socket.on('error', () => {});
  return { client, member, clientSide, channel, relay, ends };
}

function behindBalancer(arrived: Connection, client: Peer, header: string): Promise<Connection> {
  const proxied = readProxyHeader(arrived, systemClock);
  arrived.resume();
  client.socket.write(header);
  return proxied;
}

/** Lets everybody have their turns until it is so. */
async function eventually(isSo: () => boolean): Promise<void> {
  for (let i = 0; !isSo(); i += 1) {
    if (i === 2_000) throw new Error(`waited in vain for ${isSo}`);
    await settled();
  }
}

function lengthOf({ chunks }: Peer): number {
  return chunks.reduce((sum, { length }) => sum + length, 0);
}

/** Reads some pieces and rests for some turns of the event loop, over and over. */
function readSlowly(socket: Socket): void {
  let count = 0;
  socket.on('data', () => {
    count += 1;
    if (count % 7 !== 0) return;
    socket.pause();
    setImmediate(() => setImmediate(() => socket.resume()));
  });
}

/** Until what has come waits in a pipe, as the other side takes no more. */
async function untilHeld({ client, member, clientSide, relay }: Relayed): Promise<number> {
  client.socket.pause();
  member.socket.write(body);
  let before = -1;
  await eventually(() => {
    const isSame = before === relay.bytesOut;
    before = relay.bytesOut;
    return isSame && clientSide.bufferedBytes > 0;
  });
  return before;
}

const large = [
  { way: 'down', reader: 'fast', whose: 'a client' },
  { way: 'down', reader: 'slow', whose: 'a client' },
  { way: 'up', reader: 'fast', whose: 'a client' },
  { way: 'up', reader: 'slow', whose: 'a client' },
  { way: 'down', reader: 'fast', whose: 'a client behind a PROXY header' },
  { way: 'up', reader: 'slow', whose: 'a client behind a PROXY header' },
];

it.each(large)('brings all of a large message of $whose $way to a $reader reader, once and in order, and then the end', async (given) => {
  const { way, reader, whose } = given;
  const watched = new Watched();
  const header = whose === 'a client' ? '' : 'PROXY TCP4 198.51.100.7 198.51.100.8 4711 143\r\n';
  const { client, member, clientSide, relay } = await relayed(watched, undefined, header);
  if (header !== '') expect(clientSide.remoteAddress).toBe('198.51.100.7');
  const [from, to] = way === 'down' ? [member, client] : [client, member];
  if (reader === 'slow') readSlowly(to.socket);
  from.socket.end(body);
  await to.until(() => to.hasEnded);
  expect(Buffer.concat(to.chunks).equals(body)).toBe(true);
  expect(way === 'down' ? relay.bytesOut : relay.bytesIn).toBe(body.length);
  expect(watched.passed).toBeGreaterThan(1_000_000);
  expect(watched.pipeEnds.size).toBeLessThanOrEqual(2 * idlePipesMax);
});

it('loses nothing both ways at once where the system moves as little as it likes and is interrupted', async () => {
  const watched = new Watched();
  const { splice: whole } = watched;
  let turns = 0;
  watched.splice = (from, to, count) => {
    turns += 1;
    if (turns % 5 === 0) return watched.fail(4);
    return whole(from, to, Math.min(count, 1 + ((turns * 7_919) % 200_000)));
  };
  const pairs = await Promise.all([relayed(watched), relayed(watched), relayed(watched)]);
  const upward = body.subarray(0, 9_000_000);
  const downward = body.subarray(7_000_000);
  await Promise.all(
    pairs.map(async ({ client, member }, at) => {
      if (at > 0) readSlowly(client.socket);
      if (at > 1) readSlowly(member.socket);
      client.socket.write(upward);
      member.socket.write(downward);
      await member.until(() => lengthOf(member) >= upward.length);
      await client.until(() => lengthOf(client) >= downward.length);
      expect(Buffer.concat(member.chunks).equals(upward)).toBe(true);
      expect(Buffer.concat(client.chunks).equals(downward)).toBe(true);
    }),
  );
  expect(watched.passed).toBeGreaterThan(1_000_000);
});

it('reads no more while a pipe is not empty, and keeps what is written meanwhile behind it', async () => {
  const watched = new Watched();
  const all = await relayed(watched);
  const { client, member, clientSide, relay } = all;
  const before = await untilHeld(all);
  expect(clientSide.bufferedBytes).toBeGreaterThan(65_536);
  expect(member.socket.writableLength).toBeGreaterThan(0);
  const words = Buffer.from('said by the frontend');
  const buffered = clientSide.bufferedBytes;
  expect(clientSide.write(words)).toBe(false);
  expect(clientSide.writeAll([words, words])).toBe(false);
  expect(clientSide.bufferedBytes).toBe(buffered + 3 * words.length);
  client.socket.resume();
  const expected = Buffer.concat([body.subarray(0, before), words, words, words, body.subarray(before)]);
  await client.until(() => lengthOf(client) >= expected.length);
  expect(Buffer.concat(client.chunks).equals(expected)).toBe(true);
  expect([clientSide.bufferedBytes, relay.bytesOut]).toEqual([0, body.length]);
});

it.each(['end', 'finish'] as const)('sends what is in a pipe before it ends: %s', async (how) => {
  const watched = new Watched();
  const all = await relayed(watched);
  const before = await untilHeld(all);
  all.clientSide[how]?.();
  await settled();
  all.client.socket.resume();
  await all.client.untilGone();
  expect(Buffer.concat(all.client.chunks).equals(body.subarray(0, before))).toBe(true);
  expect(watched.pipeEnds.size).toBeLessThanOrEqual(2 * idlePipesMax);
});

it.each(['dropped', 'reset'])('throws away what is in a pipe with the connection that is %s, and the pipe with it', async (how) => {
  const watched = new Watched();
  const all = await relayed(watched);
  await untilHeld(all);
  expect(watched.pipeEnds.size).toBe(2);
  if (how === 'dropped') all.clientSide.destroy();
  else all.client.socket.resetAndDestroy();
  await all.member.untilGone();
  expect(watched.pipeEnds.size).toBe(0);
  expect(all.clientSide.bufferedBytes).toBe(0);
  all.member.socket.destroy();
  await eventually(() => all.ends.length > 0);
  expect(all.ends).toEqual([how === 'dropped' ? 'client' : 'client error']);
});

it('moves nothing to a connection that has ended, which goes on reading', async () => {
  const watched = new Watched();
  const { client, member, clientSide, relay, ends } = await relayed(watched);
  clientSide.end();
  await client.until(() => client.hasEnded);
  member.socket.write(body);
  await eventually(() => relay.bytesOut === body.length);
  client.socket.write('still here');
  await member.untilText('still here');
  expect([ends, watched.passed, lengthOf(client)]).toEqual([[], 0, 0]);
});

it('moves nothing to a connection that is gone, whose descriptor may be another’s by now', async () => {
  const watched = new Watched();
  const { client, member, clientSide, relay } = await relayed(watched);
  member.socket.write(body);
  await client.until(() => lengthOf(client) === body.length);
  expect(watched.passed).toBeGreaterThan(0);
  clientSide.destroy();
  await member.untilGone();
  let moves = 0;
  watched.splice = () => {
    moves += 1;
    return watched.fail(9);
  };
  member.socket.write(body);
  await eventually(() => relay.bytesOut === 2 * body.length);
  expect(moves).toBe(0);
});

it('reads what lies there of a peer that has ended', async () => {
  const watched = new Watched();
  watched.room = 1_048_576;
  const { client, member, channel } = await relayed(watched);
  channel.pause();
  await settled();
  const last = body.subarray(0, 300_000);
  member.socket.end(last);
  await settled();
  channel.resume();
  await client.until(() => client.hasEnded);
  expect(Buffer.concat(client.chunks).equals(last)).toBe(true);
  expect(watched.passed).toBe(0);
});

it('closes a connection that is reset while a pipe is emptied into it, and tells why', async () => {
  const watched = new Watched();
  const { splice: whole } = watched;
  const all = await relayed(watched);
  watched.splice = (from, to, count) => (watched.pipeEnds.has(to) ? whole(from, to, count) : watched.fail(104));
  all.member.socket.write(body);
  await all.client.untilGone();
  expect(watched.pipeEnds.size).toBe(0);
  all.member.socket.destroy();
  await eventually(() => all.ends.length > 0);
  expect(all.ends).toEqual(['client error']);
});

it('brings the beginning of what a member said that breaks off, and says nothing in the middle of it', async () => {
  const watched = new Watched();
  const all = await relayed(watched, () => 'BYE');
  const { client, member } = all;
  await untilHeld(all);
  member.socket.resetAndDestroy();
  client.socket.resume();
  await client.untilGone();
  const seen = Buffer.concat(client.chunks);
  const text = seen.subarray(-3).toString() === 'BYE' ? seen.subarray(0, -3) : seen;
  expect(text.equals(body.subarray(0, text.length))).toBe(true);
  client.socket.destroy();
  await eventually(() => all.ends.length > 0);
  expect(all.ends).toEqual(['member error']);
  expect(watched.pipeEnds.size).toBeLessThanOrEqual(2 * idlePipesMax);
});

it('tells of an error that is met where bytes are moved as of one that is read, and not as of an end', async () => {
  const watched = new Watched();
  watched.splice = () => watched.fail(104);
  const all = await relayed(watched);
  all.member.socket.write(body);
  await all.client.untilGone();
  all.client.socket.destroy();
  await eventually(() => all.ends.length > 0);
  expect(all.ends).toEqual(['member error']);
  expect(watched.pipeEnds.size).toBeLessThanOrEqual(2);
});

it.each([
  { what: 'no pipe is to be had', errno: undefined },
  { what: 'the system cannot do it', errno: 22 },
  { what: 'the system has nothing after all', errno: 11 },
])('copies where $what', async ({ errno }) => {
  const watched = new Watched();
  watched.hasPipes = errno !== undefined;
  let moves = 0;
  watched.splice = () => {
    moves += 1;
    return watched.fail(errno ?? 9);
  };
  const { client, member } = await relayed(watched);
  member.socket.end(body);
  await client.until(() => client.hasEnded);
  expect(Buffer.concat(client.chunks).equals(body)).toBe(true);
  expect(moves > 0).toBe(errno !== undefined);
});

it('copies to a connection that sends by a clock of its own', async () => {
  const answer = (name: string, returned = 0) =>
    isPaced(
      {
        getSocketOption: (_: number, level: number, option: number, value: Buffer, length: Buffer) => {
          expect([level, option, length.readInt32LE()]).toEqual([6, 13, value.length]);
          value.fill(0).write(name);
          return returned;
        },
      } as unknown as SystemCalls,
      1,
    );
  expect(['reno', 'cubic', 'bbr', 'bbr2'].map((name) => answer(name))).toEqual([false, false, true, true]);
  expect(answer('reno', -1)).toBe(true);
  const watched = new Watched();
  watched.paced = 'bbr';
  const { client, member } = await relayed(watched);
  member.socket.end(body);
  await client.until(() => client.hasEnded);
  expect(Buffer.concat(client.chunks).equals(body)).toBe(true);
  expect(watched.passed).toBe(0);
});

it('takes pipes as long as there are not too many, and again once one is given back', async () => {
  const { pipes, pipeEnds } = new Watched();
  const held = [];
  const { fd, send } = await filled();
  for (let i = 0; i < 100; i += 1) {
    await send(70_000);
    const pipe = pipes.fill(fd);
    if (pipe === undefined) break;
    // All but the last of what lies there.
    expect(pipe.length).toBeGreaterThanOrEqual(60_000);
    held.push(pipe);
  }
  expect([held.length, pipeEnds.size]).toEqual([64, 128]);
  pipes.giveBack(held[0] as (typeof held)[number]);
  expect(pipeEnds.size).toBe(126);
  const next = pipes.fill(fd);
  expect(next?.length).toBeGreaterThan(0);
  held.push(next as (typeof held)[number]);
  for (const pipe of held.slice(1)) pipes.giveBack(pipe);
  expect(pipeEnds.size).toBe(0);
});

it('leaves the end of what lies in a socket to be read, and little as a whole', async () => {
  const { pipes } = new Watched();
  const { fd, send } = await filled();
  await send(65_535);
  expect(pipes.fill(fd)).toBeUndefined();
  await send(1);
  const pipe = pipes.fill(fd);
  expect(pipe?.length).toBe(65_536 - 4_096);
  pipe?.close();
});

it('keeps few pipes that are empty', async () => {
  const { pipes, pipeEnds } = new Watched();
  const [{ fd, send }, sink] = [await filled(), await filled()];
  const held = [];
  for (let i = 0; i < 2 * idlePipesMax; i += 1) {
    await send(70_000);
    const pipe = pipes.fill(fd);
    if (pipe !== undefined) held.push(pipe);
  }
  expect(held.length).toBe(2 * idlePipesMax);
  for (const pipe of held) {
    await eventually(() => {
      pipe.giveTo(sink.fd);
      return pipe.length === 0;
    });
    pipes.giveBack(pipe);
  }
  expect(pipeEnds.size).toBe(2 * idlePipesMax);
});

it.each([22, 104])('has its pipe back where nothing could be moved into it: %s', async (errno) => {
  const watched = new Watched();
  watched.splice = () => watched.fail(errno);
  const { fd, send } = await filled();
  await send(70_000);
  for (let i = 0; i < 3; i += 1) {
    if (errno === 22) expect(watched.pipes.fill(fd)).toBeUndefined();
    else expect(() => watched.pipes.fill(fd)).toThrow('read ECONNRESET');
    expect(watched.pipeEnds.size).toBe(2);
  }
});

/** A socket with as much in it as is sent. */
async function filled(): Promise<{ fd: number; send: (count: number) => Promise<void> }> {
  const { port, next } = await peerServer();
  const fd = real.socket(linux.familyInet, linux.sockStream, 0);
  onTestFinished(() => void real.close(fd));
  const room = Buffer.from(Int32Array.of(1_048_576).buffer);
  real.setSocketOption(fd, linux.levelSocket, optionReceiveBuffer, room, room.length);
  const to = encodeSocketAddress('127.0.0.1', port) as Buffer;
  expect(real.connect(fd, to, to.length)).toBe(0);
  const peer = await next();
  const send = async (count: number): Promise<void> => {
    await new Promise<void>((sent) => peer.socket.write(Buffer.alloc(count), () => sent()));
    await settled();
  };
  return { fd, send };
}

it('brings what stands before and behind urgent data in the middle of much', async () => {
  const watched = new Watched();
  const accepted = Promise.withResolvers<Connection>();
  const listener = await listen(watched.network, {}, (connection) => accepted.resolve(connection));
  const fd = real.socket(linux.familyInet, linux.sockStream, 0);
  onTestFinished(() => void real.close(fd));
  const to = encodeSocketAddress('127.0.0.1', listener.port) as Buffer;
  expect(real.connect(fd, to, to.length)).toBe(0);
  const from = await within(accepted.promise, 'nobody came');
  from.pause();
  const { port, next } = await peerServer();
  const channel = await watched.network.connect({ port });
  const member = await next();
  const relay = splice(spliceOwner(), from, channel, Buffer.alloc(0));
  onTestFinished(() => relay.destroy());
  let at = 0;
  const urgently = 1;
  for (let i = 0; i < 40; i += 1) {
    for (const piece of [body.subarray(at, at + 150_000), Buffer.from('!')]) {
      const flags = piece.length === 1 ? urgently : 0;
      let sent = 0;
      await eventually(() => {
        // MSG_DONTWAIT: the other side has its turn here.
        const count = real.send(fd, piece.subarray(sent), piece.length - sent, flags | 0x40);
        if (count > 0) sent += count;
        return sent === piece.length;
      });
    }
    at += 150_000;
    await member.until(() => lengthOf(member) >= at);
  }
  expect(Buffer.concat(member.chunks).equals(body.subarray(0, at))).toBe(true);
});

it.each(['the client', 'the member'])('reads all of what comes where $0 is under TLS', async (who) => {
  const watched = new Watched();
  const { ca, server } = await identities();
  const atListener: ListenOptions = who === 'the client' ? { tls: server } : {};
  const accepted = Promise.withResolvers<Connection>();
  const listener = await listen(watched.network, atListener, (connection) => {
    connection.pause();
    accepted.resolve(connection);
  });
  const tls = { ca: ca.certificate, serverName: 'localhost' };
  const secured: ConnectOptions = { tls };
  const client = new Side(await watched.network.connect({ port: listener.port, ...(who === 'the client' ? secured : {}) }));
  const memberSide = Promise.withResolvers<Side>();
  const backend = await listen(watched.network, who === 'the client' ? {} : { tls: server }, (connection) =>
    memberSide.resolve(new Side(connection)),
  );
  const channel = await watched.network.connect({ port: backend.port, ...(who === 'the client' ? {} : secured) });
  const member = await memberSide.promise;
  const relay = splice(spliceOwner(), await accepted.promise, channel, Buffer.alloc(0));
  onTestFinished(() => relay.destroy());
  member.write(body);
  client.write(body);
  await client.until(() => client.bytes === body.length);
  await member.until(() => member.bytes === body.length);
  for (const side of [client, member]) expect(Buffer.concat(side.chunks).equals(body)).toBe(true);
  expect(watched.passed).toBe(0);
});

it('moves nothing that is under TLS by now', async () => {
  const watched = new Watched();
  watched.room = 1_048_576;
  const { ca, server } = await identities();
  const accepted = Promise.withResolvers<Connection>();
  const listener = await listen(watched.network, {}, (connection) => accepted.resolve(connection));
  const client = new Side(await watched.network.connect({ port: listener.port }));
  const from = await within(accepted.promise, 'nobody came');
  onTestFinished(() => from.destroy());
  const { port, next } = await peerServer();
  const to = new Side(await watched.network.connect({ port }));
  const far = await next();
  // While this is full nothing can be moved to it, and whether there is much to move remains to be seen.
  far.socket.pause();
  to.write(body);
  let count = 0;
  const take = (chunk: Buffer): void => {
    count += chunk.length;
  };
  from.handle({ data: take, lent: take, passesTo: () => to.connection, close: () => {} });
  client.write(body.subarray(0, 32_768));
  await eventually(() => count === 32_768);
  far.socket.resume();
  await far.until(() => lengthOf(far) === body.length);
  await Promise.all([from.startTls(server), client.startTlsAsClient({ ca: ca.certificate, serverName: 'localhost' })]);
  from.pause();
  await settled();
  client.write(body.subarray(0, 400_000));
  await settled();
  from.resume();
  await eventually(() => count === 432_768);
  expect([watched.passed, lengthOf(far)]).toEqual([0, body.length]);
});

it('takes nothing from a client whose session moves, and gives the rest to where that goes on', async () => {
  const watched = new Watched();
  const { client, member, relay, channel } = await relayed(watched);
  member.socket.pause();
  client.socket.write(body);
  await eventually(() => channel.bufferedBytes > 0);
  const { port, next } = await peerServer();
  relay.move(() => watched.network.connect({ port }));
  const before = relay.bytesIn;
  member.socket.resume();
  await member.until(() => member.hasEnded);
  expect(relay.bytesIn).toBe(before);
  member.socket.end();
  const second = await next();
  await second.until(() => lengthOf(second) >= body.length - before);
  expect(Buffer.concat([...member.chunks, ...second.chunks]).equals(body)).toBe(true);
  expect(lengthOf(member)).toBe(before);
});
