import { once } from 'node:events';
import { connect, createServer, type Server } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { ListeningSockets } from '#common/network/listening-sockets.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** A server that says its name. */
function named(name: string): Server {
  const server = createServer((socket) => socket.on('error', () => {}).end(name));
  servers.push(server);
  return server;
}

async function whoAnswers(port: number): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  const [said] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  return said.toString();
}

const anywhere = { host: '127.0.0.1', port: 0 } as const;

describe('listening sockets', () => {
  it('are told apart by what was asked for, and accept in the one who took them', async () => {
    const first = new ListeningSockets();
    const { port } = await first.listen(named('first of one'), anywhere);
    const { port: other } = await first.listen(named('second of one'), anywhere);
    const second = new ListeningSockets(first.open());
    expect(await second.listen(named('first of two'), anywhere)).toMatchObject({ port });
    expect(await second.listen(named('second of two'), anywhere)).toMatchObject({ port: other });
    expect(second.awaited()).toEqual(['127.0.0.1:0#0', '127.0.0.1:0#1']);
    expect(second.open()).toEqual([]);
    expect(await whoAnswers(port)).toBe('first of one');

    for (const { key, server } of first.open()) expect(second.take(key, server)).toBe(true);
    expect(second.awaited()).toEqual([]);
    expect(await whoAnswers(port)).toBe('first of two');
    expect(await whoAnswers(other)).toBe('second of two');
  });

  it('are open once more at the port that the system chose, when a server closes and listens again', async () => {
    const sockets = new ListeningSockets();
    const server = named('again');
    const { port } = await sockets.listen(server, anywhere);
    sockets.release();
    expect(sockets.open()).toEqual([]);
    await once(server, 'close');
    await sockets.listen(server, { ...anywhere, port });
    expect(sockets.open()).toMatchObject([{ key: '127.0.0.1:0#0', port }]);
    expect(await whoAnswers(port)).toBe('again');
  });

  it('are asked for again by a process that only borrows them', async () => {
    const owner = new ListeningSockets();
    const ownServer = named('owner');
    const { port } = await owner.listen(ownServer, anywhere);
    const asked: string[] = [];
    const borrower: ListeningSockets = new ListeningSockets(owner.open(), async (key) => {
      asked.push(key);
      for (const { server } of owner.open()) borrower.take(key, server);
    });
    const server = named('borrower');
    await borrower.listen(server, anywhere);
    for (const one of owner.open()) borrower.take(one.key, one.server);
    server.close();
    await once(server, 'close');
    ownServer.close();
    await expect(borrower.listen(server, { ...anywhere, port })).rejects.toThrow('has closed it');
    expect(asked).toEqual(['127.0.0.1:0#0']);
  });

  it('close what nobody waits for', async () => {
    const first = new ListeningSockets();
    const server = named('first');
    await first.listen(server, anywhere);
    expect(new ListeningSockets(first.open()).take('127.0.0.1:0#0', server)).toBe(false);
    expect(server.listening).toBe(false);
  });
});
