/**
 * Throw-away Dovecot servers that share one mail store, as the hosts behind a Dovecot director did: each on a loopback address of its own, on the
 * same ports. Dovecot wants to be started as root, as CI does; elsewhere the tests that need it fail and say so.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const program = '/usr/sbin/dovecot';
/** Debian's user and group `mail`. */
const mailUser = 8;

/** One of the servers. */
export interface DovecotHost {
  readonly address: string;
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Lines of its log so far. */
  log(): Promise<readonly string[]>;
}

/** Servers with one store. Every name logs in with `password`; the master user `master` with `masterPassword`. */
export interface DovecotHosts extends AsyncDisposable {
  readonly hosts: readonly DovecotHost[];
  readonly ports: { readonly imap: number; readonly pop3: number; readonly lmtp: number; readonly managesieve: number };
  readonly password: string;
  readonly masterPassword: string;
}

/** Starts `addresses.length` servers; `mail` is the mail_location's format. */
export async function startDovecots(
  addresses: readonly string[],
  options: { mail?: 'sdbox' | 'mdbox'; extra?: string; tls?: { certFile: string; keyFile: string } } = {},
): Promise<DovecotHosts> {
  if (!existsSync(program))
    throw new Error(`${program} is not installed; "npm test" installs it on Debian as root (test/setup/install-peers.mjs)`);
  if (process.getuid?.() !== 0) throw new Error('Dovecot is started as root only; run these tests as root');
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-dovecot-'));
  const store = join(directory, 'mail');
  await mkdir(store);
  await chown(store, mailUser, mailUser);
  // The login processes run as another user and must get at their sockets.
  await spawnAndWait('chmod', ['755', directory]);
  const [imap, pop3, lmtp, managesieve] = await freePorts(addresses[0] as string, 4);
  const ports = { imap: imap as number, pop3: pop3 as number, lmtp: lmtp as number, managesieve: managesieve as number };
  const password = 'wonderland';
  const masterPassword = 'master-key';
  await writeFile(join(directory, 'masters'), `master:{PLAIN}${masterPassword}\n`);
  const hosts: DovecotHost[] = [];
  for (const [index, address] of addresses.entries()) {
    const base = join(directory, `host${index + 1}`);
    await mkdir(base);
    await writeFile(
      join(base, 'dovecot.conf'),
      `
base_dir = ${base}/run
state_dir = ${base}/run
log_path = ${base}/log
protocols = imap pop3 lmtp sieve
listen = ${address}
${options.tls === undefined ? 'ssl = no' : `ssl = yes\nssl_cert = <${options.tls.certFile}\nssl_key = <${options.tls.keyFile}`}
disable_plaintext_auth = no
login_trusted_networks = 127.0.0.0/8
mail_location = ${options.mail ?? 'sdbox'}:${store}/%u
first_valid_uid = 1
mail_uid = ${mailUser}
mail_gid = ${mailUser}
mail_fsync = optimized
mail_max_userip_connections = 10000
login_log_format_elements = user=<%u> rip=%r lip=%l session=<%{session}>
auth_master_user_separator = *
passdb {
  driver = passwd-file
  args = ${directory}/masters
  master = yes
}
passdb {
  driver = static
  args = password=${password}
}
userdb {
  driver = static
  args = uid=${mailUser} gid=${mailUser} home=${store}/%u
}
service imap-login {
  inet_listener imap {
    port = ${ports.imap}
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = ${ports.pop3}
  }
  inet_listener pop3s {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    port = ${ports.lmtp}
  }
}
service managesieve-login {
  inet_listener sieve {
    port = ${ports.managesieve}
  }
}
${options.extra ?? ''}
`,
    );
    let child: ChildProcess | undefined;
    const host: DovecotHost = {
      address,
      async start() {
        child = spawn(program, ['-F', '-c', join(base, 'dovecot.conf')], { stdio: ['ignore', 'ignore', 'pipe'] });
        let said = '';
        child.stderr?.on('data', (chunk: Buffer) => {
          said += chunk;
        });
        const ended = new Promise<never>((_, reject) =>
          child?.on('exit', (code) => reject(new Error(`dovecot ended with ${code}: ${said}`))),
        );
        ended.catch(() => {});
        for (const port of Object.values(ports)) await Promise.race([answers(address, port), ended]);
      },
      async stop() {
        const running = child;
        child = undefined;
        if (running === undefined || running.exitCode !== null) return;
        const gone = new Promise((resolve) => running.on('exit', resolve));
        running.kill('SIGTERM');
        await gone;
      },
      async log() {
        return (await readFile(join(base, 'log'), 'utf8').catch(() => '')).split('\n');
      },
    };
    hosts.push(host);
  }
  const servers: DovecotHosts = {
    hosts,
    ports,
    password,
    masterPassword,
    async [Symbol.asyncDispose]() {
      for (const host of hosts) await host.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
  try {
    for (const host of hosts) await host.start();
    return servers;
  } catch (error) {
    await servers[Symbol.asyncDispose]();
    throw error;
  }
}

async function answers(host: string, port: number): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt += 1) {
    const isThere = await new Promise<boolean>((resolve) => {
      const socket = connect({ host, port });
      socket.on('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.on('error', () => setTimeout(resolve, 20, false));
    });
    if (isThere) return;
  }
  throw new Error(`nobody answers on ${host}:${port}`);
}

async function freePorts(address: string, count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => {
      const server = createServer();
      return new Promise<typeof server>((resolve) => server.listen(0, address, () => resolve(server)));
    }),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

function spawnAndWait(command: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    spawn(command, args).on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${command} ended with ${code}`))));
  });
}
