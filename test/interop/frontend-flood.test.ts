/** 10,000 silent connections from one address against a listener, while another address logs in as if nothing happened. */
import { connect, type Socket } from 'node:net';
import { afterAll, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import type { FrontendListener } from '#frontend/config.ts';
import { ForeignClusters } from '#frontend/foreign/foreign-clusters.ts';
import { LoginGuard } from '#frontend/guard/login-guard.ts';
import { startImap } from '#frontend/listeners/imap.ts';
import { SessionOpener } from '#frontend/session/open-session.ts';
import { federation } from '#test/unit/frontend/fakes.ts';

const floodSize = 10_000;
const atATime = 250;
const flood: Socket[] = [];
afterAll(() => {
  for (const socket of flood) socket.destroy();
});

/** Connects from an address of the loopback network; resolves when the greeting, a refusal or the end has come. */
function dial(port: number, localAddress: string): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, localAddress });
  socket.on('error', () => {});
  return new Promise((resolve) => {
    socket.once('data', () => resolve(socket));
    socket.once('close', () => resolve(socket));
  });
}

async function logIn(port: number): Promise<number> {
  const began = performance.now();
  const socket = await dial(port, '127.0.0.3');
  const answer = new Promise<string>((resolve, reject) => {
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes('\r\n')) resolve(text);
    });
    socket.once('close', () => reject(new Error(`closed after ${JSON.stringify(text)}`)));
  });
  socket.write('a LOGIN alice wonderland\r\n');
  expect(await answer).toContain('a OK');
  socket.destroy();
  return performance.now() - began;
}

it('serves the others while one address holds all that it may and tries for more', { timeout: 120_000 }, async () => {
  const world = federation();
  const ports = { clock: systemClock, random: systemRandom, network: systemNetwork, log: silentLogger, metrics: createMetrics() };
  const opener = new SessionOpener({
    name: 'front1.eu.isp.example',
    defaultDomain: undefined,
    routes: world.routes,
    router: world.router,
    link: world.link,
    foreign: new ForeignClusters({ name: 'front1.eu.isp.example', settings: new Map(), verifyPassword: async () => false, ports }),
    guard: new LoginGuard(systemClock, systemRandom),
    ports,
  });
  const listener: FrontendListener = {
    protocol: 'imap',
    tls: 'none',
    address: '127.0.0.1',
    port: 0,
    perAddressMax: 100,
    connectionsMax: 2000,
    acceptPerSecond: 100_000,
    domain: 'isp.example',
    allowPlaintextLogin: true,
  };
  const session = {
    opener,
    listener,
    tls: undefined,
    loginTimeoutMs: 60_000,
    defaultDomain: () => world.routes.domains.canonical('isp.example' as never),
    ports,
  };
  await using stack = new AsyncDisposableStack();
  const running = await startImap({ listener, tls: undefined, ports }, session);
  stack.defer(async () => {
    running.drop();
    await running.close();
  });
  const { port } = running.status();
  const waits: number[] = [];
  for (let sent = 0; sent < floodSize; sent += atATime) {
    const wave = Array.from({ length: atATime }, () => dial(port, '127.0.0.2'));
    waits.push(await logIn(port));
    flood.push(...(await Promise.all(wave)));
  }
  expect(running.connectionsOf('127.0.0.2')).toBe(100);
  expect(waits.length).toBe(floodSize / atATime);
  // Each waits behind at most one wave; five seconds are many times that on a slow machine.
  expect(waits.sort((a, b) => a - b)[Math.floor(waits.length / 2)]).toBeLessThan(5000);
});
