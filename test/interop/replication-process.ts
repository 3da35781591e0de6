/** Services as processes of their own, started as an operator starts them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { TestServer } from './replication-suite.ts';

/** A running one. `kill` ends it as it stands; `pause` and `resume` stop it and let it go on (SIGSTOP, SIGCONT). */
export interface ServiceProcess {
  readonly name: string;
  readonly pid: number;
  /** The end of what it wrote. */
  describe(): string;
  hasExited(): boolean;
  /** Whether it has logged that since it was started. */
  hasSaid(text: string): boolean;
  pause(): void;
  resume(): void;
  kill(): Promise<void>;
}

/** Servers by the name they have in the configuration. */
export type NamedServers = Readonly<Record<string, Pick<TestServer, 'url' | 'rootDn' | 'rootPassword'>>>;

/** Starts one with its state in `directory`. */
export async function startReplicationProcess(
  master: Pick<TestServer, 'url' | 'rootDn' | 'rootPassword'>,
  replicas: NamedServers,
  directory: string,
  own: { readonly name?: string; readonly service?: object; readonly node?: object } = {},
): Promise<ServiceProcess> {
  const name = own.name ?? 'replication.isp.example';
  const server = async (one: Pick<TestServer, 'url' | 'rootDn' | 'rootPassword'>, secret: string): Promise<object> => {
    const file = join(directory, secret);
    await writeFile(file, one.rootPassword.reveal());
    return { url: one.url, bindDn: one.rootDn, bindPassword: { file } };
  };
  const service = {
    role: 'replication',
    name,
    stateDirectory: join(directory, `state-${name}`),
    master: await server(master, 'master.secret'),
    replicas: await Promise.all(
      Object.entries(replicas).map(async ([called, one]) => ({ name: called, ...(await server(one, `${called}.secret`)) })),
    ),
    ...own.service,
  };
  return startServiceProcess(name, { services: [service], ...own.node }, directory);
}

/** Starts the services of a node file. */
export async function startServiceProcess(name: string, node: object, directory: string): Promise<ServiceProcess> {
  const file = join(directory, `${name}.yaml`);
  await writeFile(file, JSON.stringify(node));
  const child = spawn(process.execPath, [resolve('bin/archipelago.mjs'), 'up', '--config', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output = `${output}${chunk}`.slice(-200_000);
    });
  }
  return {
    name,
    pid: child.pid as number,
    describe: () => output.slice(-3000),
    hasExited: () => hasEnded(child),
    hasSaid: (text) => output.includes(text),
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    async kill() {
      if (hasEnded(child)) return;
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
  };
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
