/**
 * A small federation for the frontend's tests: a directory and members that answer as they are told, and a frontend's parts around them.
 */
import type { LinkClient, MemberAddress, MemberHealth } from '#backend-cluster/client/cluster-client.ts';
import type { LinkSettings } from '#backend-cluster/client/link-settings.ts';
import type { AccountName, AccountUuid, DomainName } from '#common/account-name.ts';
import { parseAccountName, parseAccountUuid, parseDomainName } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, parseClusterName, parseMemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import type { Connection, ConnectOptions, Listener, Network } from '#common/network/network.ts';
import { Secret } from '#common/secret.ts';
import type { DirectoryReader, LookupAnswer } from '#directory/client/directory.ts';
import type { AccountRecord, ClusterRecord, DirectoryRecord, DomainRecord, SubsetRecord } from '#directory/client/records.ts';
import { ForeignClusters } from '#frontend/foreign/foreign-clusters.ts';
import type { ForeignSettings } from '#frontend/foreign/settings.ts';
import { LoginGuard } from '#frontend/guard/login-guard.ts';
import { AccountRouter } from '#frontend/routing/route-account.ts';
import { RouteCache } from '#frontend/routing/route-cache.ts';
import { Routes } from '#frontend/routing/routes.ts';
import type { SaslSettings } from '#frontend/session/credentials.ts';
import { SessionOpener } from '#frontend/session/open-session.ts';
import type { OpenSession, OpenSessionAnswer } from '#protocol/link/messages.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { connectionPair, type MemoryConnection } from '#test/fakes/memory-connection.ts';
import { seededRandom } from '#test/fakes/random.ts';

/** A uuid made of a number. */
export function uuidOf(number: number): AccountUuid {
  return parseAccountUuid(`${number.toString(16).padStart(8, '0')}-0000-4000-8000-000000000000`);
}

export function account(number: number, name: string, hostServer: string | undefined, addresses: readonly string[] = []): AccountRecord {
  return {
    kind: 'account',
    uuid: uuidOf(number),
    dn: `uid=${name}`,
    name: parseAccountName(name),
    hostServer: hostServer === undefined ? undefined : parseClusterName(hostServer),
    hostServerProblem: hostServer === undefined ? 'missing' : undefined,
    addresses: addresses.map((address) => parseAccountName(address)),
    status: 'active',
    quotaBytes: undefined,
    passwords: new Secret([]),
    region: undefined,
    displayName: undefined,
    csn: '1',
  };
}

export function subset(number: number, name: string, settings: readonly string[], frontends: readonly string[] = []): SubsetRecord {
  return { kind: 'subset', uuid: uuidOf(number), dn: `cn=${name},ou=topology,o=mail`, name, settings, frontends, csn: '1' };
}

export function domain(number: number, name: string, aliases: readonly string[] = []): DomainRecord {
  return {
    kind: 'domain',
    uuid: uuidOf(number),
    dn: `cn=${name}`,
    name: parseDomainName(name),
    aliases: aliases.map((alias) => parseDomainName(alias)),
    csn: '1',
  };
}

export function cluster(number: number, name: string, members: readonly string[]): ClusterRecord {
  return {
    kind: 'cluster',
    uuid: uuidOf(number),
    dn: `cn=${name}`,
    name: parseClusterName(name),
    members: members.map((label, index) => ({
      name: parseMemberName(`${label}.${name}`),
      host: '127.0.0.1',
      port: 10_000 + 100 * number + index,
    })),
    weight: 100,
    region: undefined,
    csn: '1',
  };
}

/** A directory whose subset server and master may be stopped, or differ. */
export class FakeDirectory implements DirectoryReader {
  readonly subset = new Map<AccountName, AccountRecord>();
  readonly master = new Map<AccountName, AccountRecord>();
  readonly domains = new Map<DomainName, DomainRecord>();
  readonly clusters: ClusterRecord[] = [];
  isSubsetDown = false;
  isMasterDown = false;
  /** Addresses that several accounts have, for whoever looks. */
  readonly ambiguous = new Set<string>();
  /** Questions so far: `subset alice@...`, `master alice@...`. */
  readonly asked: string[] = [];
  /** Answers wait for this. */
  gate: Promise<void> = Promise.resolve();

  put(record: AccountRecord, where: 'both' | 'subset' | 'master' = 'both'): void {
    for (const address of [record.name, ...record.addresses]) {
      if (where !== 'master') this.subset.set(address, record);
      if (where !== 'subset') this.master.set(address, record);
    }
  }

  async findAccount(address: AccountName, options?: { authoritative?: boolean }): Promise<LookupAnswer> {
    return this.#answer(address, options?.authoritative === true, (of) => of.get(address));
  }

  async findAccountByUuid(uuid: AccountUuid, options?: { authoritative?: boolean }): Promise<LookupAnswer> {
    return this.#answer(uuid, options?.authoritative === true, (of) => [...of.values()].find((record) => record.uuid === uuid));
  }

  async findDomain(name: DomainName): Promise<DomainRecord | undefined> {
    if (this.isSubsetDown) throw new PlatformError('DIR_UNAVAILABLE', 'no server answers');
    return this.domains.get(name);
  }

  async listAccounts(): Promise<readonly AccountRecord[]> {
    return [];
  }

  async listClusters(): Promise<readonly ClusterRecord[]> {
    this.asked.push('clusters');
    if (this.isSubsetDown) throw new PlatformError('DIR_UNAVAILABLE', 'no server answers');
    return this.clusters;
  }

  async servers(): Promise<readonly never[]> {
    return [];
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #answer(
    what: string,
    authoritative: boolean,
    find: (of: Map<AccountName, AccountRecord>) => AccountRecord | undefined,
  ): Promise<LookupAnswer> {
    this.asked.push(`${authoritative ? 'master' : 'subset'} ${what}`);
    await this.gate;
    if (authoritative && this.isMasterDown) throw new PlatformError('DIR_NO_MASTER', 'the master does not answer');
    if (!authoritative && this.isSubsetDown) throw new PlatformError('DIR_UNAVAILABLE', 'no server answers');
    if (this.ambiguous.has(what))
      throw new PlatformError('DIR_ADDRESS_AMBIGUOUS', `2 accounts have the address ${what}: uid=bob; uid=carol`);
    return {
      record: find(authoritative ? this.master : this.subset),
      server: authoritative ? 'ldap://master' : 'ldap://subset',
      authoritative,
    };
  }
}

/** What a member answers; `undefined` does not answer at all. */
export type MemberBehaviour = (request: OpenSession) => OpenSessionAnswer | Promise<OpenSessionAnswer>;

/** Members that answer as they are told. The other ends of opened channels are in `channels`. */
export class FakeLink implements LinkClient {
  readonly members = new Map<string, MemberBehaviour>();
  readonly healths = new Map<string, Partial<MemberHealth>>();
  readonly requests: { readonly member: string; readonly request: OpenSession }[] = [];
  readonly calls: { readonly member: string; readonly method: string; readonly params: unknown }[] = [];
  readonly channels: MemoryConnection[] = [];
  answerCall: (member: MemberAddress, method: string, params: unknown) => unknown = () => ({ ok: true });

  async openSession(member: MemberAddress, request: OpenSession): Promise<{ answer: OpenSessionAnswer; channel: Connection | undefined }> {
    this.requests.push({ member: member.name, request });
    const behaviour = this.members.get(member.name);
    if (behaviour === undefined) throw new PlatformError('NET_CONNECT_FAILED', `cannot connect to ${member.name}`);
    const answer = await behaviour(request);
    if (answer.outcome !== 'opened') return { answer, channel: undefined };
    const [near, far] = connectionPair();
    this.channels.push(far);
    return { answer, channel: near };
  }

  async call(member: MemberAddress, method: string, params: unknown): Promise<unknown> {
    this.calls.push({ member: member.name, method, params });
    if (!this.members.has(member.name)) throw new PlatformError('NET_CONNECT_FAILED', `cannot connect to ${member.name}`);
    return this.answerCall(member, method, params);
  }

  health(member: MemberAddress): MemberHealth {
    return { member, state: 'up', load: 0, lastError: undefined, ...this.healths.get(member.name) };
  }

  /** Given last. */
  settings: LinkSettings | undefined;
  configure(settings: LinkSettings): void {
    this.settings = settings;
  }

  use(): [] {
    return [];
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** A member that knows one password for everybody. */
export function memberWithPassword(password: string, capabilities: readonly string[] = ['IMAP4rev1', 'IDLE']): MemberBehaviour {
  return (request) =>
    request.login === undefined || (request.login.mechanism === 'PLAIN' && request.login.password === password)
      ? { outcome: 'opened', capabilities, accountName: request.account?.name ?? '' }
      : { outcome: 'refused', code: 'AUTH_FAILED', kind: 'auth', message: 'wrong password' };
}

/** A logger that keeps its lines. */
export function keepingLogger(): { log: Logger; lines: { level: string; fields: Record<string, unknown>; message: string }[] } {
  const lines: { level: string; fields: Record<string, unknown>; message: string }[] = [];
  const at = (base: Record<string, unknown>): Logger => {
    const write = (level: string) => (fields: Record<string, unknown>, message: string) => {
      lines.push({ level, fields: { ...base, ...fields }, message });
    };
    return {
      child: (fields) => at({ ...base, ...fields }),
      trace: write('trace'),
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
    };
  };
  return { log: at({}), lines };
}

/** Foreign servers by address; each is handed the far end of a connection made to it. One that is missing refuses connections. */
export class FakeForeignHosts implements Network {
  readonly servers = new Map<string, (connection: MemoryConnection) => void>();
  /** Addresses dialled so far. */
  readonly dialled: string[] = [];

  async connect({ host, port }: ConnectOptions): Promise<Connection> {
    const address = `${host}:${port}`;
    this.dialled.push(address);
    const serve = this.servers.get(address);
    if (serve === undefined) throw new PlatformError('NET_CONNECT_FAILED', `nobody listens on ${address}`);
    const [near, far] = connectionPair();
    serve(far);
    return near;
  }

  listen(): Promise<Listener> {
    return Promise.reject(new Error('nobody listens in this test'));
  }
}

/** A frontend's routing and login parts around a fake directory and fake members, with isp.example hosted by `west`. */
export function federation(
  options: {
    password?: string;
    records?: readonly DirectoryRecord[];
    foreignSettings?: ReadonlyMap<ClusterName, ForeignSettings>;
    sasl?: SaslSettings;
  } = {},
) {
  const clock = new FakeClock();
  const random = seededRandom(7);
  const metrics = createMetrics();
  const { log, lines } = keepingLogger();
  const directory = new FakeDirectory();
  const link = new FakeLink();
  const routes = new Routes({ random, clock });
  const records = options.records ?? [
    domain(1, 'isp.example', ['alias.example']),
    cluster(2, 'west.isp.example', ['back1', 'back2']),
    cluster(3, 'east.isp.example', ['back1']),
    account(10, 'alice@isp.example', 'west.isp.example'),
  ];
  for (const record of records) {
    routes.apply({ type: 'put', record });
    if (record.kind === 'account') directory.put(record);
    if (record.kind === 'domain') directory.domains.set(record.name, record);
    if (record.kind === 'cluster') directory.clusters.push(record);
  }
  routes.apply({ type: 'refreshed', cookie: undefined });
  for (const name of ['back1.west.isp.example', 'back2.west.isp.example', 'back1.east.isp.example']) {
    link.members.set(name, memberWithPassword(options.password ?? 'wonderland'));
  }
  const cache = new RouteCache(clock, { freshMs: 10_000, staleMaxMs: 86_400_000, entriesMax: 1000 });
  const router = new AccountRouter({ routes, reader: directory, clock, metrics, cache, masterPerSecond: 200 });
  const guard = new LoginGuard(clock, random);
  const ports = { clock, random, log, metrics };
  const foreignHosts = new FakeForeignHosts();
  const foreign = new ForeignClusters({
    name: 'front1.eu.isp.example',
    settings: options.foreignSettings ?? new Map(),
    verifyPassword: async (_account, given) => given.reveal() === (options.password ?? 'wonderland'),
    ports: { ...ports, network: foreignHosts },
  });
  const defaultDomain = parseDomainName('isp.example');
  const { sasl = {} } = options;
  const opener = new SessionOpener({ name: 'front1.eu.isp.example', defaultDomain, routes, router, link, foreign, guard, sasl, ports });
  return { clock, random, metrics, log, lines, directory, link, routes, router, cache, guard, opener, ports, foreign, foreignHosts };
}

export type Federation = ReturnType<typeof federation>;

export const west = parseClusterName('west.isp.example') as ClusterName;
