/**
 * Throw-away Redis processes on loopback, for tests: a server, a replica, a Sentinel, a node of a Redis Cluster. Where redis-server is not
 * installed, starting one fails and says what to install.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type { LeaseStore } from '#backend-cluster/coordination/lease-store.ts';
import { parseRedisUrl } from '#backend-cluster/coordination/redis/endpoint.ts';
import { openRedisCoordinator } from '#backend-cluster/coordination/redis/redis.ts';
import { systemClock } from '#common/clock.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';

/** A running Redis. */
export interface RedisServer extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** A plain client, to look from outside. */
  readonly client: Redis;
  /** Stops it in its tracks without ending it, as a hung machine does; `SIGCONT` lets it go on. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void;
  /** Ends it at once; `start` brings it back on its port, with what it has saved, which is nothing unless told. */
  kill(): Promise<void>;
  start(): Promise<void>;
}

/** Starts one and waits until it answers. `settings` are lines of redis.conf. */
export async function startRedis(
  settings: readonly string[] = [],
  options: { sentinel?: boolean; port?: number } = {},
): Promise<RedisServer> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-redis-'));
  const port = options.port ?? (await freePort());
  const file = join(directory, 'redis.conf');
  const own = options.sentinel === true ? [] : ['save ""', 'appendonly no', 'repl-diskless-sync-delay 0', 'enable-debug-command yes'];
  const lines = [`port ${port}`, 'bind 127.0.0.1', 'protected-mode no', `dir ${directory}`, 'daemonize no', ...own, ...settings];
  await writeFile(file, `${lines.join('\n')}\n`);
  const client = new Redis({ port, host: '127.0.0.1', lazyConnect: true, retryStrategy: () => 20, maxRetriesPerRequest: null });
  client.on('error', () => {});
  const password = settings.find((line) => line.startsWith('requirepass '))?.slice('requirepass '.length);
  if (password !== undefined) client.options.password = password;
  let child: ChildProcess | undefined;
  let output = '';
  const server: RedisServer = {
    port,
    url: `redis://127.0.0.1:${port}`,
    client,
    signal: (signal) => void child?.kill(signal),
    async start() {
      const starting = spawn('redis-server', [file, ...(options.sentinel === true ? ['--sentinel'] : [])], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      child = starting;
      let failure: string | undefined;
      starting.once('error', (error: NodeJS.ErrnoException) => {
        failure =
          error.code === 'ENOENT' ? 'redis-server is not installed; on Debian or Ubuntu: apt-get install redis-server' : error.message;
      });
      starting.once('exit', () => {
        failure ??= `redis-server ended: ${output}`;
      });
      const keep = (chunk: Buffer): void => {
        output = `${output}${chunk}`.slice(-4_000);
      };
      starting.stdout?.on('data', keep);
      starting.stderr?.on('data', keep);
      await until(async () => {
        if (failure !== undefined) throw new Error(failure);
        return answersPing(port, password);
      });
    },
    async kill() {
      const ending = child;
      child = undefined;
      if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null || ending.pid === undefined) return;
      const exited = new Promise((resolve) => ending.once('exit', resolve));
      ending.kill('SIGKILL');
      await exited;
    },
    async [Symbol.asyncDispose]() {
      client.disconnect();
      await server.kill();
      await rm(directory, { recursive: true, force: true });
    },
  };
  try {
    await server.start();
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
  return server;
}

/** A member's door to the coordinator, as the product opens it. */
export function openRedis(
  url: string,
  options: { cluster?: string; leaseMs?: number; password?: string; ca?: string; log?: Logger } = {},
): LeaseStore {
  return openRedisCoordinator({
    cluster: options.cluster ?? 'west.isp.example',
    endpoint: parseRedisUrl(url),
    access: {
      password: options.password === undefined ? undefined : new Secret(options.password),
      sentinelPassword: undefined,
      tls: options.ca === undefined ? undefined : { ca: options.ca, cert: undefined, key: undefined },
    },
    leaseMs: options.leaseMs ?? 10_000,
    clock: systemClock,
    random: systemRandom,
    log: options.log ?? silentLogger,
  });
}

/**
 * A port nobody listens on, below those that the system gives to outgoing connections: one that dials a dead server's port must not be
 * given that very port and be connected with itself. A node of a Redis Cluster listens 10000 higher as well.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 12_000 + systemRandom.integer(10_000);
    if ((await isFree(port)) && (await isFree(port + 10_000))) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Waits for a condition; fails after `limitMs`, or when the condition itself throws. */
export async function until(condition: () => boolean | Promise<boolean>, limitMs = 20_000): Promise<void> {
  const end = Date.now() + limitMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`the condition did not come true within ${limitMs} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

async function answersPing(port: number, password: string | undefined): Promise<boolean> {
  const probe = new Redis({
    port,
    host: '127.0.0.1',
    lazyConnect: true,
    retryStrategy: () => null,
    enableReadyCheck: false,
    ...(password === undefined ? {} : { password }),
  });
  probe.on('error', () => {});
  try {
    await probe.connect();
    await probe.ping();
    return true;
  } catch {
    return false;
  } finally {
    probe.disconnect();
  }
}
