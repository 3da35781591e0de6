/**
 * A throw-away 389 Directory Server on loopback, with our schema and the change stream of deploy/389ds. `dscreate` wants systemd, so its
 * configuration is made here from the template that the package brings. Where ns-slapd is not installed the tests that need it fail and
 * say what to install.
 */
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { Secret } from '#common/secret.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import type { TestServer } from './replication-suite.ts';
import { run } from './run-tool.ts';
import { freePort } from './slapd-server.ts';

const program = '/usr/sbin/ns-slapd';
const template = '/usr/share/dirsrv/data/template-dse.ldif';
const ownFiles = new URL('../../deploy/389ds/', import.meta.url).pathname;

/** Starts one with the suffix o=mail, which exists unless `withSuffix` is false; its root identity may do everything. */
export async function startDs389(options: { withSuffix?: boolean } = {}): Promise<TestServer> {
  if (!existsSync(program) || !existsSync(template))
    throw new Error(`${program} is not installed; "npm test" installs it on Debian as root, elsewhere install 389-ds-base`);
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-389ds-'));
  const port = await freePort();
  const url = `ldap://127.0.0.1:${port}`;
  const rootDn = 'cn=root';
  const rootPassword = new Secret('root-secret');
  await writeInstance(directory, port, rootDn, rootPassword);
  let running: ReturnType<typeof spawn> | undefined;
  const server: TestServer = {
    url,
    rootDn,
    rootPassword,
    async connect() {
      const connection = await LdapConnection.open(systemNetwork, systemClock, { url });
      await connection.bind(rootDn, rootPassword);
      return connection;
    },
    async start() {
      const child = spawn(program, ['-D', join(directory, 'config'), '-i', join(directory, 'run', 'pid'), '-d', '0'], { stdio: 'ignore' });
      running = child;
      let hasExited = false;
      child.once('exit', () => {
        hasExited = true;
      });
      for (;;) {
        if (hasExited) throw new Error(`ns-slapd ended at once: ${await readFile(join(directory, 'log', 'errors'), 'utf8')}`);
        try {
          await (await server.connect())[Symbol.asyncDispose]();
          return;
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
    },
    async stop(signal = 'SIGTERM') {
      const child = running;
      running = undefined;
      if (child === undefined || child.exitCode !== null) return;
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill(signal);
      await exited;
    },
    async [Symbol.asyncDispose]() {
      await server.stop('SIGKILL');
      await rm(directory, { recursive: true, force: true });
    },
  };
  try {
    await server.start();
    const changed = await run('ldapmodify', [
      '-x',
      '-H',
      url,
      '-D',
      rootDn,
      '-w',
      rootPassword.reveal(),
      '-f',
      join(ownFiles, 'o-mail.ldif'),
    ]);
    if (changed.code !== 0) throw new Error(`ns-slapd did not take deploy/389ds/o-mail.ldif: ${changed.stderr}`);
    await server.stop();
    await server.start();
    if (options.withSuffix !== false) {
      await using connection = await server.connect();
      await connection.add('o=mail', [attribute('objectClass', 'top', 'organization'), attribute('o', 'mail')]);
    }
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
  return server;
}

async function writeInstance(directory: string, port: number, rootDn: string, rootPassword: Secret<string>): Promise<void> {
  const at = (name: string): string => join(directory, name);
  for (const name of ['config/schema', 'lock', 'tmp', 'ldif', 'bak', 'run', 'log', 'db', 'inst'])
    await mkdir(at(name), { recursive: true });
  const values: Record<string, string> = {
    schema_dir: at('config/schema'),
    lock_dir: at('lock'),
    tmp_dir: at('tmp'),
    cert_dir: at('config'),
    ldif_dir: at('ldif'),
    bak_dir: at('bak'),
    run_dir: at('run'),
    inst_dir: at('inst'),
    log_dir: at('log'),
    fqdn: 'localhost',
    ds_port: String(port),
    ds_user: userInfo().username,
    rootdn: rootDn,
    ds_passwd: ssha512(rootPassword),
    ldapi_enabled: 'off',
    ldapi: at('run/socket'),
    ldapi_autobind: 'off',
    config_dir: at('config'),
    db_dir: at('db'),
    db_home_dir: at('db'),
    db_lib: 'bdb',
    ds_suffix: 'o=mail',
  };
  const dse = (await readFile(template, 'utf8'))
    .replace(/%(\w+)%/g, (_, name: string) => values[name] ?? '')
    .replace(/^nsslapd-port:/m, 'nsslapd-rootpwstoragescheme: SSHA512\nnsslapd-listenhost: 127.0.0.1\nnsslapd-port:');
  await writeFile(at('config/dse.ldif'), dse);
  for (const name of ['certmap.conf', 'slapd-collations.conf']) await copyFile(`/etc/dirsrv/config/${name}`, at(`config/${name}`));
  await copyFile('/etc/dirsrv/schema/99user.ldif', at('config/schema/99user.ldif'));
  await copyFile(join(ownFiles, '98archipelago.ldif'), at('config/schema/98archipelago.ldif'));
}

// A root password in the clear is refused in this file.
function ssha512(password: Secret<string>): string {
  const salt = randomBytes(8);
  const hash = createHash('sha512').update(password.reveal()).update(salt).digest();
  return `{SSHA512}${Buffer.concat([hash, salt]).toString('base64')}`;
}
