/** What every implementation of `Network` makes of sockets in clear, with Node's own at the other end: resets, late handlers, lent reads, addresses. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Connection } from '#common/network/network.ts';
import {
  codeOf,
  expectNoFaults,
  failureOf,
  identities,
  implementations,
  lacks,
  listen,
  type Peer,
  peerServer,
  peerTo,
  pieces,
  roles,
  Side,
  settled,
  within,
  withPeer,
} from './network-suite.ts';

vi.setConfig({ testTimeout: 60_000 });
afterEach(expectNoFaults);

const cases = implementations.flatMap(({ name, network }) => roles.map((role) => ({ name, network, role })));

// Whoever handles a connection late resumes it as well: with what came early, it may have been paused for want of handlers.
describe.each(cases)('a connection $role by $name', ({ network, role }) => {
  it('reports a reset as an error, once', async () => {
    const { side, peer } = await withPeer(role, network);
    peer.socket.resetAndDestroy();
    expect(await side.untilClosed()).toBeInstanceOf(Error);
    await settled();
    expect(side.events).toEqual(['close']);
  });

  it('reports a reset that comes while it writes and is not asked to read', async () => {
    const { side, peer } = await withPeer(role, network);
    peer.socket.pause();
    side.pause();
    side.write(Buffer.alloc(16_777_216));
    peer.socket.resetAndDestroy();
    side.write('more');
    expect(await side.untilClosed()).toBeInstanceOf(Error);
    expect(side.connection.bufferedBytes).toBe(0);
  });

  it('closes with an error when the peer has gone and something is written to it', async () => {
    const { side, peer } = await withPeer(role, network);
    peer.socket.destroy();
    await side.untilEnd();
    // The first is answered by a reset, the second meets it.
    while (!side.isClosed) {
      side.write('is anybody there?');
      await new Promise(setImmediate);
    }
    expect(side.closeError).toBeInstanceOf(Error);
  });

  it('closes in good order however the two ends fall together', async () => {
    const { side, peer } = await withPeer(role, network);
    side.write('last');
    side.end();
    peer.socket.end('last as well');
    expect(await side.untilClosed()).toBeUndefined();
    expect(side.text()).toBe('last as well');
    await peer.until(() => peer.isClosed);
    expect([peer.text(), peer.error]).toEqual(['last', undefined]);
  });

  it('is closed for the peer too when it is destroyed', async () => {
    const { side, peer } = await withPeer(role, network);
    side.write('x');
    await peer.untilText('x');
    side.destroy();
    await peer.untilGone();
    expect(await side.untilClosed()).toBeUndefined();
  });

  it('keeps what came before anybody handled it, and hands it on once', async () => {
    const { side, peer } = await withPeer(role, network, false);
    peer.socket.write('early');
    await settled();
    side.watch();
    side.resume();
    await side.untilText('early');
    peer.socket.write(' and late');
    await side.untilText('early and late');
  });

  it('keeps much that came before anybody handled it, within what the system holds, and the end', async () => {
    const { side, peer } = await withPeer(role, network, false);
    const whole = Buffer.alloc(20_000_000, 'much ');
    peer.socket.end(whole);
    await settled();
    side.watch();
    side.resume();
    await side.untilEnd();
    expect(Buffer.concat(side.chunks).equals(whole)).toBe(true);
    side.end();
    expect(await side.untilClosed()).toBeUndefined();
  });

  it('reports an end that came before anybody handled it', async () => {
    const { side, peer } = await withPeer(role, network, false);
    peer.socket.end();
    await settled();
    side.watch();
    side.resume();
    await side.untilEnd();
    side.write('answer');
    side.end();
    await peer.until(() => peer.hasEnded);
    expect(peer.text()).toBe('answer');
    expect(await side.untilClosed()).toBeUndefined();
    expect(side.events).toEqual(['end', 'close']);
  });

  it('reports a reset that came before anybody handled it', async () => {
    const { side, peer } = await withPeer(role, network, false);
    peer.socket.resetAndDestroy();
    await settled();
    side.watch();
    side.resume();
    expect(await side.untilClosed()).toBeInstanceOf(Error);
    expect(side.events).toEqual(['close']);
  });

  it('reports that it was destroyed to whoever handles it after that', async () => {
    const { side } = await withPeer(role, network, false);
    const reason = new Error('not wanted');
    side.destroy(reason);
    await settled();
    side.watch();
    expect(await side.untilClosed()).toBe(reason);
  });

  it('stays paused where it was paused before anybody handled it', async () => {
    const { side, peer } = await withPeer(role, network, false);
    side.pause();
    side.watch();
    peer.socket.end('held');
    await settled();
    expect(side.events).toEqual([]);
    side.resume();
    await side.untilEnd();
    expect(side.text()).toBe('held');
  });

  it('sends bytes as they are, all 256 of them', async () => {
    const { side, peer } = await withPeer(role, network);
    const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    side.writeAll([all.subarray(0, 100), all.subarray(100)]);
    await peer.until(() => Buffer.concat(peer.chunks).length === 256);
    expect(Buffer.concat(peer.chunks).equals(all)).toBe(true);
    peer.socket.write(all);
    await side.until(() => side.bytes === 256);
    expect(Buffer.concat(side.chunks).equals(all)).toBe(true);
  });

  it('hands a dialogue of short lines on without waiting for more', async () => {
    const { side, peer } = await withPeer(role, network);
    side.watch({ data: (chunk) => side.write(chunk) });
    // With Nagle's algorithm and late acknowledgements these would take a minute.
    for (let i = 0; i < 1500; i += 1) {
      const expected = peer.text().length + 2;
      peer.socket.write('a');
      peer.socket.write('b');
      await peer.until(() => peer.text().length === expected);
      peer.chunks.length = 0;
    }
  });
});

describe.each(implementations.filter(({ name }) => !lacks(name, 'lending')))(
  'a connection of $name that lends what it reads',
  ({ network }) => {
    async function lending(): Promise<{ side: Side; peer: Peer }> {
      const { port, next } = await peerServer();
      const connection = await network.connect({ host: '127.0.0.1', port });
      return { side: new Side(connection, false), peer: await next() };
    }

    it('leaves alone what is held, for as long as it is held, whatever comes on this and other connections', async () => {
      const several = await Promise.all([lending(), lending(), lending()]);
      const readings = several.map(async ({ side, peer }, number) => {
        const whole = Buffer.concat([...pieces(6_000_000, number + 1)]);
        const held: { chunk: Buffer; copy: Buffer }[] = [];
        const received: Buffer[] = [];
        let changed = 0;
        let lent = 0;
        let given = 0;
        // Taken at once for a while, then held over some turns of the event loop, in which more comes.
        const take = (chunk: Buffer): void => {
          const copy = Buffer.from(chunk);
          received.push(copy);
          if (received.length % 3 !== 0) return;
          held.push({ chunk, copy });
          if (held.length > 1) return;
          setImmediate(() =>
            setImmediate(() => {
              for (const piece of held.splice(0)) if (!piece.chunk.equals(piece.copy)) changed += 1;
            }),
          );
        };
        side.watch({
          lent: (chunk) => {
            if (held.length > 0) changed += 1;
            lent += 1;
            take(chunk);
          },
          data: (chunk) => {
            given += 1;
            take(chunk);
          },
          holdsLent: () => held.length > 0,
        });
        peer.socket.end(whole);
        await side.untilEnd();
        expect(Buffer.concat(received).equals(whole)).toBe(true);
        expect(changed).toBe(0);
        expect(lent).toBeGreaterThan(0);
        expect(lent + given).toBe(received.length);
      });
      await Promise.all(readings);
    });

    it('gives away what it reads where nobody takes it lent', async () => {
      const { side, peer } = await lending();
      side.watch();
      const whole = Buffer.concat([...pieces(3_000_000, 5)]);
      peer.socket.end(whole);
      await side.untilEnd();
      expect(Buffer.concat(side.chunks).equals(whole)).toBe(true);
    });

    it('keeps what came before anybody handled it, and is paused and resumed like any other', async () => {
      const { side, peer } = await lending();
      const other = await lending();
      peer.socket.write('early, ');
      await settled();
      other.peer.socket.write('on another one');
      other.side.watch({ lent: (chunk) => void other.side.chunks.push(Buffer.from(chunk)) });
      other.side.resume();
      await other.side.untilText('on another one');
      const record = (chunk: Buffer): void => void side.chunks.push(Buffer.from(chunk));
      side.watch({ lent: record, data: record });
      side.resume();
      await side.untilText('early, ');
      side.pause();
      peer.socket.end('late');
      await settled();
      expect(side.text()).toBe('early, ');
      expect(side.hasEnded).toBe(false);
      side.resume();
      await side.untilEnd();
      expect(side.text()).toBe('early, late');
    });

    it('may be destroyed while it lends', async () => {
      const { side, peer } = await lending();
      side.watch({ lent: () => side.destroy(), data: () => side.destroy() });
      peer.socket.write(Buffer.alloc(1_000_000));
      expect(await side.untilClosed()).toBeUndefined();
      expect(side.events.length).toBe(2);
    });
  },
);

describe.each(implementations)('connecting by $name', ({ network }) => {
  it('fails where nobody listens', async () => {
    const { server, port } = await peerServer();
    await new Promise((closed) => server.close(closed));
    const failure = await failureOf(network.connect({ host: '127.0.0.1', port }));
    expect(failure.code).toBe('NET_CONNECT_FAILED');
    expect(failure.message).toContain(`127.0.0.1:${port}`);
  });

  it('fails where the host has no such name or path', async () => {
    expect(['NET_CONNECT_FAILED', 'NET_TIMEOUT']).toContain(
      await codeOf(network.connect({ host: 'nobody.invalid', port: 25, timeoutMs: 2000 })),
    );
    expect(await codeOf(network.connect({ path: join(tmpdir(), 'archipelago-nobody-listens-here.sock') }))).toBe('NET_CONNECT_FAILED');
  });

  it('gives up when the time is over: a system that drops what comes', async () => {
    const port = await deafPort();
    const started = performance.now();
    const failure = await failureOf(network.connect({ host: '127.0.0.1', port, timeoutMs: 300 }));
    expect(failure.code).toBe('NET_TIMEOUT');
    expect(failure.message).toContain(`127.0.0.1:${port}`);
    expect(performance.now() - started).toBeGreaterThan(290);
  });

  it('gives up when the time is over: a peer that never answers the TLS handshake', async () => {
    const { ca } = await identities();
    const { port, next } = await peerServer();
    const outcome = codeOf(
      network.connect({ host: '127.0.0.1', port, timeoutMs: 500, tls: { serverName: 'localhost', ca: ca.certificate } }),
    );
    const peer = await next();
    expect(await outcome).toBe('NET_TIMEOUT');
    // The connection is not left behind.
    await peer.untilGone();
  });

  it('sees first what came while the process was held up, and its time with it', async () => {
    const { port } = await peerServer();
    // The event loop looks at its timers next.
    await new Promise(setImmediate);
    const outcome = network.connect({ host: '127.0.0.1', port, timeoutMs: 50 });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
    new Side(await within(outcome, 'no connection')).destroy();
  });

  it('takes host names, and addresses of either kind', async () => {
    const { port, next } = await peerServer();
    for (const host of ['localhost', '127.0.0.1']) {
      const side = new Side(await network.connect({ host, port }));
      expect(side.connection.remoteAddress).toBe('127.0.0.1');
      expect(side.connection.remotePort).toBe(port);
      await next();
    }
    if (!(await hasIpv6())) return;
    const six = await peerServer('::1');
    const side = new Side(await network.connect({ host: '::1', port: six.port }));
    expect([side.connection.remoteAddress, side.connection.localAddress]).toEqual(['::1', '::1']);
    const peer = await six.next();
    peer.socket.write('six');
    await side.untilText('six');
  });

  it('comes from the local address that it is told', async () => {
    const { port, next } = await peerServer();
    const side = new Side(await network.connect({ host: '127.0.0.1', port, localAddress: '127.0.0.3' }));
    expect(side.connection.localAddress).toBe('127.0.0.3');
    expect((await next()).socket.remoteAddress).toBe('127.0.0.3');
    // TEST-NET-1 (RFC 5737) is no address of any machine.
    expect(await codeOf(network.connect({ host: '127.0.0.1', port, localAddress: '192.0.2.1' }))).toBe('NET_CONNECT_FAILED');
  });
});

describe.each(implementations)('listening by $name', ({ network }) => {
  it('tells its address, and fails on a port that is taken', async () => {
    const listener = await listen(network, {}, () => {});
    expect(listener.address).toBe('127.0.0.1');
    expect(listener.port).toBeGreaterThan(0);
    const failure = await failureOf(network.listen({ host: '127.0.0.1', port: listener.port }, () => {}));
    expect(failure.code).toBe('NET_CONNECT_FAILED');
    expect(failure.message).toContain(`127.0.0.1:${listener.port}`);
    expect(await codeOf(network.listen({ host: '192.0.2.1', port: 0 }, () => {}))).toBe('NET_CONNECT_FAILED');
  });

  it('frees the port at once when it is closed, while open connections go on', async () => {
    const sides: Side[] = [];
    const accept = (connection: Connection): void => {
      const side = new Side(connection);
      side.watch({ data: (chunk) => side.write(chunk) });
      sides.push(side);
    };
    const first = await listen(network, {}, accept);
    const peer = await peerTo(first.port);
    peer.socket.write('1');
    await peer.untilText('1');
    await first.close();
    expect(await codeOf(network.connect({ host: '127.0.0.1', port: first.port }))).toBe('NET_CONNECT_FAILED');
    const second = await listen(network, { host: '127.0.0.1', port: first.port }, accept);
    expect(second.port).toBe(first.port);
    const other = await peerTo(second.port);
    other.socket.write('2');
    await other.untilText('2');
    peer.socket.write('3');
    await peer.untilText('13');
    expect(sides.length).toBe(2);
    await second.close();
    // A second time does no harm.
    await second.close();
  });

  it('shows the addresses of an IPv4 client plainly where it listens for both kinds', async () => {
    if (!(await hasIpv6())) return;
    const accepted = Promise.withResolvers<Side>();
    const listener = await listen(network, { host: '::' }, (connection) => accepted.resolve(new Side(connection)));
    expect(listener.address).toBe('::');
    await peerTo(listener.port);
    const { connection } = await within(accepted.promise, 'nothing was accepted');
    expect([connection.remoteAddress, connection.localAddress]).toEqual(['127.0.0.1', '127.0.0.1']);
    expect(connection.localPort).toBe(listener.port);
  });

  it('tells each connection who it is', async () => {
    const sides = new Map<number, Side>();
    const listener = await listen(network, {}, (connection) => void sides.set(connection.remotePort, new Side(connection)));
    const peers = await Promise.all(Array.from({ length: 200 }, () => peerTo(listener.port)));
    for (const peer of peers) peer.socket.write(`${peer.socket.localPort}`);
    for (const { socket } of peers) {
      const port = socket.localPort as number;
      await within(
        (async () => {
          while (!sides.has(port)) await new Promise(setImmediate);
        })(),
        'a connection was not accepted',
      );
      await sides.get(port)?.untilText(`${port}`);
    }
  });

  it('serves a path, for its own user only where that is asked for', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-network-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    const umask = process.umask();
    for (const ownUserOnly of [true, false]) {
      const path = join(directory, `${ownUserOnly}.sock`);
      const accepted = Promise.withResolvers<Side>();
      const listener = await listen(network, { path, ownUserOnly }, (connection) => accepted.resolve(new Side(connection)));
      expect(listener.address).toBe(path);
      const { mode } = await stat(path);
      if (ownUserOnly) expect((mode & 0o777).toString(8)).toBe('600');
      const client = new Side(await network.connect({ path }));
      const server = await within(accepted.promise, 'nothing was accepted');
      client.write('by path');
      client.end();
      await server.untilEnd();
      expect(server.text()).toBe('by path');
      server.write('likewise');
      server.end();
      await client.untilEnd();
      expect(client.text()).toBe('likewise');
      expect([await client.untilClosed(), await server.untilClosed()]).toEqual([undefined, undefined]);
      expect([client.connection.remoteAddress, server.connection.remoteAddress]).toEqual(['', '']);
      expect(await codeOf(network.listen({ path }, () => {}))).toBe('NET_CONNECT_FAILED');
      await listener.close();
      // The path is free like a port.
      const again = await listen(network, { path, ownUserOnly }, () => {});
      await again.close();
    }
    // What the process makes later has the rights that it had before.
    expect(process.umask()).toBe(umask);
  });

  it('tells nobody of what belongs to connections that a handler has just destroyed', async () => {
    const { port, next } = await peerServer();
    const sides: Side[] = [];
    const peers: Peer[] = [];
    for (let i = 0; i < 40; i += 1) {
      sides.push(new Side(await network.connect({ host: '127.0.0.1', port })));
      peers.push(await next());
    }
    const first = Promise.withResolvers<Side>();
    for (const side of sides) {
      side.watch({
        data: () => {
          // What else has come in this turn is for descriptors that new connections are given at once.
          for (const other of sides) if (other !== side) other.destroy();
          first.resolve(side);
        },
      });
    }
    for (const { socket } of peers) socket.write('x');
    const left = await within(first.promise, 'nothing came');
    const fresh = (await within(Promise.all(sides.map(() => network.connect({ host: '127.0.0.1', port }))), 'no connections')).map(
      (connection) => new Side(connection),
    );
    for (const side of sides) if (side !== left) expect(await side.untilClosed()).toBeUndefined();
    expect(sides.filter(({ bytes }) => bytes > 0)).toEqual([left]);
    for (const side of fresh) side.write(`${side.connection.localPort}`);
    for (const _ of fresh) {
      const peer = await next();
      await peer.untilText(`${peer.socket.remotePort}`);
      peer.socket.write(`${peer.socket.remotePort}`);
    }
    for (const side of fresh) await side.untilText(`${side.connection.localPort}`);
    expect(left.isClosed).toBe(false);
  });

  it('leaves no descriptor behind, however connections come to their end', async () => {
    const listener = await listen(network, {}, (connection) => {
      connection.handle({ data: (chunk) => connection.write(chunk), close: () => {} });
    });
    const open = async (number: number): Promise<void> => {
      const connection = await network.connect({ host: '127.0.0.1', port: listener.port });
      const closed = Promise.withResolvers<void>();
      const answered = Promise.withResolvers<void>();
      connection.handle({ data: () => answered.resolve(), close: () => closed.resolve() });
      if (number % 4 !== 3) {
        connection.write('x');
        await answered.promise;
      }
      if (number % 2 === 0) connection.end();
      else connection.destroy();
      await closed.promise;
    };
    await open(0);
    await settled();
    const before = await descriptors();
    for (let i = 0; i < 2000; i += 100) {
      await within(Promise.all(Array.from({ length: 100 }, (_, j) => open(i + j))), 'a connection did not close');
    }
    await within(
      (async () => {
        while ((await descriptors()) > before + 5) await new Promise((resolve) => setTimeout(resolve, 20));
      })(),
      'descriptors were left open',
    );
  });

  it('leaves no descriptor behind of connections that could not be made', async () => {
    const { server, port } = await peerServer();
    await new Promise((closed) => server.close(closed));
    await codeOf(network.connect({ host: '127.0.0.1', port }));
    const before = await descriptors();
    for (let i = 0; i < 200; i += 1) await codeOf(network.connect({ host: '127.0.0.1', port }));
    await within(
      (async () => {
        while ((await descriptors()) > before + 5) await new Promise((resolve) => setTimeout(resolve, 20));
      })(),
      'descriptors were left open',
    );
  });
});

describe.each(implementations)('an exception in a handler of $name', ({ name }) => {
  it.each(['in clear', 'under TLS'])('reaches the process and leaves the other connections alone, %s', async (kind) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'network-thrower.ts'), name, kind], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    ended(child);
    let said = '';
    let complained = '';
    child.stdout.on('data', (chunk) => {
      said += chunk;
    });
    child.stderr.on('data', (chunk) => {
      complained += chunk;
    });
    const [code] = await within(once(child, 'exit'), () => `the child did not end: ${said}${complained}`);
    expect({ code, complained: code === 0 ? '' : complained }).toEqual({ code: 0, complained: '' });
    expect(JSON.parse(said)).toEqual({ answered: 20, thrown: { accept: 1, data: 10, end: 10, close: 10, drain: 1 } });
  });
});

async function descriptors(): Promise<number> {
  return (await readdir('/proc/self/fd')).length;
}

/** Whether this machine has the loopback address of IPv6. */
function hasIpv6(): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(0, '::1', () => server.close(() => resolve(true)));
  });
}

/** Ends a child with the test. */
function ended(child: ChildProcess): void {
  onTestFinished(() => {
    if (child.exitCode === null) child.kill('SIGKILL');
  });
}

/** A port whose process accepts nothing and whose queue is full, so that the system answers no further attempt. */
async function deafPort(): Promise<number> {
  const program = `
    const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
      require('node:fs').writeSync(1, server.address().port + '\\n');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  ended(child);
  const [line] = (await within(once(createInterface(child.stdout), 'line'), 'the deaf server did not start')) as [string];
  const port = Number(line);
  for (let i = 0; i < 16; i += 1) {
    const socket = connect({ port, host: '127.0.0.1' }).on('error', () => {});
    onTestFinished(() => void socket.destroy());
  }
  await settled();
  return port;
}
