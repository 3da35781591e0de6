/**
 * The two servers that are compared: ours, and a stock slapd with our schema, a rule of access that says what ours does, and the same
 * identities. Both offer StartTLS by one certificate, and a Unix socket.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { Secret } from '#common/secret.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { identityDn, servicePassword, startTestDirectory } from '../../unit/directory/test-directory.ts';
import { freePort } from '../slapd-server.ts';
import type { ServerAddress } from './model.ts';

export const adminDn = identityDn('admin');
export const adminPassword = servicePassword;

/** Both servers, with the topology and the suffix. */
export interface ServerPair extends AsyncDisposable {
  readonly ours: ServerAddress;
  readonly slapd: ServerAddress;
}

export async function startServers(): Promise<ServerPair> {
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-suite-'));
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
  const caFile = join(folder, 'cert.pem');
  const keyFile = join(folder, 'key.pem');
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', keyFile, '-out', caFile, ...subject];
  execFileSync('openssl', request, { stdio: 'ignore' });

  const directory = cleanup.use(
    await startTestDirectory({
      tls: { certFile: caFile, keyFile },
      ldapiPath: join(folder, 'ours.socket'),
      ldapiIdentity: adminDn,
      placement: 'none',
      listeners: [{ address: '127.0.0.1', port: 0, tls: 'starttls' }],
    }),
  );
  const port = Number(new URL(directory.url).port);
  const ours = {
    url: directory.url,
    host: '127.0.0.1',
    port,
    caFile,
    ldapiUrl: directory.running.urls[1] as string,
  };
  const slapd = cleanup.use(await startStockSlapd(folder, caFile, keyFile));
  for (const server of [ours, slapd]) {
    await using admin = await connectAdmin(server);
    for (const dn of ['o=mail', 'ou=topology,o=mail', 'ou=clusters,ou=topology,o=mail']) {
      const [type, value] = (dn.split(',')[0] as string).split('=') as [string, string];
      const structure = type === 'o' ? 'organization' : 'organizationalUnit';
      // Our server has them from the start.
      if ((await admin.readEntry(dn, ['1.1'])) === undefined)
        await admin.add(dn, [attribute('objectClass', structure), attribute(type, value)]);
    }
    await admin.add('cn=west.isp.example,ou=clusters,ou=topology,o=mail', [
      attribute('objectClass', 'mailCluster'),
      attribute('cn', 'west.isp.example'),
      attribute('clusterMember', 'back1.west.isp.example 127.0.0.1:4711'),
    ]);
  }
  const owned = cleanup.move();
  return { ours, slapd, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Our own client, bound as administrator. */
export async function connectAdmin(server: ServerAddress): Promise<LdapConnection> {
  const connection = await LdapConnection.open(systemNetwork, systemClock, { url: server.url });
  await connection.bind(adminDn, new Secret(adminPassword));
  return connection;
}

async function startStockSlapd(folder: string, certFile: string, keyFile: string): Promise<ServerAddress & AsyncDisposable> {
  const program = '/usr/sbin/slapd';
  if (!existsSync(program)) throw new Error(`${program} is missing: install slapd (apt-get install slapd)`);
  const home = join(folder, 'slapd');
  await mkdir(join(home, 'data'), { recursive: true });
  const port = await freePort();
  const url = `ldap://127.0.0.1:${port}`;
  const ldapiUrl = `ldapi://${encodeURIComponent(join(home, 'socket'))}`;
  const { uid, gid } = userInfo();
  const schema = new URL('../../../deploy/openldap/archipelago.schema', import.meta.url).pathname;
  await writeFile(
    join(home, 'slapd.conf'),
    `${['core', 'cosine', 'inetorgperson'].map((name) => `include /etc/ldap/schema/${name}.schema`).join('\n')}
include ${schema}
pidfile ${home}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
moduleload sssvlv
loglevel 0
TLSCertificateFile ${certFile}
TLSCertificateKeyFile ${keyFile}
authz-policy to
authz-regexp "gidNumber=${gid}\\\\+uidNumber=${uid},cn=peercred,cn=external,cn=auth" "${adminDn}"
database mdb
maxsize 104857600
suffix o=mail
rootdn ${adminDn}
rootpw ${adminPassword}
directory ${home}/data
dbnosync
index objectClass,entryUUID,entryCSN,uid,mail,hostServer eq
index cn eq,sub
access to attrs=userPassword by self write by anonymous auth by * none
access to * by self read by * none
overlay syncprov
overlay sssvlv
`,
  );
  const child = spawn(program, ['-d', '0', '-h', `${url} ${ldapiUrl}`, '-f', join(home, 'slapd.conf')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let output = '';
  child.stderr.on('data', (chunk: Buffer) => {
    output = `${output}${chunk}`.slice(-4000);
  });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const address = { url, host: '127.0.0.1', port, caFile: certFile, ldapiUrl };
  for (;;) {
    if (child.exitCode !== null) throw new Error(`slapd ended at once: ${output}`);
    try {
      await (await connectAdmin(address))[Symbol.asyncDispose]();
      break;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  return {
    ...address,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}
