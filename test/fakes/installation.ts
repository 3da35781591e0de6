/**
 * A small installation made of fixed statuses: two subsets, master and two replicas, two clusters. For the admin API, the CLI and the
 * console, which see nothing of a service but what it reports.
 */
import type { AccountWhereabouts, ClusterAccounts } from '#backend-cluster/client/cluster-client.ts';
import type { BackendStatus, MemberSession, StoreReport } from '#backend-cluster/client/status.ts';
import { type AccountUuid, parseAccountName } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, type MemberName, parseClusterName } from '#common/host-server.ts';
import { Secret } from '#common/secret.ts';
import type { DirectoryReader, DirectoryWriter } from '#directory/client/directory.ts';
import type { AccountRecord, ClusterRecord } from '#directory/client/records.ts';
import type { DirectoryStatus } from '#directory/client/status.ts';
import type { FrontendSession, FrontendStatus, RouteExplanation } from '#frontend/client/status.ts';
import type { AdminService } from '#operate/api/options.ts';
import type { ReplicationStatus } from '#replication/client/status.ts';

const startedAtMs = Date.UTC(2026, 10, 22, 12, 0, 0);

/** A frontend with `sessions` sessions of made-up users. */
export function fakeFrontend(name: string, subset: string, sessions: number, ready = true): AdminService {
  const status: FrontendStatus = {
    role: 'frontend',
    name,
    subset,
    region: `${subset}-west`,
    state: 'ready',
    withdrawal: { state: 'serving', weight: 100, drain: undefined },
    listeners: [
      { protocol: 'imap', tls: 'implicit', address: '127.0.0.1', port: 21993, sessions },
      { protocol: 'smtp', tls: 'starttls', address: '127.0.0.1', port: 21025, sessions: 0 },
    ],
    routes: {
      accounts: 204,
      domains: 2,
      clusters: 2,
      server: `ldap://ldap-${subset}.isp.example`,
      state: 'following',
      silentMs: 40,
      addresses: 210,
      bytes: 2_800,
      leftovers: 0,
      cached: 0,
      snapshotAgeMs: 60_000,
    },
    clusters: [
      { name: 'east.isp.example', members: [{ name: 'back1.east.isp.example', state: 'up', load: 3 }] },
      { name: 'west.isp.example', members: [{ name: 'back1.west.isp.example', state: 'up', load: 1 }] },
    ],
    sessions: Array.from(
      { length: sessions },
      (_, index): FrontendSession => ({
        sessionId: `${subset}${name.slice(5, 6)}-${String(index).padStart(4, '0')}`,
        protocol: index % 3 === 2 ? 'pop3' : 'imap',
        account: `user${index}@isp.example`,
        clientAddress: `198.51.100.${10 + index}`,
        cluster: index % 2 === 0 ? 'west.isp.example' : 'east.isp.example',
        member: index % 2 === 0 ? 'back1.west.isp.example' : 'back2.east.isp.example',
        startedAtMs: startedAtMs + index * 1000,
        bytesIn: 812 + index,
        bytesOut: 48_120 * (index + 1),
      }),
    ),
    logins: { ok: 41, failed: 2, refused: 0 },
    links: [
      {
        member: 'back1.west.isp.example',
        service: 'imap',
        isShared: true,
        connections: 2,
        sessions: 17,
        hits: 40,
        misses: 1,
        refused: 0,
      },
    ],
    queue: { messages: 0, oldestAgeMs: 0, delivered: 12, deferred: 1, bounced: 0 },
  };
  return {
    role: 'frontend',
    name,
    status: () => status,
    readiness: () => [{ name: 'routes', ok: ready, detail: ready ? '204 accounts known' : 'the directory was never reached' }],
    explain: (address): RouteExplanation => ({
      address,
      frontend: name,
      subset,
      steps: [{ what: 'route index', found: 'west.isp.example' }],
      verdict: 'routed',
      uuid: aliceUuid,
      hostServer: 'west.isp.example',
      member: 'back1.west.isp.example',
      memberReason: 'least loaded of 2',
    }),
  };
}

/** A member as it sees its cluster; `states` are the members' states in order. */
export function fakeMember(
  name: string,
  cluster: string,
  options: { controller?: string | undefined; term?: number; states?: readonly ('active' | 'dead' | 'draining')[] } = {},
): AdminService {
  const controller = 'controller' in options ? options.controller : `back1.${cluster}`;
  const sessions: readonly MemberSession[] = [];
  const status: BackendStatus = {
    role: 'backend-cluster',
    name,
    linkAddress: '127.0.0.1:21701',
    isController: controller === name,
    cluster: {
      cluster,
      observer: name,
      controller,
      term: options.term ?? 3,
      members: (options.states ?? ['active', 'active']).map((state, index) => ({
        name: `back${index + 1}.${cluster}`,
        address: `127.0.0.1:2170${index + 1}`,
        state,
        weight: 100,
        incarnation: 'a1',
        openAccounts: 4,
        sessions: 2,
        lastSeenAtMs: startedAtMs,
      })),
      accounts: cluster.startsWith('east') ? 104 : 96,
    },
    storage: { engine: 'posix', path: 'run/shared', ok: true, detail: 'probe passed' },
    coordinator: { engine: 'embedded', ok: true, detail: 'in this process' },
    directory: { server: 'ldap://ldap-eu.isp.example', state: 'following', silentMs: 12 },
    duties: {
      httpClient: { setting: 'auto', effective: 'locally', runners: [] },
      remotePolling: { setting: 'auto', effective: 'locally', runners: [] },
    },
    openAccounts: 4,
    openAccountsBytes: 36_000,
    openAccountsBytesMax: 536_870_912,
    drain: undefined,
    settingsVersion: 0,
    deliveries: 31,
    links: [
      {
        member: `back2.${cluster}`,
        service: 'calls',
        isShared: false,
        connections: 1,
        sessions: 0,
        hits: 900,
        misses: 1,
        refused: 3,
      },
    ],
    sessions,
  };
  return {
    role: 'backend-cluster',
    name,
    status: () => status,
    readiness: () => [{ name: 'storage', ok: true, detail: 'probe passed' }],
  };
}

/** A directory server. */
export function fakeDirectory(name: string, mode: 'master' | 'replica'): AdminService {
  const status: DirectoryStatus = {
    role: 'directory',
    name,
    mode,
    term: 1,
    masterUrl: undefined,
    note: '',
    urls: [`ldap://${name}`],
    suffix: 'o=mail',
    entries: 214,
    accounts: 200,
    contextCsn: '20261122120000.000001Z#000000#001#000000',
    lastChangeNumber: 214,
    connections: 9,
    followers: 6,
    operations: { search: 120, add: 200 },
  };
  return {
    role: 'directory',
    name,
    status: () => status,
    readiness: () => [{ name: 'database', ok: true, detail: 'open' }],
  };
}

/** The replication service with two replicas, the second `lagMs` behind. */
export function fakeReplication(lagMs = 0): AdminService & { verified: string[]; asked: string[] } {
  const verified: string[] = [];
  const asked: string[] = [];
  const latest = '20261122120000.000001Z#000000#001#000000';
  const replica = (name: string, behindMs: number): ReplicationStatus['replicas'][number] => ({
    name,
    url: `ldap://${name}`,
    state: 'following',
    backlogChanges: behindMs === 0 ? 0 : 17,
    lagMs: behindMs,
    applied: { add: 200, modify: 3, rename: 1, delete: 0 },
    conflicts: 0,
    refused: { entries: 0, first: [] },
    contextCsn: '20261122120000.000001Z#000000#001#000000',
    lastError: undefined,
    lastAppliedAtMs: startedAtMs,
    lastVerifiedAtMs: undefined,
    lastVerifyResult: undefined,
  });
  let status: ReplicationStatus = {
    role: 'replication',
    name: 'replication.isp.example',
    master: {
      name: 'ldap-master.isp.example',
      url: 'ldap://ldap-master.isp.example',
      term: 1,
      state: 'following',
      contextCsn: undefined,
      lastError: undefined,
    },
    replicas: [replica('ldap-eu.isp.example', 0), replica('ldap-us.isp.example', lagMs)],
  };
  return {
    role: 'replication',
    name: status.name,
    verified,
    status: () => status,
    readiness: () => [{ name: 'master', ok: true, detail: 'following' }],
    asked,
    masterCsn: async () => latest,
    waitFor: (change, name, signal) =>
      change <= latest
        ? Promise.resolve(void asked.push(`wait ${name} ${change}`))
        : new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    resume: (name) => void asked.push(`resume ${name}`),
    allowDeletes: (name) => void asked.push(`allow-deletes ${name}`),
    repair: async (name, { isDryRun, allowsDeletes, onFound, onProgress }) => {
      asked.push(`repair ${name}${isDryRun ? ' dry' : ''}${allowsDeletes === true ? ' deleting' : ''}`);
      onProgress?.({ step: 'reading the master', entries: 0, ofEntries: undefined });
      const bob = { uuid: aliceUuid, dn: 'uid=bob,cn=isp.example,o=mail', kind: 'different', what: ['mail'] } as const;
      const report = { replica: name, entries: 214, differences: [bob], differing: 1, extra: 0, isCut: false, underWay: 0 };
      await onFound?.({ report, size: 1, all: () => [bob], refusal: undefined, [Symbol.dispose]: () => {} });
      return { before: report, after: isDryRun ? undefined : { ...report, differences: [], differing: 0 } };
    },
    verify: async (name) => {
      verified.push(name);
      const result = '214 entries compared, none differs';
      status = { ...status, replicas: status.replicas.map((one) => (one.name === name ? { ...one, lastVerifyResult: result } : one)) };
      return [{ replica: name, entries: 214, differences: [], differing: 0, extra: 0, isCut: false, underWay: 0 }];
    },
  };
}

/** All services of the installation. */
export function fakeServices(): AdminService[] {
  return [
    fakeDirectory('ldap-eu.isp.example', 'replica'),
    fakeDirectory('ldap-master.isp.example', 'master'),
    fakeDirectory('ldap-us.isp.example', 'replica'),
    fakeReplication(),
    fakeMember('back1.east.isp.example', 'east.isp.example'),
    fakeMember('back2.east.isp.example', 'east.isp.example'),
    fakeMember('back1.west.isp.example', 'west.isp.example'),
    fakeMember('back2.west.isp.example', 'west.isp.example'),
    fakeFrontend('front1.eu.isp.example', 'eu', 3),
    fakeFrontend('front2.eu.isp.example', 'eu', 2),
    fakeFrontend('front1.us.isp.example', 'us', 1),
    fakeFrontend('front2.us.isp.example', 'us', 0),
  ];
}

/** `entryUUID` of alice@isp.example. */
export const aliceUuid = '6ba7b810-9dad-41d1-80b4-00c04fd430c8' as AccountUuid;

/** The entry of alice@isp.example, hosted by west. */
export function aliceRecord(changes: Partial<AccountRecord> = {}): AccountRecord {
  return {
    kind: 'account',
    uuid: aliceUuid,
    dn: 'uid=alice,cn=isp.example,o=mail',
    name: parseAccountName('alice@isp.example'),
    hostServer: parseClusterName('west.isp.example'),
    hostServerProblem: undefined,
    addresses: [],
    status: 'active',
    quotaBytes: undefined,
    passwords: new Secret([]),
    region: undefined,
    displayName: 'Alice',
    csn: '20261122120000.000001Z#000000#001#000000',
    ...changes,
  };
}

/** A directory of the given entries; its writer keeps what it was told. */
export function fakeDirectoryAccess(
  records: AccountRecord[],
  clusters: readonly ClusterRecord[] = [],
): {
  reader: DirectoryReader;
  writer: DirectoryWriter;
  passwords: Map<string, string>;
} {
  const passwords = new Map<string, string>();
  const dispose = async (): Promise<void> => {};
  const refuse = async (): Promise<never> => {
    throw new PlatformError('DIR_REFUSED', 'only passwords are written here');
  };
  return {
    passwords,
    reader: {
      findAccount: async (name, options) => ({
        record: records.find((record) => record.name === name),
        server: options?.authoritative ? 'ldap://ldap-master.isp.example' : 'ldap://ldap-eu.isp.example',
        authoritative: options?.authoritative === true,
      }),
      findAccountByUuid: async (uuid) => ({
        record: records.find((record) => record.uuid === uuid),
        server: 'ldap://ldap-master.isp.example',
        authoritative: true,
      }),
      findDomain: async () => undefined,
      listAccounts: async () => records,
      listClusters: async () => clusters,
      servers: async () => [
        { url: 'ldap://ldap-eu.isp.example', isMaster: false, reachable: true, lastError: undefined, contextCsn: 'x', lagMs: 12 },
        { url: 'ldap://ldap-master.isp.example', isMaster: true, reachable: true, lastError: undefined, contextCsn: 'x', lagMs: 0 },
      ],
      [Symbol.asyncDispose]: dispose,
    },
    writer: {
      createAccount: refuse,
      renameAccount: refuse,
      removeAccount: refuse,
      setPassword: async (uuid, password) => {
        passwords.set(uuid, password.reveal());
      },
      setStatus: refuse,
      createDomain: refuse,
      [Symbol.asyncDispose]: dispose,
    },
  };
}

/** The store of a cluster: east has a damaged account, both have been checked once. */
function storeReport(cluster: string): StoreReport {
  const isEast = cluster.startsWith('east');
  const findings = [{ file: `accounts/6b/a7/${aliceUuid}/log/000000000004`, problem: 'the records fail their checksum' }];
  return {
    engine: 'posix',
    path: '/srv/mail',
    damaged: isEast ? 1 : 0,
    damagedAccounts: isEast ? [{ uuid: aliceUuid, findings, foundAtMs: startedAtMs, foundBy: 'check' }] : [],
    removed: 2,
    scrub: {
      bytesPerSecond: 4_000_000,
      everyMs: 604_800_000,
      last: {
        round: 1,
        startedAtMs,
        finishedAtMs: startedAtMs + 60_000,
        accounts: 104,
        bytes: 4_000_000,
        damaged: isEast ? 1 : 0,
        unread: 0,
      },
    },
  };
}

/** Clusters that keep a list of what they were asked; `counts` are the accounts of those that answer. */
export function fakeClusterAccounts(
  whereabouts: Partial<AccountWhereabouts> = {},
  counts: Readonly<Record<string, number>> = {},
): ClusterAccounts & { asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    create: async (cluster: ClusterName, account) => {
      asked.push(`create ${account.name} at ${cluster}`);
      if (account.name.startsWith('taken@')) throw new PlatformError('ACCT_EXISTS', `${account.name} exists`);
      return { uuid: aliceUuid };
    },
    rename: async (cluster, uuid, to) => {
      asked.push(`rename ${uuid} to ${to} at ${cluster}`);
    },
    remove: async (cluster, uuid) => {
      asked.push(`remove ${uuid} at ${cluster}`);
    },
    restore: async (cluster, { removed }) => {
      asked.push(`restore ${removed} at ${cluster}`);
      if (!removed.startsWith('gone@')) throw new PlatformError('ACCT_NOT_FOUND', `${cluster} keeps no storage of ${removed}`);
      return { uuid: aliceUuid, name: removed };
    },
    openArchive: async () => {
      throw new PlatformError('NET_CONNECT_FAILED', 'there are no channels here');
    },
    store: async (cluster) => storeReport(cluster),
    startScrub: async (cluster) => {
      asked.push(`scrub at ${cluster}`);
      return storeReport(cluster);
    },
    checkAccount: async (cluster, uuid) => {
      asked.push(`check ${uuid} at ${cluster}`);
      const findings = [{ file: `accounts/6b/a7/${uuid}/body/f1`, problem: 'a stored part fails its checksum' }];
      return { uuid, messages: 3, bodies: 3, usedBytes: 4_000, slots: 2, snapshots: 1, findings, isComplete: false };
    },
    repairAccount: async (cluster, uuid, how) => {
      asked.push(`repair ${uuid} at ${cluster}${how.isDryRun ? ' dry' : ''}${how.discardLost ? ' discarding' : ''}`);
      const lost = [{ mailbox: 'INBOX', uid: 2, internalDateMs: startedAtMs, sizeBytes: 1_234, file: 'body/f1', why: 'checksum' }];
      const outcome = how.discardLost && !how.isDryRun ? 'repaired' : 'would-lose';
      return { uuid, outcome, findings: [], lostSlots: 0, lostMessages: 1, lost, mended: 0, messages: 3 };
    },
    manage: async (cluster, method, params) => {
      asked.push(`${method} ${JSON.stringify(params)} at ${cluster}`);
      const fields = params as { change?: Record<string, string | null>; to?: string };
      if (method.startsWith('settings.')) return { version: 4, values: { 'member.back1.west.isp.example.weight': '200' } };
      if (method === 'members.rebalance') return { members: [{ member: `back1.${cluster}`, openAccounts: 40, share: 25, closed: 15 }] };
      if (method === 'members.hand-over') return { from: `back1.${cluster}`, to: fields.to ?? `back2.${cluster}` };
      if (method === 'members.remove') return { settings: 1 };
      const state = method === 'members.drain' ? 'running' : method === 'members.drain-abort' ? 'aborted' : 'done';
      return { state, accounts: 12, closed: state === 'done' ? 12 : 5, startedAtMs, deadlineMs: 60_000 };
    },
    status: async (cluster) => {
      const seen = counts[cluster];
      if (seen === undefined) throw new PlatformError('NET_CONNECT_FAILED', `${cluster} does not answer`);
      return { cluster, observer: `back1.${cluster}`, controller: `back1.${cluster}`, term: 1, members: [], accounts: seen };
    },
    whereIs: async () => ({
      state: 'open',
      currentHost: 'back1.west.isp.example' as MemberName,
      epoch: 7,
      sessions: [],
      ...whereabouts,
    }),
  };
}
