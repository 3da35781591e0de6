/**
 * The federation on paper: names, ports and node configurations of two subsets, two Dynamic Clusters, a master directory with two
 * replicas and the replication service. Pure: federation.ts starts what is planned here, in the order in which addresses become known.
 *
 *     eu: front1 front2 ─┐                     ┌─ east.isp.example: back1 back2
 *     us: front1 front2 ─┼─ link, hostServer ──┼─ west.isp.example: back1 back2
 *         ldap-eu, ldap-us ◄── replication ◄── ldap-master
 */
import { join } from 'node:path';
import type { BackendConfig } from '#backend-cluster/config.ts';
import type { DirectoryAccess, LinkTls, ServerTls } from '#common/config/options.ts';
import type { DirectoryConfig } from '#directory/config.ts';
import { type FrontendConfig, type FrontendListener, routingDefaults } from '#frontend/config.ts';
import { sieveExtensions } from '#protocol/sieve/compile.ts';
import type { ReplicationConfig } from '#replication/config.ts';

/** Everything lives under this domain. */
export const siteDomain = 'isp.example';
export const suffix = 'o=mail';
export const subsetNames = ['eu', 'us'] as const;
export const clusterNames = ['east.isp.example', 'west.isp.example'] as const;
export type SubsetName = (typeof subsetNames)[number];

/** The directory server's own administrator. */
export const adminDn = `cn=admin,${suffix}`;

/** Services' identities at the directory, with the rights each needs. */
export const identities = ['admin', 'replicator', 'cluster', 'provisioner', 'frontend'] as const;
export type Identity = (typeof identities)[number];

/** DN of an identity. */
export function identityDn(identity: Identity): string {
  return identity === 'admin' ? adminDn : `cn=${identity},ou=services,${suffix}`;
}

/** Full names of all servers, by role. */
export const directoryNames = { master: `ldap-master.${siteDomain}`, eu: `ldap-eu.${siteDomain}`, us: `ldap-us.${siteDomain}` } as const;
export const replicationName = `replication.${siteDomain}`;
export const consoleName = `console.${siteDomain}`;

/** Members of a cluster. */
export function memberNames(cluster: string): readonly string[] {
  return [`back1.${cluster}`, `back2.${cluster}`];
}

/** Frontends of a subset. */
export function frontendNames(subset: SubsetName): readonly string[] {
  return [`front1.${subset}.${siteDomain}`, `front2.${subset}.${siteDomain}`];
}

/** Offsets from the port base; a frontend's listeners start at 1000 per frontend. */
const offsets = {
  directory: { master: 389, eu: 390, us: 391 },
  directoryTls: { master: 636, eu: 637, us: 638 },
  console: 80,
  member: 700,
  frontend: { imap: 143, imaps: 993, pop3: 110, pop3s: 995, smtp: 25, submission: 587, http: 880, sieve: 419 },
} as const;

/** Name of a listener in the ready file. */
export type ListenerName = keyof typeof offsets.frontend;
export const listenerNames = Object.keys(offsets.frontend) as ListenerName[];

/** Gives the port for an offset: `base + offset`, or 0 (the system chooses) when there is no base. */
export type PortOf = (offset: number) => number;

/** Ports from a fixed base, or chosen by the system. */
export function portsFrom(base: number | undefined): PortOf {
  return (offset) => (base === undefined ? 0 : base + offset);
}

/** Every offset in use, to see whether a base is free. */
export function allOffsets(): number[] {
  const all: number[] = [offsets.console, ...Object.values(offsets.directory), ...Object.values(offsets.directoryTls)];
  for (let member = 0; member < clusterNames.length * 2; member += 1) all.push(offsets.member + member);
  for (let frontend = 0; frontend < subsetNames.length * 2; frontend += 1) {
    for (const offset of Object.values(offsets.frontend)) all.push(offset + 1000 * frontend);
  }
  return all;
}

/** Where files of the federation lie, below one root. */
export interface Layout {
  readonly root: string;
  tls(name: string): ServerTls;
  link(name: string): LinkTls;
  secret(identity: Identity | 'console'): string;
  readonly caFile: string;
  data(...parts: string[]): string;
}

/** The layout below `root`. */
export function layoutOf(root: string): Layout {
  const tls = (name: string): ServerTls => ({ certFile: join(root, 'tls', `${name}.pem`), keyFile: join(root, 'tls', `${name}.key`) });
  const caFile = join(root, 'tls', 'ca.pem');
  return {
    root,
    tls,
    link: (name) => ({ caFile, ...tls(name) }),
    secret: (identity) => join(root, 'secrets', identity),
    caFile,
    data: (...parts) => join(root, ...parts),
  };
}

/** Certificate names of a server: its own, what it is reached by here, and its role. */
export function certificateNames(name: string, role: string): string[] {
  return [name, 'localhost', '127.0.0.1', `urn:archipelago:role:${role}`];
}

/** Every server with its role, for certificates. */
export function allServers(): { name: string; role: string }[] {
  return [
    ...Object.values(directoryNames).map((name) => ({ name, role: 'directory' })),
    { name: replicationName, role: 'replication' },
    ...clusterNames.flatMap((cluster) => memberNames(cluster).map((name) => ({ name, role: 'backend-cluster' }))),
    ...subsetNames.flatMap((subset) => frontendNames(subset).map((name) => ({ name, role: 'frontend' }))),
    { name: consoleName, role: 'operate' },
  ];
}

/** A Directory Server; `masterUrl` makes it a replica. */
export function directoryConfig(layout: Layout, which: keyof typeof directoryNames, portOf: PortOf, masterUrl?: string): DirectoryConfig {
  const name = directoryNames[which];
  return {
    role: 'directory',
    name,
    mode: masterUrl === undefined ? 'master' : 'replica',
    ...(masterUrl === undefined ? {} : { master: masterUrl }),
    suffix,
    dataDirectory: layout.data('directory', name),
    listeners: [
      { address: '127.0.0.1', port: portOf(offsets.directory[which]), tls: 'starttls' },
      { address: '127.0.0.1', port: portOf(offsets.directoryTls[which]), tls: 'implicit' },
    ],
    tls: layout.tls(name),
    identities: identities.map((identity) => ({ dn: identityDn(identity), rights: identity, password: { file: layout.secret(identity) } })),
    placement: 'fewest-accounts',
    messageBytesMax: 16_777_216,
    connectionsMax: 20_000,
    idleTimeoutMs: 3_600_000,
  };
}

/** How a service reaches the directory: `servers` in order, then the master. */
export function directoryAccess(layout: Layout, identity: Identity, servers: readonly string[], master: string): DirectoryAccess {
  return {
    servers: [...servers],
    master,
    suffix,
    bindDn: identityDn(identity),
    bindPassword: { file: layout.secret(identity) },
    caFile: layout.caFile,
    timeoutMs: 5000,
  };
}

/** The replication service from the master to both replicas. */
export function replicationConfig(layout: Layout, urls: { master: string; eu: string; us: string }): ReplicationConfig {
  const server = (url: string) => ({
    url,
    bindDn: identityDn('replicator'),
    bindPassword: { file: layout.secret('replicator') },
    caFile: layout.caFile,
  });
  return {
    role: 'replication',
    name: replicationName,
    suffix,
    master: server(urls.master),
    replicas: subsetNames.map((subset) => ({ name: directoryNames[subset], ...server(urls[subset]) })),
    stateDirectory: layout.data('replication'),
    refreshDeletesMaxPercent: 10,
    verifySchedule: '17 3 * * *',
  };
}

/** A cluster member. Leases are short here, so that a killed member's accounts come back while somebody watches. */
export function memberConfig(layout: Layout, cluster: string, name: string, portOf: PortOf, access: DirectoryAccess): BackendConfig {
  const index = clusterNames.flatMap((each) => memberNames(each)).indexOf(name);
  return {
    role: 'backend-cluster',
    name,
    listen: { address: '127.0.0.1', port: portOf(offsets.member + index) },
    clusterNetwork: ['127.0.0.1', '::1'],
    storage: { engine: 'posix', path: layout.data('storage', cluster) },
    coordinator: { engine: 'embedded' },
    directory: access,
    link: layout.link(name),
    heartbeatMs: 500,
    leaseMs: 3000,
    idleCloseMs: 60_000,
    openAccountsMegabytes: 512,
    tombstoneGraceHours: 720,
    scrubBytesPerSecond: 4_000_000,
    scrubEveryHours: 168,
    httpClient: 'auto',
    remotePolling: 'auto',
    defaultQuotaBytes: 0,
  };
}

/** A frontend of a subset. */
export function frontendConfig(layout: Layout, subset: SubsetName, name: string, portOf: PortOf, access: DirectoryAccess): FrontendConfig {
  const index = subsetNames.flatMap((each) => frontendNames(each)).indexOf(name);
  const listener = (key: ListenerName, protocol: FrontendListener['protocol'], tls: FrontendListener['tls']): FrontendListener => ({
    protocol,
    tls,
    address: '127.0.0.1',
    port: portOf(offsets.frontend[key] + 1000 * index),
    perAddressMax: 10_000,
    connectionsMax: 20_000,
    allowPlaintextLogin: false,
  });
  return {
    role: 'frontend',
    name,
    subset,
    region: subset,
    defaultDomain: siteDomain,
    listeners: [
      listener('imap', 'imap', 'starttls'),
      listener('imaps', 'imap', 'implicit'),
      listener('pop3', 'pop3', 'starttls'),
      listener('pop3s', 'pop3', 'implicit'),
      listener('smtp', 'smtp', 'starttls'),
      listener('submission', 'submission', 'starttls'),
      listener('http', 'http', 'none'),
      { ...listener('sieve', 'managesieve', 'starttls'), sieveExtensions: sieveExtensions.join(' ') },
    ],
    tls: layout.tls(name),
    directory: access,
    link: layout.link(name),
    queueDirectory: layout.data('queue', name),
    messageBytesMax: 52_428_800,
    routing: routingDefaults,
    loginTimeoutMs: 60_000,
    drainMs: 500,
  };
}

/** Port of the console. */
export function consolePort(portOf: PortOf): number {
  return portOf(offsets.console);
}
