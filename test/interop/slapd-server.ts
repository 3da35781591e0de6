/**
 * A throw-away OpenLDAP server on loopback, for the tests that show we work with a server that is not ours. Where slapd is not
 * installed those tests fail and say what to install.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { Secret } from '#common/secret.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { run } from './run-tool.ts';

const program = '/usr/sbin/slapd';
const modules = '/usr/lib/ldap';
const schemas = '/etc/ldap/schema';

const ownSchema = new URL('../../deploy/openldap/archipelago.schema', import.meta.url).pathname;

/** A running slapd with the suffix o=mail; its root identity may do everything. */
export interface Slapd extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Of the running process. */
  readonly pid: number;
  readonly rootDn: string;
  readonly rootPassword: Secret<string>;
  connect(): Promise<LdapConnection>;
  /** Ends it, keeping its data; `start` brings it back on the same port. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
  /** Writes all that it has into a file, while it runs. */
  exportTo(file: string): Promise<void>;
}

/** A provider that slapd follows by its own syncrepl. */
export type SyncreplSource = Pick<Slapd, 'url' | 'rootDn' | 'rootPassword'>;

/**
 * Starts one. `isProvider` adds the syncprov overlay, with a session log of `sessionLog` changes; without `isDurable` nothing is flushed;
 * `seedLdif` is a file that it is filled from.
 */
export async function startSlapd(
  options: {
    isProvider?: boolean;
    sessionLog?: number;
    withSuffix?: boolean;
    syncrepl?: SyncreplSource;
    extraSchema?: string;
    isDurable?: boolean;
    seedLdif?: string;
  } = {},
): Promise<Slapd> {
  if (!existsSync(program))
    throw new Error(`${program} is not installed; "npm test" installs it on Debian as root, elsewhere install slapd`);
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-slapd-'));
  const port = await freePort();
  const rootDn = 'cn=root,o=mail';
  const rootPassword = new Secret('root-secret');
  const config = `
include ${schemas}/core.schema
include ${schemas}/cosine.schema
include ${schemas}/inetorgperson.schema
include ${ownSchema}
${options.extraSchema ?? ''}
pidfile ${directory}/slapd.pid
argsfile ${directory}/slapd.args
modulepath ${modules}
moduleload back_mdb
${options.isProvider === true ? 'moduleload syncprov' : ''}
loglevel 0
serverid 1
sizelimit unlimited
database mdb
maxsize 1073741824
suffix o=mail
rootdn ${rootDn}
rootpw ${rootPassword.reveal()}
directory ${directory}/data
${options.isDurable === true ? '' : 'dbnosync'}
index objectClass,entryUUID,entryCSN,uid,cn,mail,mailAlternateAddress,hostServer eq
${options.syncrepl === undefined ? '' : syncreplLines(options.syncrepl)}
${options.isProvider === true ? `overlay syncprov\nsyncprov-checkpoint 1 1\n${options.sessionLog === undefined ? '' : `syncprov-sessionlog ${options.sessionLog}`}` : ''}
`;
  await mkdir(join(directory, 'data'));
  await writeFile(join(directory, 'slapd.conf'), config);
  const url = `ldap://127.0.0.1:${port}`;
  let running: ReturnType<typeof spawn> | undefined;
  let output = '';
  const connect = async (): Promise<LdapConnection> => {
    const connection = await LdapConnection.open(systemNetwork, systemClock, { url });
    await connection.bind(rootDn, rootPassword);
    return connection;
  };
  const slapd: Slapd = {
    url,
    port,
    get pid() {
      return running?.pid ?? 0;
    },
    rootDn,
    rootPassword,
    connect,
    async start() {
      const child = spawn(program, ['-d', '0', '-h', url, '-f', join(directory, 'slapd.conf')], { stdio: ['ignore', 'pipe', 'pipe'] });
      running = child;
      let hasExited = false;
      child.stderr.on('data', (chunk: Buffer) => {
        output = `${output}${chunk}`.slice(-4000);
      });
      child.once('exit', () => {
        hasExited = true;
      });
      for (;;) {
        if (hasExited) throw new Error(`slapd ended at once: ${output}`);
        try {
          await (await connect())[Symbol.asyncDispose]();
          return;
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    },
    async exportTo(file) {
      const { code, stderr } = await run('/usr/sbin/slapcat', ['-f', join(directory, 'slapd.conf'), '-l', file]);
      if (code !== 0) throw new Error(`slapcat did not write ${file}: ${stderr}`);
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
      await slapd.stop('SIGKILL');
      await rm(directory, { recursive: true, force: true });
    },
  };
  if (options.seedLdif !== undefined) await fillFrom(join(directory, 'slapd.conf'), options.seedLdif);
  await slapd.start();
  if (options.seedLdif === undefined && options.withSuffix !== false && options.syncrepl === undefined) {
    await using connection = await connect();
    await connection.add('o=mail', [attribute('objectClass', 'organization'), attribute('o', 'mail')]);
  }
  return slapd;
}

async function fillFrom(config: string, ldif: string): Promise<void> {
  const { code, stderr } = await run('/usr/sbin/slapadd', ['-q', '-f', config, '-l', ldif]);
  if (code !== 0) throw new Error(`slapadd did not take ${ldif}: ${stderr}`);
}

function syncreplLines({ url, rootDn, rootPassword }: SyncreplSource): string {
  return `syncrepl rid=001 provider=${url} type=refreshAndPersist retry="1 +" searchbase=o=mail scope=sub schemachecking=off
  attrs="*,+" bindmethod=simple binddn=${rootDn} credentials=${rootPassword.reveal()}`;
}

/** A port of loopback that nobody has at this moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
