/** Servers for HTTP, whoever accepts for them. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createHttpServer, type HttpServer, listenAt } from '#common/http/server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { ListeningSockets } from '#common/network/listening-sockets.ts';
import type { Network } from '#common/network/network.ts';
import { nodeNetwork } from '#common/network/node-network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { identities } from '#test/contracts/network-suite.ts';

const anywhere = { host: '127.0.0.1', port: 0 } as const;
const request = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';
const patient = { timeout: 20_000 };

function serverOn(network: Network, tls?: { readonly cert: string; readonly key: string }): HttpServer {
  const server = createHttpServer({ log: silentLogger, network, tls });
  onTestFinished(() => server.close());
  server.get('/', () => 'here');
  return server;
}

/** What a client hears, and whether that was all. */
function heard(socket: Socket): { text: string; isClosed: boolean } {
  const state = { text: '', isClosed: false };
  onTestFinished(() => void socket.destroy());
  socket.on('data', (chunk) => (state.text += chunk.toString()));
  socket.on('error', () => {}).once('close', () => (state.isClosed = true));
  return state;
}

describe.each([
  ['the network of this machine', systemNetwork],
  ['Node', nodeNetwork],
] as const)('a server that %s accepts for', (_name, network) => {
  it('answers over TLS, and hangs up on who comes beyond the most that it takes', async () => {
    const server = serverOn(network, (await identities()).server);
    server.server.maxConnections = 2;
    const { port } = await listenAt(server, anywhere);
    const first = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
    const answer = heard(first);
    first.write(request);
    await expect.poll(() => answer.text, patient).toMatch(/^HTTP\/1\.1 200 .*here$/s);
    const second = heard(connect(port, '127.0.0.1'));
    const third = heard(connect(port, '127.0.0.1'));
    await expect.poll(() => third.isClosed, patient).toBe(true);
    expect([answer.isClosed, second.isClosed]).toEqual([false, false]);
    first.destroy();
    // Its place is free once the server has seen it go.
    await vi.waitFor(async () => {
      const fourth = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
      onTestFinished(() => void fourth.destroy());
      await once(fourth, 'secureConnect');
    }, patient);
  });

  it('goes on with its connections when its port is another process’s, and sends them there', async () => {
    const sockets = new ListeningSockets();
    const { port } = await listenAt(serverOn(network), anywhere, sockets);
    const kept = connect(port, '127.0.0.1');
    const answer = heard(kept);
    kept.write(request);
    await expect.poll(() => answer.text, patient).toMatch(/connection: keep-alive.*here$/is);
    sockets.release();
    kept.write(request);
    await expect.poll(() => answer.isClosed, patient).toBe(true);
    expect(answer.text).toMatch(/here.*connection: close.*here$/is);
  });

  it('hangs up on everybody when it is closed, and leaves the port free', async () => {
    const server = serverOn(network);
    const { port } = await listenAt(server, anywhere);
    const kept = connect(port, '127.0.0.1');
    const answer = heard(kept);
    kept.write(request);
    await expect.poll(() => answer.text, patient).toMatch(/here$/);
    await server.close();
    await expect.poll(() => answer.isClosed, patient).toBe(true);
    const next = createServer();
    onTestFinished(() => void next.close());
    await once(next.listen(port, '127.0.0.1'), 'listening');
  });
});
