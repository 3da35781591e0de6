/** Our directory server and replication service as processes of their own, started as an operator starts them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { Secret } from '#common/secret.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { freePort, type SyncreplSource } from './slapd-server.ts';

/** A server that replication runs from or to. */
export interface OwnServer extends SyncreplSource, AsyncDisposable {
  readonly pid: number;
  /** Ends it without a chance to say good-bye, and starts it again on the same data; resolves when it answers. */
  killAndRestart(): Promise<void>;
  connect(): Promise<LdapConnection>;
}

/** A process with one service; ended when disposed of. */
export interface ServiceProcess extends AsyncDisposable {
  readonly pid: number;
  /** Ends it without a chance to say good-bye, and starts it again on the same data. */
  killAndRestart(): Promise<void>;
  /** Resident memory in MB. */
  memoryMb(): Promise<number>;
}

const password = new Secret('process-secret');

/** Starts a process with one service. `service` is told its directory. */
async function startProcess(
  service: (directory: string) => object,
  secrets: Readonly<Record<string, Secret<string>>>,
): Promise<ServiceProcess> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-process-'));
  for (const [name, secret] of Object.entries(secrets)) await writeFile(join(directory, name), secret.reveal());
  const file = join(directory, 'node.yaml');
  await writeFile(file, JSON.stringify({ log: { level: 'warn' }, services: [service(directory)] }));
  const start = (): ChildProcess => {
    const started = spawn(process.execPath, [resolve('bin/archipelago.mjs'), 'up', '--config', file], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    started.once('exit', (code) => {
      // Whoever waits for what it was to do waits in vain.
      if (code !== null && code !== 0) process.exit(1);
    });
    return started;
  };
  let child = start();
  return {
    get pid() {
      return child.pid as number;
    },
    async killAndRestart() {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
      child = start();
    },
    async memoryMb() {
      const status = await readFile(`/proc/${child.pid}/status`, 'utf8');
      return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) {
        const exited = once(child, 'exit');
        child.kill('SIGTERM');
        await exited;
      }
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Seconds of processor time that a process has used. */
export async function processorSeconds(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /, '').split(' ');
  // Fields 14 and 15 of proc(5), in hundredths of a second.
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Starts our directory server. */
export async function startOwnServer(mode: 'master' | 'replica'): Promise<OwnServer> {
  const port = await freePort();
  const rootDn = 'cn=test,ou=services,o=mail';
  const running = await startProcess(
    (directory) => ({
      role: 'directory',
      name: `ldap-${mode}.isp.example`,
      mode,
      ...(mode === 'replica' ? { master: 'ldap://127.0.0.1:389' } : {}),
      suffix: 'o=mail',
      dataDirectory: join(directory, 'data'),
      listeners: [{ port, tls: 'none' }],
      identities: [{ dn: rootDn, rights: mode === 'master' ? 'admin' : 'replicator', password: { file: join(directory, 'secret') } }],
      placement: 'none',
    }),
    { secret: password },
  );
  const url = `ldap://127.0.0.1:${port}`;
  const connect = async (): Promise<LdapConnection> => {
    const connection = await LdapConnection.open(systemNetwork, systemClock, { url, timeoutMs: 30_000 });
    await connection.bind(rootDn, password);
    return connection;
  };
  const answers = async (): Promise<void> => {
    const deadlineMs = systemClock.monotonicMs() + 30_000;
    for (;;) {
      try {
        await (await connect())[Symbol.asyncDispose]();
        return;
      } catch (error) {
        if (systemClock.monotonicMs() > deadlineMs) throw error;
        await new Promise((wake) => setTimeout(wake, 50));
      }
    }
  };
  await answers();
  return {
    get pid() {
      return running.pid;
    },
    async killAndRestart() {
      await running.killAndRestart();
      await answers();
    },
    url,
    rootDn,
    rootPassword: password,
    connect,
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  };
}

/** Starts the replication service between a master and replicas, by name. */
export function startOwnReplication(master: SyncreplSource, replicas: Readonly<Record<string, SyncreplSource>>): Promise<ServiceProcess> {
  const secrets = Object.fromEntries(Object.entries(replicas).map(([name, replica]) => [name, replica.rootPassword]));
  return startProcess(
    (directory) => {
      const server = (one: SyncreplSource, secret: string): object => ({
        url: one.url,
        bindDn: one.rootDn,
        bindPassword: { file: join(directory, secret) },
      });
      return {
        role: 'replication',
        name: 'replication.isp.example',
        suffix: 'o=mail',
        stateDirectory: join(directory, 'state'),
        master: server(master, 'master'),
        replicas: Object.entries(replicas).map(([name, replica]) => ({ name, ...server(replica, name) })),
      };
    },
    { master: master.rootPassword, ...secrets },
  );
}
