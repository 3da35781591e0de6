/** Our own Directory Server as a server under test: on loopback, in a temporary directory, to be stopped and started on one port. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Clock, systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { type RunningDirectory, startDirectory } from '#directory/main.ts';
import type { TestServer } from './replication-suite.ts';

/** These have their rights at every server, with the password of the other identity: for servers that change their role. */
export const adminDn = 'cn=admin,ou=services,o=mail';
export const replicatorDn = 'cn=replicator,ou=services,o=mail';

/** Starts one. The identity is `admin` at a master and `replicator` at a replica. `peers` is asked at each start. */
export async function startOwnDirectory(
  mode: 'master' | 'replica',
  tls?: { readonly listen: 'implicit' | 'starttls'; readonly certFile: string; readonly keyFile: string; readonly ca: string },
  clock: Clock = systemClock,
  peers: () => string[] = () => [],
): Promise<TestServer & { readonly dataDirectory: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-directory-'));
  const rootDn = 'cn=test,ou=services,o=mail';
  const rootPassword = new Secret('test-secret');
  const passwordFile = join(directory, 'password');
  await writeFile(passwordFile, rootPassword.reveal());
  let running: RunningDirectory | undefined;
  let port = 0;
  const server = {
    dataDirectory: join(directory, 'data'),
    get url() {
      return `${tls?.listen === 'implicit' ? 'ldaps' : 'ldap'}://127.0.0.1:${port}`;
    },
    rootDn,
    rootPassword,
    async connect() {
      const connection = await LdapConnection.open(systemNetwork, systemClock, { url: server.url, ca: tls?.ca });
      await connection.bind(rootDn, rootPassword);
      return connection;
    },
    async start() {
      running = await startDirectory(
        {
          role: 'directory',
          name: `ldap-${mode}.isp.example`,
          mode,
          ...(mode === 'replica' ? { master: 'ldap://127.0.0.1:389' } : {}),
          peers: peers(),
          suffix: 'o=mail',
          dataDirectory: server.dataDirectory,
          listeners: [{ address: '127.0.0.1', port, tls: tls?.listen ?? 'none' }],
          ...(tls === undefined ? {} : { tls: { certFile: tls.certFile, keyFile: tls.keyFile } }),
          identities: [
            { dn: rootDn, rights: mode === 'master' ? 'admin' : 'replicator', password: { file: passwordFile } },
            { dn: adminDn, rights: 'admin', password: { file: passwordFile } },
            { dn: replicatorDn, rights: 'replicator', password: { file: passwordFile } },
          ],
          placement: 'none',
          messageBytesMax: 16_777_216,
          connectionsMax: 100,
          idleTimeoutMs: 3_600_000,
        },
        {
          clock,
          random: systemRandom,
          network: systemNetwork,
          files: nodeFiles,
          log: silentLogger,
          metrics: createMetrics(),
        },
      );
      port = Number(new URL(running.urls[0] as string).port);
    },
    async stop() {
      await running?.[Symbol.asyncDispose]();
      running = undefined;
    },
    async [Symbol.asyncDispose]() {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
  await server.start();
  return server;
}
