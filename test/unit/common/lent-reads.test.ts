import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { systemClock } from '#common/clock.ts';
import type { Connection, Listener } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { splice } from '#frontend/relay/splice.ts';
import { spliceOwner } from '#test/fakes/splice-owner.ts';

async function listen(): Promise<{ listener: Listener; accepted: Promise<Connection> }> {
  const accepted = Promise.withResolvers<Connection>();
  const listener = await systemNetwork.listen({}, (connection) => {
    connection.handle({ data: () => {}, close: () => {} });
    accepted.resolve(connection);
  });
  onTestFinished(() => listener.close());
  return { listener, accepted: accepted.promise };
}

/** A server's end and a client's, and between the two a relay that is lent what it reads. */
async function relayed(early = ''): Promise<{ server: Connection; client: Socket }> {
  const [behind, before] = [await listen(), await listen()];
  const lending = systemNetwork.connect({ port: behind.listener.port });
  const client = connect({ port: before.listener.port, host: '127.0.0.1' });
  onTestFinished(() => void client.destroy());
  const [channel, server, clientSide] = await Promise.all([lending, behind.accepted, before.accepted]);
  onTestFinished(() => server.destroy());
  if (early !== '') {
    // Comes before anybody listens, and must not be overwritten by what others read.
    server.write(early);
    await new Promise<void>((resolve) => {
      channel.handle({ data: (chunk) => resolve(expect(chunk.toString('latin1')).toBe(early)), close: () => {} });
    });
  }
  splice(spliceOwner({ clock: systemClock }), clientSide, channel, Buffer.alloc(0));
  return { server, client };
}

/** Sends pieces of many sizes, at the pace of the other side, and the end; resolves with their hash. */
async function send(server: Connection, seed: number): Promise<string> {
  const hash = createHash('sha256');
  let wake: () => void = () => {};
  server.handle({ data: () => {}, end: () => {}, drain: () => wake(), close: () => wake() });
  for (let i = 0; i < 400; i += 1) {
    const piece = Buffer.alloc(1 + ((i * 7919 * seed) % 90_000), `${seed} and ${i}, `);
    hash.update(piece);
    const drained = new Promise<void>((resolve) => {
      wake = resolve;
    });
    if (!server.write(piece)) await drained;
  }
  server.end();
  return hash.digest('hex');
}

/** Reads to the end, with a pause after every `pauseEvery` pieces. */
async function read(client: Socket, pauseEvery: number): Promise<string> {
  const hash = createHash('sha256');
  let count = 0;
  client.on('data', (chunk) => {
    hash.update(chunk);
    count += 1;
    if (count % pauseEvery !== 0) return;
    client.pause();
    setImmediate(() => setImmediate(() => client.resume()));
  });
  await once(client, 'end');
  return hash.digest('hex');
}

describe('a connection that lends what it reads', () => {
  it('brings each client its own bytes, whole and in order, also where several are slow, and then the end', async () => {
    const pairs = await Promise.all([relayed(), relayed('* OK early\r\n'), relayed()]);
    const sent = pairs.map(({ server }, i) => send(server, i + 1));
    const seen = pairs.map(({ client }, i) => read(client, [1_000_000, 1, 5][i] as number));
    expect(await Promise.all(seen)).toEqual(await Promise.all(sent));
  });

  it('keeps for a handler that is not lent to what it was given', async () => {
    const { listener, accepted } = await listen();
    const connection = await systemNetwork.connect({ port: listener.port });
    onTestFinished(() => connection.destroy());
    const server = await accepted;
    const chunks: Buffer[] = [];
    let wake: () => void = () => {};
    let isEnded = false;
    connection.handle({
      data: (chunk) => {
        chunks.push(chunk);
        wake();
      },
      end: () => {
        isEnded = true;
        wake();
      },
      close: () => {},
    });
    const until = async (isOver: () => boolean): Promise<void> => {
      while (!isOver()) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    };
    const heard = (): string => Buffer.concat(chunks).toString('latin1');
    server.write('first');
    await until(() => heard() === 'first');
    connection.pause();
    server.write('second');
    connection.resume();
    await until(() => heard() === 'firstsecond');
    server.end();
    await until(() => isEnded);
    expect(heard()).toBe('firstsecond');
  });
});
