/** The proxies under measurement, each pinned to one core, and what stands behind them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { cpuSeconds } from '../directory/process-use.ts';
import { familyOf, freePort, serviceOptions } from '../processes.ts';
import type { Account, Entrance } from './mail-load.ts';

/** A proxy under measurement. */
export interface MailProxy {
  readonly name: string;
  readonly plain: Entrance;
  readonly secure: Entrance;
  readonly account: Account;
  /** CPU seconds of its processes so far. */
  cpuSeconds(): number;
  /** Its processes. */
  pids(): readonly number[];
}

/** Everything that was started; stops with it. */
export interface Bench extends AsyncDisposable {
  readonly proxies: readonly MailProxy[];
}

const accounts = 60;
/** Everything but the proxies has the other core. */
const proxyCore = '1';

/** Starts backend, federation and proxies; `wanted` names the proxies. */
export async function startBench(root: string, wanted: readonly string[], nodeOptions: readonly string[]): Promise<Bench> {
  const children: ChildProcess[] = [];
  const script = (name: string): string => join(import.meta.dirname, name);
  const startNode = async (file: string, args: readonly string[], options: { pinned?: boolean; flags?: readonly string[] } = {}) => {
    const command = [process.execPath, ...(options.flags ?? []), script(file), ...args];
    const [program, ...rest] = options.pinned === true ? ['taskset', '-c', proxyCore, ...command] : command;
    const child = spawn(program as string, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
    children.push(child);
    const [line] = (await Promise.race([
      once(createInterface(child.stdout), 'line'),
      once(child, 'exit').then(() => {
        throw new Error(`${file} ended before it was ready`);
      }),
    ])) as [string];
    return { child, said: JSON.parse(line) };
  };
  const stop = async (): Promise<void> => {
    for (const child of children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.stdin?.end();
      // Those that read no standard input.
      if (child.stdin === null) child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await ended;
      clearTimeout(late);
    }
  };
  try {
    await chmod(root, 0o755);
    const { said: backend } = await startNode('plain-backend.ts', []);
    const { said: site } = await startNode('site.ts', [root, String(backend.imap), String(accounts)]);
    const proxies: MailProxy[] = [];
    const plainAccount: Account = (i) => ({ name: `plain${i % accounts}@isp.example`, password: 'secret' });
    // A process for each: what sessions over the link leave in memory would serve those to the plain backend.
    for (const name of ['own-link', 'own-plain']) {
      if (!wanted.includes(name)) continue;
      const config = join(root, `${name}.json`);
      await writeFile(
        config,
        JSON.stringify({ ...JSON.parse(await readFile(site.config, 'utf8')), queueDirectory: join(root, name, 'queue') }),
      );
      const { child, said } = await startNode('own-frontend.ts', [config, join(root, `${name}.log`)], {
        pinned: true,
        flags: [...serviceOptions, ...nodeOptions],
      });
      const [plain, secure] = said as [{ port: number }, { port: number }];
      proxies.push({
        name,
        plain: { port: plain.port, tls: false },
        secure: { port: secure.port, tls: true },
        account: name === 'own-plain' ? plainAccount : (i) => ({ name: `own${i % accounts}@isp.example`, password: 'secret' }),
        cpuSeconds: () => cpuSeconds(child.pid as number),
        pids: () => [child.pid as number],
      });
    }
    const startPeer = async (name: string, program: string, args: readonly string[], ports: readonly [number, number]) => {
      const child = spawn('taskset', ['-c', proxyCore, program, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
      children.push(child);
      for (let i = 0; i < 400 && !(await answers(ports[0])); i += 1) await new Promise((resolve) => setTimeout(resolve, 25));
      proxies.push({
        name,
        plain: { port: ports[0], tls: false },
        secure: { port: ports[1], tls: true },
        account: plainAccount,
        pids: () => familyOf(child.pid as number),
        cpuSeconds: () => familyOf(child.pid as number).reduce((sum, pid) => sum + cpuOfLiving(pid), 0),
      });
    };
    for (const name of ['nginx', 'nginx-64k']) {
      if (!wanted.includes(name)) continue;
      const ports = [await freePort(), await freePort()] as const;
      const base = join(root, name);
      await mkdir(base);
      await writeFile(
        join(base, 'nginx.conf'),
        nginxConfig(base, ports, { ...site, ...backend, buffer: name === 'nginx-64k' ? '64k' : '4k' }),
      );
      await startPeer(name, '/usr/sbin/nginx', ['-c', join(base, 'nginx.conf'), '-p', base, '-e', join(base, 'log')], ports);
    }
    if (wanted.includes('haproxy')) {
      const ports = [await freePort(), await freePort()] as const;
      const base = join(root, 'haproxy');
      await mkdir(base);
      await writeFile(join(base, 'both.pem'), `${await readFile(site.certFile, 'utf8')}\n${await readFile(site.keyFile, 'utf8')}`);
      await writeFile(join(base, 'haproxy.cfg'), haproxyConfig(base, ports, backend.imap));
      await startPeer('haproxy', '/usr/sbin/haproxy', ['-db', '-q', '-f', join(base, 'haproxy.cfg')], ports);
    }
    if (wanted.includes('dovecot')) {
      const ports = [await freePort(), await freePort()] as const;
      const base = join(root, 'dovecot');
      await mkdir(base, { mode: 0o755 });
      await writeFile(join(base, 'dovecot.conf'), dovecotConfig(base, ports, { ...site, ...backend }));
      await startPeer('dovecot', '/usr/sbin/dovecot', ['-F', '-c', join(base, 'dovecot.conf')], ports);
    }
    return { proxies, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What stands behind the proxies. */
export interface Facts {
  readonly certFile: string;
  readonly keyFile: string;
  readonly imap: number;
  readonly auth: number;
}

/** Of nginx as a mail proxy, with so many workers. */
export function nginxConfig(
  base: string,
  [plain, secure]: readonly [number, number],
  facts: Facts & { readonly buffer: string },
  workers = 1,
): string {
  return `load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
worker_processes ${workers};
worker_rlimit_nofile 65536;
pid ${base}/pid;
error_log ${base}/log crit;
events { worker_connections 32768; multi_accept on; }
mail {
  auth_http 127.0.0.1:${facts.auth}/;
  imap_capabilities IMAP4rev1 LITERAL+ IDLE;
  proxy_buffer ${facts.buffer};
  ssl_certificate ${facts.certFile};
  ssl_certificate_key ${facts.keyFile};
  ssl_protocols TLSv1.2 TLSv1.3;
  server { listen 127.0.0.1:${plain} backlog=4096; protocol imap; }
  server { listen 127.0.0.1:${secure} ssl backlog=4096; protocol imap; }
}
`;
}

function haproxyConfig(base: string, [plain, secure]: readonly [number, number], imap: number): string {
  return `global
  maxconn 9000
  nbthread 1
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend plain
  bind 127.0.0.1:${plain} backlog 4096
  default_backend imap
frontend secure
  bind 127.0.0.1:${secure} ssl crt ${base}/both.pem backlog 4096
  default_backend imap
backend imap
  server one 127.0.0.1:${imap}
`;
}

// Its high-performance mode: one login process that serves many connections.
function dovecotConfig(base: string, [plain, secure]: readonly [number, number], facts: Facts): string {
  return `base_dir = ${base}/run
state_dir = ${base}/run
log_path = ${base}/log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <${facts.certFile}
ssl_key = <${facts.keyFile}
disable_plaintext_auth = no
login_trusted_networks = 127.0.0.0/8
mail_location = maildir:/nonexistent
mail_max_userip_connections = 100000
passdb {
  driver = static
  args = proxy=y nopassword=y host=127.0.0.1 port=${facts.imap}
}
service imap-login {
  service_count = 0
  process_min_avail = 1
  process_limit = 1
  client_limit = 20000
  vsz_limit = 2G
  inet_listener imap {
    port = ${plain}
  }
  inet_listener imaps {
    port = ${secure}
    ssl = yes
  }
}
service anvil {
  client_limit = 40000
}
service auth {
  client_limit = 40000
}
`;
}

/** Dovecot's helpers come and go; what one that has gone took is its parent's by now. */
function cpuOfLiving(pid: number): number {
  try {
    return cpuSeconds(pid);
  } catch {
    return 0;
  }
}

/** Whether somebody greets there. */
export function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('data', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
