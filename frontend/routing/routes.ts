/**
 * Everything a frontend knows for routing, kept current by following this subset's directory: the route index, the domains, the clusters.
 * When the directory falls silent nothing is taken out: routes are frozen, not gone.
 */
import type { AccountName, AccountUuid, DomainName } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Random } from '#common/random.ts';
import type { DirectoryChange, FollowedContent } from '#directory/client/directory.ts';
import type { ClusterRecord, DomainRecord, SubsetRecord } from '#directory/client/records.ts';
import { Domains } from './domains.ts';
import { type IndexedRoute, RouteIndex, type RouteIndexImage } from './route-index.ts';
import type { SegmentMemory } from './segment-memory.ts';
import { emptyTopology, type Topology, withCluster, withoutCluster } from './topology.ts';

/** What an earlier process of this frontend knew. */
export interface KnownRoutes {
  /** Missing where another process keeps the index. */
  readonly index: RouteIndexImage | undefined;
  readonly domains: readonly DomainRecord[];
  readonly clusters: readonly ClusterRecord[];
  readonly subsets?: readonly SubsetRecord[];
}

/** Told of what the directory says, once it is known here. */
export interface RoutesWatcher {
  account(name: AccountName, hostServer: ClusterName | undefined): void;
  clusters(clusters: ReadonlyMap<ClusterName, ClusterRecord>): void;
  subsets(): void;
}

/** Segments swept in one turn of the event loop after a whole refresh. */
const sweptPerTurn = 4;

/** See the header of this file. */
export class Routes implements FollowedContent {
  readonly index: RouteIndex;
  readonly domains = new Domains();
  readonly #clock: Clock;
  /** Set by whoever has to act on changes. */
  watcher: RoutesWatcher | undefined;
  #topology: Topology = emptyTopology;
  readonly #subsets = new Map<AccountUuid, SubsetRecord>();
  #isRefreshed: boolean;
  #leftovers = 0;
  readonly #isWithoutIndex: boolean;
  /** Domains and clusters that a whole refresh under way has not named yet. */
  #unnamed: Set<AccountUuid> | undefined;

  /** @param options `isWithoutIndex`: another process has the accounts, here are domains and clusters only; `memory`: of the index */
  constructor(options: {
    readonly random: Random;
    readonly clock: Clock;
    readonly known?: KnownRoutes | undefined;
    readonly isWithoutIndex?: boolean;
    readonly memory?: SegmentMemory | undefined;
  }) {
    const { random, clock, known } = options;
    this.#isWithoutIndex = options.isWithoutIndex === true;
    this.#clock = clock;
    this.index = new RouteIndex(random, known?.index, options.memory);
    for (const record of [...(known?.domains ?? []), ...(known?.clusters ?? []), ...(known?.subsets ?? [])])
      this.apply({ type: 'put', record });
    this.#isRefreshed = known !== undefined;
  }

  /** The clusters, as of now. */
  get topology(): Topology {
    return this.#topology;
  }

  /** The entries of frontend subsets, as of now. */
  get subsets(): IterableIterator<SubsetRecord> {
    return this.#subsets.values();
  }

  /** Whether the whole directory has been seen once; before that, what is missing here may well exist. */
  get isRefreshed(): boolean {
    return this.#isRefreshed;
  }

  /** Removals whose keys could not be told since the last whole refresh: so many addresses at least may lead to a cluster in vain. */
  get leftovers(): number {
    return this.#leftovers;
  }

  /** Takes a change from the follower. */
  apply(change: DirectoryChange): void {
    if (change.type === 'refreshed') {
      this.#isRefreshed = true;
      return;
    }
    if (change.type === 'remove') {
      this.#remove(change.uuid, change.name);
      return;
    }
    const { record } = change;
    this.#unnamed?.delete(record.uuid);
    if (record.kind === 'domain') this.domains.put(record);
    else if (record.kind === 'cluster') {
      this.#topology = withCluster(this.#topology, record);
      this.watcher?.clusters(this.#topology.clusters);
    } else if (record.kind === 'subset') {
      this.#subsets.set(record.uuid, record);
      this.watcher?.subsets();
    } else {
      this.putAccount(record.name, record.hostServer, record.addresses);
    }
  }

  putAccount(name: AccountName, hostServer: ClusterName | undefined, addresses: readonly AccountName[]): void {
    if (!this.#isWithoutIndex) {
      this.index.put(
        hostServer,
        addresses.length === 0
          ? [this.domains.canonicalAddress(name)]
          : [name, ...addresses].map((address) => this.domains.canonicalAddress(address)),
      );
    }
    this.watcher?.account(name, hostServer);
  }

  beginRefresh(): void {
    this.index.beginRefresh();
    this.#unnamed = new Set(
      [...this.domains.records(), ...this.#topology.clusters.values(), ...this.#subsets.values()].map(({ uuid }) => uuid),
    );
  }

  get unnamed(): { readonly gone: number; readonly known: number } {
    const { gone, known } = this.index.unnamed;
    return {
      gone: gone + (this.#unnamed?.size ?? 0),
      known: known + this.domains.count + this.#topology.clusters.size + this.#subsets.size,
    };
  }

  endRefresh(isBelieved: boolean): void {
    const unnamed = this.#unnamed ?? [];
    this.#unnamed = undefined;
    if (!isBelieved) {
      this.index.cancelRefresh();
      return;
    }
    for (const uuid of unnamed) this.#remove(uuid, undefined);
    this.#leftovers = 0;
    this.index.endRefresh();
    this.#sweep();
  }

  /**
   * The route of an address. An address may have been taken in before its domain was known to be an alias, so a miss at the domain's own
   * name is followed by one look at the address as it stands.
   */
  find(address: AccountName): IndexedRoute | undefined {
    const canonical = this.domains.canonicalAddress(address);
    return this.index.find(canonical) ?? (canonical === address ? undefined : this.index.find(address));
  }

  /** The master said that there is no such account. */
  forget(address: AccountName): void {
    const canonical = this.domains.canonicalAddress(address);
    this.index.remove(canonical);
    if (canonical !== address) this.index.remove(address);
  }

  /** Whether the domain, or an alias of it, is known to be served here. */
  hasDomain(domain: DomainName): boolean {
    return this.domains.canonical(domain) !== undefined;
  }

  #remove(uuid: AccountUuid, name: AccountName | undefined): void {
    if (this.domains.remove(uuid)) return;
    if (this.#subsets.delete(uuid)) {
      this.watcher?.subsets();
      return;
    }
    const left = withoutCluster(this.#topology, uuid);
    if (left !== this.#topology) this.#topology = left;
    else if (this.#isWithoutIndex) return;
    // Its further addresses, if it had any, are left over all the same; counted is what is left over for certain.
    else if (name === undefined || !this.index.remove(this.domains.canonicalAddress(name), true)) this.#leftovers += 1;
  }

  #sweep(): void {
    for (let step = 0; step < sweptPerTurn; step += 1) if (!this.index.sweepStep()) return;
    this.#clock.after(0, () => this.#sweep());
  }
}
