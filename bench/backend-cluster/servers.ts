/** The servers under measurement, each in processes of its own on loopback. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { cpuSeconds } from '../directory/process-use.ts';
import { familyOf, freePort, statOf } from '../processes.ts';

/** A server that takes mail. */
export interface MailServer {
  readonly name: string;
  readonly port: number;
  /** Of all its processes so far. */
  cpuSeconds(): number;
  signal(signal: NodeJS.Signals): void;
  stop(): Promise<void>;
}

/** A member of ours; accounts are `user0@isp.example` and so on. */
export async function startMemberProcess(root: string, label: string, accounts: number, redisUrl?: string): Promise<MailServer> {
  const args = [join(import.meta.dirname, 'own-member.ts'), root, label, String(accounts), ...(redisUrl === undefined ? [] : [redisUrl])];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  const port = Number((JSON.parse(line) as { address: string }).address.split(':').at(-1));
  return {
    name: label,
    port,
    cpuSeconds: () => cpuSeconds(child.pid as number),
    signal: (signal) => void child.kill(signal),
    stop: () => stopChild(child),
  };
}

/** Dovecot's LMTP: mdbox, fsync as it comes, a directory and users of its own. */
export async function startDovecot(folder: string): Promise<MailServer> {
  const port = await freePort();
  for (const part of ['run', 'home']) await mkdir(join(folder, part), { recursive: true });
  await chmod(folder, 0o755);
  await chmod(join(folder, 'home'), 0o777);
  const file = join(folder, 'dovecot.conf');
  await writeFile(
    file,
    `base_dir = ${folder}/run
log_path = ${folder}/log
protocols = lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
first_valid_gid = 1
mail_location = mdbox:~/mdbox
mail_fsync = optimized
mail_home = ${folder}/home/%n
auth_username_format = %n
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup allow_all_users=yes
}
service lmtp {
  process_min_avail = 2
  process_limit = 200
  inet_listener lmtp {
    address = 127.0.0.1
    port = ${port}
  }
}
service stats {
  process_limit = 1
}
`,
  );
  const child = spawn('dovecot', ['-F', '-c', file], { stdio: ['ignore', 'ignore', 'inherit'] });
  for (let i = 0; i < 200 && !(await answers(port)); i += 1) await new Promise((resolve) => setTimeout(resolve, 50));
  return {
    name: 'dovecot',
    port,
    cpuSeconds: () => familyOf(child.pid as number).reduce((sum, pid) => sum + cpuOf(pid), endedChildren(child.pid as number)),
    signal: (signal) => void child.kill(signal),
    stop: () => stopChild(child),
  };
}

/** Its version, for the record. */
export function dovecotVersion(): string {
  return spawnSync('dovecot', ['--version'], { encoding: 'utf8' }).stdout.trim();
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.stdin?.end();
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(late);
}

function cpuOf(pid: number): number {
  const stat = statOf(pid);
  return stat === undefined ? 0 : (Number(stat[11]) + Number(stat[12])) / 100;
}

function endedChildren(pid: number): number {
  const stat = statOf(pid);
  return stat === undefined ? 0 : (Number(stat[13]) + Number(stat[14])) / 100;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
