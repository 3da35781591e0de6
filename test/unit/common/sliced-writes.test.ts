import { once } from 'node:events';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import type { Connection, Listener } from '#common/network/network.ts';
import { nodeNetwork } from '#common/network/node-network.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa } from '#deploy/dev/throwaway-ca.ts';

let listener: Listener;
let ca: Awaited<ReturnType<typeof createThrowawayCa>>;
let accepted = Promise.withResolvers<Connection>();

beforeAll(async () => {
  ca = await createThrowawayCa(systemClock, systemRandom);
  const { certificate: cert, key } = await ca.issue(['localhost']);
  listener = await nodeNetwork.listen({}, (connection) => {
    connection.handle({ data: () => {}, close: () => {} });
    connection.startTls({ cert, key }).then(() => accepted.resolve(connection), accepted.reject);
  });
});
afterAll(() => listener.close());

async function pair(): Promise<[TLSSocket, Connection]> {
  accepted = Promise.withResolvers();
  const client = connectTls({ port: listener.port, host: '127.0.0.1', rejectUnauthorized: false });
  client.on('error', () => {});
  return [client, await accepted.promise];
}

describe('a session under TLS', () => {
  it('gets all that is written, in order, whatever the sizes, to a client that reads when it likes, and then the end', async () => {
    const [client, server] = await pair();
    const sizes = [1, 15_999, 16_000, 16_001, 7, 65_536, 3, 300_000, 9_000, 9_000, 1_048_576, 5];
    const pieces = sizes.map((size, i) => Buffer.alloc(size, `${i} of some, `));
    let most = 0;
    let drains = 0;
    let wake: () => void = () => {};
    server.handle({
      data: () => {},
      end: () => {},
      drain: () => {
        drains += 1;
        wake();
      },
      close: () => {},
    });
    const received: Buffer[] = [];
    client.pause();
    for (const piece of pieces.slice(0, 8)) {
      const drained = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const mayGoOn = server.write(piece);
      most = Math.max(most, server.bufferedBytes - piece.length);
      if (mayGoOn) continue;
      client.resume();
      client.on('data', (chunk) => received.push(chunk));
      await drained;
      client.pause();
      client.removeAllListeners('data');
    }
    // A writer that heeds the advice finds no more than the rest of what was written before.
    expect(most).toBeLessThan(100_000);
    expect(drains).toBeGreaterThan(0);
    server.writeAll(pieces.slice(8));
    server.end();
    client.on('data', (chunk) => received.push(chunk));
    client.resume();
    await once(client, 'end');
    expect(Buffer.concat(received).equals(Buffer.concat(pieces))).toBe(true);
    expect(server.bufferedBytes).toBe(0);
    client.end();
  });

  it('is written so too where it was made to a server, and a link is not', async () => {
    const { certificate: cert, key } = await ca.issue(['localhost']);
    const peers: Connection[] = [];
    const server = await nodeNetwork.listen({ tls: { cert, key } }, (peer) => {
      peers.push(peer);
      peer.handle({ data: () => {}, close: () => {} });
    });
    const tls = { serverName: 'localhost', ca: ca.certificate };
    const leftAtDrain = async (isSession: boolean): Promise<number> => {
      const made = await nodeNetwork.connect({ host: '127.0.0.1', port: server.port, tls, isSession });
      peers.push(made);
      const drained = new Promise<number>((resolve) =>
        made.handle({ data: () => {}, drain: () => resolve(made.bufferedBytes), close: () => {} }),
      );
      expect(made.write(Buffer.alloc(1_048_576))).toBe(false);
      return drained;
    };
    try {
      // Slices are asked for while some are left; what was written whole has gone when the socket says so.
      expect(await leftAtDrain(true)).toBeGreaterThan(16_000);
      expect(await leftAtDrain(false)).toBe(0);
    } finally {
      for (const peer of peers) peer.destroy();
      await server.close();
    }
  });

  it('lets go of what waits when the client is gone, and bears writes and ends after that', async () => {
    const [client, server] = await pair();
    const closed = new Promise<void>((resolve) => server.handle({ data: () => {}, end: () => {}, close: () => resolve() }));
    client.pause();
    expect(server.write(Buffer.alloc(8_388_608))).toBe(false);
    client.destroy();
    await closed;
    expect(server.write('more')).toBe(true);
    server.end();
    server.end();
    expect(server.bufferedBytes).toBe(0);
  });
});
