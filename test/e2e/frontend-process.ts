/** A frontend in a process of its own beside a federation in this one, and clients that come and go at it. */

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect as connectPlain, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { systemClock } from '#common/clock.ts';
import { requestJson } from '#common/http/client.ts';
import { Secret } from '#common/secret.ts';
import type { Federation } from '#deploy/dev/federation.ts';
import { directoryAccess, frontendConfig, layoutOf } from '#deploy/dev/plan.ts';
import { startProcess } from '#deploy/examples/processes.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import type { SessionsReport, StatusReport } from '#operate/api/reports.ts';

/** The frontend, and how it is asked. */
export interface FrontendProcess extends AsyncDisposable {
  readonly name: string;
  readonly child: ChildProcess;
  readonly nodeFile: string;
  readonly logFile: string;
  /** Asks its admin API; rejects as that says. */
  ask<T>(path: string, method?: 'GET' | 'POST', body?: unknown): Promise<T>;
  status(): Promise<StatusReport['subsets'][number]['frontends'][number]>;
  sessions(): Promise<SessionsReport>;
  /** What the command line needs to reach it. */
  readonly cliOptions: readonly string[];
  /** Port of a listener. */
  port(protocol: string, tls: string): number;
}

const askMs = 120_000;

/** Starts it; `adjust` changes its configuration, `env` adds to its environment, `program` is the `archipelago` of another tree. */
export async function startFrontendProcess(
  federation: Federation,
  root: string,
  adjust: (config: FrontendConfig) => FrontendConfig = (config) => config,
  env: Readonly<Record<string, string>> = {},
  program?: string,
): Promise<FrontendProcess> {
  const layout = layoutOf(root);
  const name = 'front1.eu.isp.example';
  const master = federation.ready.directory.master.ldapsUrl;
  const own = frontendConfig(layout, 'eu', name, () => 0, directoryAccess(layout, 'frontend', [master], master));
  const adminPort = await freePort();
  const nodeFile = join(root, 'frontend.yaml');
  const logFile = join(root, 'frontend.log');
  const tokenFile = layout.secret('console');
  await writeFile(
    nodeFile,
    JSON.stringify({
      log: { level: 'info' },
      admin: { name: 'frontend-process', port: adminPort, tokenFile },
      services: [adjust({ ...own, queueDirectory: join(root, 'queue-process') })],
    }),
  );
  const token = new Secret((await readFile(tokenFile, 'utf8')).trim());
  const child = await startProcess(nodeFile, logFile, ['env', ...Object.entries(env).map(([key, value]) => `${key}=${value}`)], program);
  const ask = async <T>(path: string, method: 'GET' | 'POST' = 'GET', body?: unknown): Promise<T> =>
    (await requestJson(systemClock, { url: `http://127.0.0.1:${adminPort}${path}`, token, method, body, timeoutMs: askMs })).body as T;
  const status = async () => {
    const report = await ask<StatusReport>('/api/v1/status');
    const found = report.subsets.flatMap(({ frontends }) => frontends).find((frontend) => frontend.name === name);
    if (found === undefined) throw new Error(`the status has no ${name}`);
    return found;
  };
  const { listeners } = await status();
  return {
    name,
    child,
    nodeFile,
    logFile,
    ask,
    status,
    sessions: () => ask('/api/v1/sessions'),
    cliOptions: ['--url', `http://127.0.0.1:${adminPort}`, '--token-file', tokenFile],
    port: (protocol, tls) => {
      const found = listeners.find((listener) => listener.protocol === protocol && listener.tls === tls);
      if (found === undefined) throw new Error(`no ${protocol} listener with tls: ${tls}`);
      return found.port;
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** A port that nobody has at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** A client of a line protocol. Rejects when the connection ends before what it waits for has come. */
export class LineClient {
  readonly socket: Socket;
  heard = '';
  isClosed = false;
  #error: Error | undefined;
  #wake: () => void = () => {};

  constructor(port: number) {
    this.socket = connectPlain(port, '127.0.0.1');
    this.socket.on('data', (chunk: Buffer) => {
      this.heard += chunk.toString('latin1');
      this.#wake();
    });
    this.socket.on('error', (error) => {
      this.#error = error;
    });
    this.socket.on('close', () => {
      this.isClosed = true;
      this.#wake();
    });
  }

  /** Resolves once something that matches has been heard since the last wait. */
  async hears(pattern: RegExp): Promise<string> {
    for (;;) {
      const found = pattern.exec(this.heard);
      if (found !== null) {
        this.heard = this.heard.slice(found.index + found[0].length);
        return found[0];
      }
      if (this.isClosed)
        throw new Error(`closed (${this.#error?.message ?? 'in good order'}) before ${pattern}; heard: ${this.heard.slice(-200)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async says(line: string, answer: RegExp): Promise<string> {
    this.socket.write(`${line}\r\n`);
    return this.hears(answer);
  }
}

/** Logs an IMAP client in. */
export async function imapLogin(port: number, user: string, password: string): Promise<LineClient> {
  const client = new LineClient(port);
  await client.hears(/^\* OK [^\r]*\r\n/m);
  await client.says(`a LOGIN ${user} ${password}`, /^a OK [^\r]*\r\n/m);
  return client;
}

/** The whole of a short session: connect, LOGIN, NOOP, LOGOUT. */
export async function imapRound(port: number, user: string, password: string): Promise<void> {
  const client = await imapLogin(port, user, password);
  await client.says('b NOOP', /^b OK [^\r]*\r\n/m);
  await client.says('c LOGOUT', /^c OK [^\r]*\r\n/m);
  client.socket.destroy();
}
