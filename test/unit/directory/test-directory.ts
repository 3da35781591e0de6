/**
 * A whole Directory Server on loopback with a data directory of its own, and clients to it, for tests.
 */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#common/clock.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { Secret } from '#common/secret.ts';
import { systemPorts } from '#common/system-ports.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import type { DirectoryConfig } from '#directory/config.ts';
import { type RunningDirectory, startDirectory } from '#directory/main.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';

/** Password of all service identities. */
export const servicePassword = 'service-password';

/** A server under test. */
export interface TestDirectory extends AsyncDisposable {
  readonly folder: string;
  readonly running: RunningDirectory;
  readonly url: string;
  /** A client bound as one of the identities, or as any DN with its password. */
  connect(who?: string, password?: string): Promise<LdapConnection>;
  /** Stops it, and leaves its files. */
  stop(): Promise<void>;
  /** Stops and starts it again on the same data. */
  restart(): Promise<void>;
}

/** DN of the identity with these rights. */
export function identityDn(rights: string): string {
  return `cn=${rights},ou=services,o=mail`;
}

/** Starts one. */
export async function startTestDirectory(
  options: Partial<DirectoryConfig> = {},
  more: Parameters<typeof startDirectory>[2] = {},
): Promise<TestDirectory> {
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-directory-'));
  const secretFile = join(folder, 'secret');
  await writeFile(secretFile, `${servicePassword}\n`);
  const config: DirectoryConfig = {
    role: 'directory',
    name: 'ldap.isp.example',
    mode: 'master',
    suffix: 'o=mail',
    dataDirectory: join(folder, 'data'),
    listeners: [{ address: '127.0.0.1', port: 0, tls: 'starttls' }],
    identities: (['admin', 'replicator', 'cluster', 'provisioner', 'frontend'] as const).map((rights) => ({
      dn: identityDn(rights),
      rights,
      password: { file: secretFile },
    })),
    placement: 'fewest-accounts',
    messageBytesMax: 1_048_576,
    connectionsMax: 100,
    idleTimeoutMs: 60_000,
    ...options,
  };
  const ports: Ports = systemPorts(silentLogger);
  let running = await startDirectory(config, ports, more);
  return {
    folder,
    get running() {
      return running;
    },
    get url() {
      return running.urls[0] as string;
    },
    async connect(who = 'admin', password = servicePassword) {
      const connection = await LdapConnection.open(systemNetwork, systemClock, { url: running.urls[0] as string, timeoutMs: 10_000 });
      await connection.bind(who.includes('=') ? who : identityDn(who), new Secret(password));
      return connection;
    },
    async stop() {
      await running[Symbol.asyncDispose]();
    },
    async restart() {
      await running[Symbol.asyncDispose]();
      running = await startDirectory(config, { ...ports, metrics: createMetrics() }, more);
    },
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Attributes of a domain. */
export function domainEntry(name: string): Attribute[] {
  return [attribute('objectClass', 'mailDomain'), attribute('cn', name)];
}

/** Attributes of a cluster. */
export function clusterEntry(name: string, weight = 100): Attribute[] {
  return [
    attribute('objectClass', 'mailCluster'),
    attribute('cn', name),
    attribute('clusterMember', `back1.${name} 127.0.0.1:4711`),
    attribute('clusterWeight', String(weight)),
  ];
}

/** Attributes of an account. */
export function accountEntry(uid: string, ...more: readonly Attribute[]): Attribute[] {
  return [
    attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
    attribute('uid', uid),
    attribute('cn', uid),
    attribute('sn', uid),
    ...more,
  ];
}

/** DN of an account. */
export function accountDn(uid: string, domain = 'isp.example'): string {
  return `uid=${uid},cn=${domain},o=mail`;
}

/** Adds clusters east and west and the domain isp.example. */
export async function addFrame(admin: LdapConnection): Promise<void> {
  await admin.add('cn=east.isp.example,ou=clusters,ou=topology,o=mail', clusterEntry('east.isp.example'));
  await admin.add('cn=west.isp.example,ou=clusters,ou=topology,o=mail', clusterEntry('west.isp.example'));
  await admin.add('cn=isp.example,o=mail', domainEntry('isp.example'));
}
