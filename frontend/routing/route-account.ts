/**
 * From an address to the account's cluster, and its uuid where that is known.
 *
 *   what look-ups found lately ──hit──► route
 *        │ miss
 *   route index ──hit──► route, without uuid: the member finds the account by its name
 *        │ miss
 *   recently answered "no such account"? (at most 2 s ago, by the master)
 *        │ no
 *   this subset's directory servers, in order ──found──► route
 *        │ nothing, or none answers
 *   master, within a rate limit ──found──► route
 *        │ nothing: the only way to `unknown`      │ silent: temporary
 *
 * What always holds: `unknown` was said by the master at most 2 s ago. Everything else that stands in the way is temporary and has a code of
 * its own. What the master says replaces what is known here. Questions for one address at a time are asked once, whoever waits for them.
 */
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { DirectoryReader } from '#directory/client/directory.ts';
import type { AccountRecord, ClusterMember, ClusterRecord } from '#directory/client/records.ts';
import { RateLimit } from './rate-limit.ts';
import type { RouteCache } from './route-cache.ts';
import type { IndexedRoute } from './route-index.ts';
import type { Routes } from './routes.ts';
import { findHost } from './topology.ts';

/** Time for which the master's "no such account" is believed, milliseconds. */
export const negativeCacheMs = 2000;
const negativeCacheMax = 20_000;

/** Where an address leads. */
export type AccountRoute =
  | {
      readonly kind: 'routed';
      /** Missing where the route index alone was asked. */
      readonly uuid: AccountUuid | undefined;
      readonly cluster: ClusterRecord;
      /** Foreign: the host that hostServer names. */
      readonly pinned?: ClusterMember | undefined;
      /** The account's own name; missing where the index was asked by a further address. */
      readonly name?: AccountName | undefined;
      readonly source: 'index' | 'cache' | 'subset' | 'master';
    }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'temporary'; readonly error: PlatformError };

/** The route index of another process of this frontend. */
export interface IndexElsewhere {
  /** `undefined` also when that process does not answer: the directory is asked then. Never rejects. `canonical` has the domain's own name. */
  find(address: AccountName, canonical: AccountName): Promise<IndexedRoute | undefined> | IndexedRoute | undefined;
  /** The master said that there is no such account. */
  forget(address: AccountName): void;
}

/** See the header of this file. */
export class AccountRouter {
  readonly #routes: Routes;
  readonly #index: IndexElsewhere | undefined;
  readonly #reader: DirectoryReader;
  readonly #clock: Clock;
  readonly #masterLimit: RateLimit;
  #masterPerSecond: number;
  readonly #cache: RouteCache;
  readonly #asking = new Map<string, Promise<AccountRoute>>();
  /** Address → when the master said that there is no such account; in order of time. */
  readonly #absent = new Map<AccountName, number>();
  #learning: { readonly atMs: number; readonly done: Promise<void> } | undefined;
  readonly #results: ReturnType<Metrics['counter']>;

  constructor(options: {
    readonly routes: Routes;
    /** Where the accounts are not among `routes`. */
    readonly index?: IndexElsewhere | undefined;
    readonly reader: DirectoryReader;
    readonly clock: Clock;
    readonly metrics: Metrics;
    readonly cache: RouteCache;
    /** Questions to the master a second. */
    readonly masterPerSecond: number;
  }) {
    this.#routes = options.routes;
    this.#index = options.index;
    this.#reader = options.reader;
    this.#clock = options.clock;
    this.#cache = options.cache;
    this.#masterPerSecond = options.masterPerSecond;
    this.#masterLimit = new RateLimit(options.clock, this.#masterPerSecond, 2 * this.#masterPerSecond);
    this.#results = options.metrics.counter('archipelago_frontend_routes_total', 'Addresses routed, by result and source.', [
      'result',
      'source',
    ]);
  }

  /** Another limit for questions to the master. */
  setMasterPerSecond(perSecond: number): void {
    this.#masterPerSecond = perSecond;
    this.#masterLimit.setRate(perSecond, 2 * perSecond);
  }

  /** Routes an address; never rejects. */
  async route(address: AccountName): Promise<AccountRoute> {
    const cached = this.#cache.find(address);
    if (cached !== undefined) return this.#counted(await this.#toCluster(cached, address, cached.cluster, 'cache', undefined));
    const indexed = this.#index === undefined ? this.#routes.find(address) : await this.#findElsewhere(this.#index, address);
    return this.#counted(indexed === undefined ? await this.#look(address) : await this.#ofIndex(address, indexed));
  }

  /**
   * As `route`, with the account's uuid as long as any directory server answers: for what outlives the moment, such as mail in a queue. A name that
   * an account had until just now is asked for, and not taken from the cache: no member looks at it before the mail is accepted. Never rejects.
   */
  async routeWithUuid(address: AccountName): Promise<AccountRoute> {
    const found = await this.#look(address);
    const isSilent = found.kind === 'temporary' && !isKnown(found.error);
    const indexed = isSilent
      ? await (this.#index === undefined ? this.#routes.find(address) : this.#findElsewhere(this.#index, address))
      : undefined;
    return this.#counted(indexed === undefined ? found : await this.#ofIndex(address, indexed));
  }

  /**
   * Routes an address by the master alone: after a member said that the account is not its own, or does not exist. Never rejects.
   */
  async routeByMaster(address: AccountName): Promise<AccountRoute> {
    const route = await this.#once(`master ${address}`, () => this.#askMaster(address));
    // Whatever led to a member in vain is not to lead there again.
    if (route.kind === 'unknown') (this.#index ?? this.#routes).forget(address);
    return this.#counted(route);
  }

  /**
   * Where an account is now and what it is called, by its entry's uuid: for mail that was accepted under an earlier name. Never rejects.
   */
  async routeUuid(uuid: AccountUuid): Promise<{ readonly route: AccountRoute; readonly name: AccountName | undefined }> {
    let record: AccountRecord | undefined;
    let source: 'subset' | 'master' = 'subset';
    try {
      const answer = await this.#reader.findAccountByUuid(uuid).catch((thrown: unknown) => {
        // None of the subset's servers answers; the master still may.
        if (asPlatformError(thrown).kind !== 'unavailable') throw thrown;
        return undefined;
      });
      record = answer?.record;
      if (record === undefined && answer?.authoritative !== true) {
        source = 'master';
        if (!this.#masterLimit.take())
          return { route: { kind: 'temporary', error: masterBusy(uuid, this.#masterPerSecond) }, name: undefined };
        record = (await this.#reader.findAccountByUuid(uuid, { authoritative: true })).record;
      }
    } catch (thrown) {
      return { route: { kind: 'temporary', error: temporary(asPlatformError(thrown)) }, name: undefined };
    }
    if (record === undefined) return { route: this.#counted({ kind: 'unknown' }), name: undefined };
    return { route: this.#counted(await this.#ofRecord(record.name, record, source)), name: record.name };
  }

  #findElsewhere(index: IndexElsewhere, address: AccountName): ReturnType<IndexElsewhere['find']> {
    return index.find(address, this.#routes.domains.canonicalAddress(address));
  }

  #look(address: AccountName): Promise<AccountRoute> {
    return this.#once(`any ${address}`, async () => {
      const found = await this.#lookUp(address);
      const stale = found.kind === 'temporary' ? this.#cache.find(address, true) : undefined;
      return stale === undefined ? found : this.#toCluster(stale, address, stale.cluster, 'cache', undefined);
    });
  }

  #ofIndex(address: AccountName, indexed: IndexedRoute): Promise<AccountRoute> {
    const name = indexed.isName ? this.#routes.domains.canonicalAddress(address) : undefined;
    return this.#toCluster({ uuid: undefined, name }, address, indexed.cluster, 'index', undefined);
  }

  #counted(route: AccountRoute): AccountRoute {
    const source = route.kind === 'routed' ? route.source : 'none';
    this.#results.add({ result: route.kind === 'temporary' ? route.error.code : route.kind, source });
    return route;
  }

  async #lookUp(address: AccountName): Promise<AccountRoute> {
    if (this.#isAbsent(address)) return { kind: 'unknown' };
    try {
      const answer = await this.#reader.findAccount(address);
      if (answer.record !== undefined) return await this.#ofRecord(address, answer.record, 'subset');
      if (answer.authoritative) return this.#absentNow(address);
    } catch (thrown) {
      const error = asPlatformError(thrown);
      this.#distrust(address, error);
      if (error.kind !== 'unavailable') return { kind: 'temporary', error: temporary(error) };
      // None of the subset's servers answers, or gives one account; the master still may.
      const route = await this.#askMaster(address);
      return route.kind === 'temporary' && isKnown(error) ? { kind: 'temporary', error } : route;
    }
    return this.#askMaster(address);
  }

  async #askMaster(address: AccountName): Promise<AccountRoute> {
    if (this.#isAbsent(address)) return { kind: 'unknown' };
    if (!this.#masterLimit.take()) return { kind: 'temporary', error: masterBusy(address, this.#masterPerSecond) };
    try {
      const { record } = await this.#reader.findAccount(address, { authoritative: true });
      return record === undefined ? this.#absentNow(address) : await this.#ofRecord(address, record, 'master');
    } catch (thrown) {
      const error = asPlatformError(thrown);
      this.#distrust(address, error);
      return { kind: 'temporary', error: temporary(error) };
    }
  }

  /** Several accounts have the address by now: none of them is to be found by what was known before. */
  #distrust(address: AccountName, error: PlatformError): void {
    if (error.code === 'DIR_ADDRESS_AMBIGUOUS') this.#cache.remove(address);
  }

  #ofRecord(address: AccountName, record: AccountRecord, source: 'subset' | 'master'): Promise<AccountRoute> {
    const { uuid, name, hostServer, hostServerProblem } = record;
    if (hostServer === undefined) this.#cache.remove(address);
    else this.#cache.put(address, { uuid, name, cluster: hostServer });
    return this.#toCluster({ uuid, name }, address, hostServer, source, hostServerProblem);
  }

  async #toCluster(
    account: { readonly uuid: AccountUuid | undefined; readonly name: AccountName | undefined },
    address: AccountName,
    hostServer: ClusterName | undefined,
    source: 'index' | 'cache' | 'subset' | 'master',
    problem: string | undefined,
  ): Promise<AccountRoute> {
    const { uuid, name } = account;
    if (hostServer === undefined) {
      const error = new PlatformError(
        'ROUTE_NO_HOST_SERVER',
        `the entry of ${address} has no usable hostServer (${problem ?? 'missing, malformed or given twice'}); set it to the name of the account's cluster`,
        { fields: { account: address, uuid } },
      );
      return { kind: 'temporary', error };
    }
    if (!this.#routes.isRefreshed && findHost(this.#routes.topology, hostServer) === undefined) await this.#learnClusters();
    const host = findHost(this.#routes.topology, hostServer);
    if (host === undefined) {
      const known = [...this.#routes.topology.clusters.keys()].slice(0, 10).join(', ');
      const error = new PlatformError(
        'ROUTE_UNKNOWN_CLUSTER',
        `hostServer ${hostServer} of the entry of ${address} names no cluster of the topology (known: ${known === '' ? 'none yet' : known})`,
        { fields: { account: address, uuid, hostServer } },
      );
      return { kind: 'temporary', error };
    }
    return { kind: 'routed', uuid, name, ...host, source };
  }

  /** Before the directory has been seen whole its clusters are asked for, at most once in `negativeCacheMs`. */
  #learnClusters(): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    if (this.#learning !== undefined && nowMs - this.#learning.atMs < negativeCacheMs) return this.#learning.done;
    const done = this.#reader.listClusters().then(
      (records) => {
        for (const record of records) this.#routes.apply({ type: 'put', record });
      },
      // Whoever waited is told that the cluster is not known (yet), which is temporary.
      () => {},
    );
    this.#learning = { atMs: nowMs, done };
    return done;
  }

  #once(question: string, ask: () => Promise<AccountRoute>): Promise<AccountRoute> {
    const asking = this.#asking.get(question);
    if (asking !== undefined) return asking;
    const answer = ask().finally(() => this.#asking.delete(question));
    this.#asking.set(question, answer);
    return answer;
  }

  #absentNow(address: AccountName): AccountRoute {
    this.#cache.remove(address);
    this.#absent.delete(address);
    this.#absent.set(address, this.#clock.monotonicMs());
    // The map is in order of time: drop from the front what is too old, and one more when it is full.
    const oldestMs = this.#clock.monotonicMs() - negativeCacheMs;
    for (const [known, atMs] of this.#absent) {
      if (atMs > oldestMs && this.#absent.size <= negativeCacheMax) break;
      this.#absent.delete(known);
    }
    return { kind: 'unknown' };
  }

  #isAbsent(address: AccountName): boolean {
    const atMs = this.#absent.get(address);
    return atMs !== undefined && this.#clock.monotonicMs() - atMs < negativeCacheMs;
  }
}

/** The directory answered, and what it said leads nowhere. */
function isKnown({ code }: PlatformError): boolean {
  return code === 'ROUTE_NO_HOST_SERVER' || code === 'DIR_ADDRESS_AMBIGUOUS';
}

/** A directory that refuses or misbehaves is our trouble and not the client's fault: what it costs is temporary. */
function temporary(error: PlatformError): PlatformError {
  if (error.kind === 'unavailable' || error.kind === 'limit') return error;
  return new PlatformError('DIR_UNAVAILABLE', `the directory could not answer: ${error.message}`, { cause: error, fields: error.fields });
}

function masterBusy(account: string, perSecond: number): PlatformError {
  return new PlatformError(
    'ROUTE_MASTER_BUSY',
    `more than ${perSecond} questions a second for the master directory; ${account} was not asked for. Look for clients that try names at random, or for a replica that is far behind`,
    { fields: { account } },
  );
}
