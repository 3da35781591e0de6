/** What connections and listeners of every implementation of `Network` promise; under TLS see network-tls.test.ts. */
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { expectNoFaults, joined, kinds, pairs, receive, send, settled, within } from './network-suite.ts';

vi.setConfig({ testTimeout: 60_000 });
afterEach(expectNoFaults);

const cases = pairs.flatMap((pair) => kinds.map((kind) => ({ ...pair, kind })));

describe.each(cases)('a connection from $title $kind', ({ kind, ...pair }) => {
  it('brings what is written, in order, to either side', async () => {
    const { client, server } = await joined(kind, pair);
    expect(client.write('one, ')).toBe(true);
    client.write(Buffer.from('two, '));
    client.write(new Uint8Array([0x33, 0x2c, 0x20]));
    client.write('');
    client.write(Buffer.alloc(0));
    client.write('fünf — 五 🖂');
    await server.untilText('one, two, 3, fünf — 五 🖂');
    server.write(server.text());
    await client.untilText('one, two, 3, fünf — 五 🖂');
    expect([client.events, server.events]).toEqual([['data'], ['data']]);
  });

  it('brings what is written at once as it was given, empty parts and large ones too', async () => {
    const { client, server } = await joined(kind, pair);
    const parts = [Buffer.from('a'), Buffer.alloc(0), Buffer.alloc(200_000, 'b'), Buffer.from('c'), new Uint8Array([0x64])];
    client.write('first ');
    client.writeAll(parts);
    client.writeAll([]);
    client.write(' last');
    const whole = Buffer.concat([Buffer.from('first '), ...parts, Buffer.from(' last')]);
    await server.until(() => server.bytes >= whole.length);
    expect(Buffer.concat(server.chunks).equals(whole)).toBe(true);
  });

  it('takes more parts at once than one system call does, and long texts of wide characters', async () => {
    const { client, server } = await joined(kind, pair);
    const parts = Array.from({ length: 5000 }, (_, i) => Buffer.from(`${i},`));
    const text = '五🖂ü'.repeat(50_000);
    client.writeAll(parts);
    client.write(text);
    client.writeAll(parts.slice(0, 2000));
    await server.untilText(`${parts.join('')}${text}${parts.slice(0, 2000).join('')}`);
  });

  it('keeps thousands of small writes whole and in order', async () => {
    const { client, server } = await joined(kind, pair);
    const lines = Array.from({ length: 5000 }, (_, i) => `${i} ${'x'.repeat(i % 41)}\r\n`);
    const whole = lines.join('');
    let i = 0;
    for (const line of lines) {
      i += 1;
      if (i % 7 === 0) client.writeAll([Buffer.from(line.slice(0, 1)), Buffer.from(line.slice(1))]);
      else client.write(line);
      if (i % 500 === 0) await new Promise(setImmediate);
    }
    await server.untilText(whole);
  });

  it('takes no more than it is asked to while both sides send at once and read with pauses, and has nothing left then', async () => {
    const { client, server } = await joined(kind, pair);
    const total = kind === 'in clear' ? 52_428_800 : 16_777_216;
    const received = [receive(server, 37), receive(client, 5)];
    const sent = await Promise.all([send(client, total, 1), send(server, total, 2)]);
    client.end();
    server.end();
    expect(await Promise.all(received)).toEqual(sent.map(({ hash }) => hash));
    expect([client.bytes, server.bytes]).toEqual([total, total]);
    // The rest of what was written before, however large the piece, and no more.
    for (const { most } of sent) expect(most).toBeLessThan(400_000);
    expect([client.connection.bufferedBytes, server.connection.bufferedBytes]).toEqual([0, 0]);
    expect([await client.untilClosed(), await server.untilClosed()]).toEqual([undefined, undefined]);
  });

  it('asks to wait when the other side does not read, says when to go on, and has handed over all by then', async () => {
    const { client, server } = await joined(kind, pair);
    server.pause();
    const piece = Buffer.alloc(1_048_576, 'p');
    let written = 0;
    let mayGoOn = true;
    // What the systems between the two take is some megabytes; a little beyond that is no reason to wait yet.
    do {
      mayGoOn = client.write(piece);
      written += 1;
      await settled();
    } while ((mayGoOn || client.connection.bufferedBytes === 0) && written < 100);
    expect(client.connection.bufferedBytes).toBeGreaterThan(0);
    expect(mayGoOn).toBe(false);
    const drains = client.drains;
    server.watch({ data: () => {} });
    server.resume();
    await client.until(() => client.drains > drains);
    await server.until(() => server.bytes === written * piece.length);
    await client.until(() => client.connection.bufferedBytes === 0);
  });

  it('has sent what is no longer buffered, so that its memory may be used again', async () => {
    const { client, server } = await joined(kind, pair);
    const expected: Buffer[] = [];
    let reused = 0;
    for (let i = 0; i < 300; i += 1) {
      const piece = Buffer.alloc(1 + ((i * 997) % 30_000), `${i};`);
      expected.push(Buffer.from(piece));
      const drains = client.drains;
      const mayGoOn = client.write(piece);
      if (client.connection.bufferedBytes === 0) {
        piece.fill(0);
        reused += 1;
      }
      if (!mayGoOn) await client.until(() => client.drains > drains);
      if (i % 3 === 0) await new Promise(setImmediate);
    }
    client.end();
    await server.untilEnd();
    expect(Buffer.concat(server.chunks).equals(Buffer.concat(expected))).toBe(true);
    if (kind === 'in clear') expect(reused).toBeGreaterThan(0);
  });

  it('gives each chunk away: nothing that comes later changes it', async () => {
    const { client, server } = await joined(kind, pair);
    for (let i = 0; i < 50; i += 1) {
      const before = server.bytes;
      client.write(Buffer.alloc(20_000, `${i} `));
      await server.until(() => server.bytes === before + 20_000);
    }
    const whole = Buffer.concat(Array.from({ length: 50 }, (_, i) => Buffer.alloc(20_000, `${i} `)));
    expect(Buffer.concat(server.chunks).equals(whole)).toBe(true);
  });

  it('can be ended on one side, and data come from the other until that ends too', async () => {
    for (const isClientFirst of [true, false]) {
      const { client, server } = await joined(kind, pair);
      const [first, second] = isClientFirst ? [client, server] : [server, client];
      first.write('the last of mine');
      first.end();
      first.end();
      await second.untilEnd();
      expect(second.text()).toBe('the last of mine');
      second.write('still ');
      await first.untilText('still ');
      second.write('here');
      await first.untilText('still here');
      expect([first.isClosed, second.isClosed]).toEqual([false, false]);
      second.end();
      expect(await first.untilClosed()).toBeUndefined();
      expect(await second.untilClosed()).toBeUndefined();
      expect(first.events).toEqual(['data', 'end', 'close']);
      expect(second.events).toEqual(['data', 'end', 'close']);
    }
  });

  it('sends all that is queued before the end', async () => {
    const { client, server } = await joined(kind, pair);
    server.pause();
    const whole = Buffer.alloc(8_388_608, 'whole ');
    client.write(whole);
    client.write('tail');
    client.end();
    expect(client.write('too late')).toBe(true);
    await settled();
    server.resume();
    await server.untilEnd();
    expect(Buffer.concat(server.chunks).equals(Buffer.concat([whole, Buffer.from('tail')]))).toBe(true);
    expect(client.connection.bufferedBytes).toBe(0);
  });

  it('is ended in turn where nobody asked to be told', async () => {
    const { client, server } = await joined(kind, pair);
    server.watch({ end: undefined });
    client.write('bye');
    client.end();
    expect(await server.untilClosed()).toBeUndefined();
    expect(await client.untilClosed()).toBeUndefined();
    expect(server.text()).toBe('bye');
    expect(server.events).toEqual(['data', 'close']);
    expect(client.events).toEqual(['end', 'close']);
  });

  it('is gone at once when it is destroyed, queued data and all', async () => {
    const { client, server } = await joined(kind, pair);
    server.pause();
    client.write(Buffer.alloc(52_428_800));
    client.destroy();
    expect(client.isClosed).toBe(false);
    expect(await client.untilClosed()).toBeUndefined();
    expect(client.connection.bufferedBytes).toBe(0);
    client.destroy();
    server.watch({ data: () => {}, end: undefined });
    server.resume();
    await server.untilClosed();
    expect(server.bytes).toBeLessThan(52_428_800);
    await settled();
    expect(client.events).toEqual(['close']);
  });

  it('reports the error that it was destroyed with, and the first one only', async () => {
    const { client, server } = await joined(kind, pair);
    const reason = new Error('enough');
    client.destroy(reason);
    client.destroy(new Error('more than enough'));
    expect(await client.untilClosed()).toBe(reason);
    server.end();
    await server.untilClosed();
  });

  it('brings nothing more once a handler has destroyed it', async () => {
    const { client, server } = await joined(kind, pair);
    server.watch({ data: () => server.destroy() });
    await send(client, 3_000_000, 3);
    await server.untilClosed();
    await client.untilClosed();
    expect(server.events).toEqual(['data', 'close']);
  });

  it('bears every call after it was closed', async () => {
    const { client, server } = await joined(kind, pair);
    const { remoteAddress } = server.connection;
    client.end();
    server.end();
    await client.untilClosed();
    await server.untilClosed();
    for (const side of [client, server]) {
      expect(side.write('late')).toBe(true);
      expect(side.writeAll([Buffer.from('later'), Buffer.from('latest')])).toBe(true);
      side.pause();
      side.resume();
      side.end();
      side.destroy();
      side.destroy(new Error('long gone'));
      expect(side.connection.bufferedBytes).toBe(0);
    }
    await settled();
    // Counts are kept by it, and a connection is taken off them when it has gone.
    expect([server.connection.remoteAddress, remoteAddress]).toEqual(['127.0.0.1', '127.0.0.1']);
  });

  it('tells whoever handles it now: handlers are replaced in mid-stream, also by one of them', async () => {
    const { client, server } = await joined(kind, pair);
    let first = '';
    server.watch({
      data: (chunk) => {
        first += chunk;
        if (first === 'to the first') server.watch();
      },
    });
    client.write('to the first');
    await server.until(() => first === 'to the first');
    client.write('to the second');
    await server.untilText('to the second');
    const ended = Promise.withResolvers<void>();
    server.watch({ end: () => ended.resolve() });
    client.end();
    await within(ended.promise, 'the last handlers were not told of the end');
    expect(first).toBe('to the first');
  });

  it('brings neither data nor the end while it is paused, and both once it is resumed', async () => {
    const { client, server } = await joined(kind, pair);
    client.write('before');
    await server.untilText('before');
    server.pause();
    server.pause();
    client.write(' and after');
    client.end();
    await settled();
    expect(server.events).toEqual(['data']);
    expect(server.text()).toBe('before');
    // Writing goes on.
    server.write('meanwhile');
    await client.untilText('meanwhile');
    server.resume();
    await server.untilEnd();
    expect(server.text()).toBe('before and after');
    expect(server.isClosed).toBe(false);
  });

  it('can be paused and resumed by its own handlers, as often as they like', async () => {
    const { client, server } = await joined(kind, pair);
    let isPaused = false;
    let breaches = 0;
    server.watch({
      data: (chunk) => {
        if (isPaused) breaches += 1;
        server.chunks.push(chunk);
        server.pause();
        server.resume();
        server.pause();
        isPaused = true;
        setImmediate(() => {
          isPaused = false;
          server.resume();
          server.pause();
          server.resume();
        });
      },
    });
    const { hash } = await send(client, 2_000_000, 4);
    client.end();
    await server.untilEnd();
    expect(breaches).toBe(0);
    expect(server.bytes).toBe(2_000_000);
    expect(createHash('sha1').update(Buffer.concat(server.chunks)).digest('hex')).toBe(hash);
  });

  it('takes writes, the end and new handlers from within its handlers', async () => {
    const { client, server } = await joined(kind, pair);
    server.watch({
      data: (chunk) => {
        server.write('you said ');
        server.write(chunk);
      },
      end: () => {
        server.write(', and good-bye');
        server.end();
      },
    });
    client.write('hello');
    client.end();
    await client.untilEnd();
    expect(client.text()).toBe('you said hello, and good-bye');
    expect(await server.untilClosed()).toBeUndefined();
    expect(await client.untilClosed()).toBeUndefined();
  });

  it('knows its addresses on both sides', async () => {
    const { client, server } = await joined(kind, pair);
    const [one, other] = [client.connection, server.connection];
    expect([one.remoteAddress, one.localAddress]).toEqual(['127.0.0.1', '127.0.0.1']);
    expect([other.remoteAddress, other.localAddress]).toEqual(['127.0.0.1', '127.0.0.1']);
    expect(one.localPort).toBeGreaterThan(0);
    expect([one.localPort, one.remotePort]).toEqual([other.remotePort, other.localPort]);
    expect(one.tls === undefined).toBe(kind === 'in clear');
    expect(other.tls === undefined).toBe(kind === 'in clear');
  });
});
