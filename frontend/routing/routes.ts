/**
 * Everything a frontend knows for routing, kept current by following this subset's directory: the route index, the domains, the clusters.
 * When the directory falls silent nothing is taken out: routes are frozen, not gone.
 */
import type { AccountName, DomainName } from '#common/account-name.ts';
import type { Random } from '#common/random.ts';
import type { DirectoryChange } from '#directory/client/directory.ts';
import { Domains } from './domains.ts';
import { type IndexedRoute, RouteIndex } from './route-index.ts';
import { emptyTopology, type Topology, withCluster, withoutCluster } from './topology.ts';

/** See the header of this file. */
export class Routes {
  readonly index: RouteIndex;
  readonly domains = new Domains();
  #topology: Topology = emptyTopology;
  #isRefreshed = false;

  constructor(random: Random) {
    this.index = new RouteIndex(random);
  }

  /** The clusters, as of now. */
  get topology(): Topology {
    return this.#topology;
  }

  /** Whether the whole directory has been seen once; before that, what is missing here may well exist. */
  get isRefreshed(): boolean {
    return this.#isRefreshed;
  }

  /** Takes a change from the follower. */
  apply(change: DirectoryChange): void {
    if (change.type === 'refreshed') {
      this.#isRefreshed = true;
      return;
    }
    if (change.type === 'remove') {
      if (this.index.remove(change.uuid) || this.domains.remove(change.uuid)) return;
      this.#topology = withoutCluster(this.#topology, change.uuid);
      return;
    }
    const { record } = change;
    if (record.kind === 'domain') this.domains.put(record);
    else if (record.kind === 'cluster') this.#topology = withCluster(this.#topology, record);
    else
      this.index.put(
        record.uuid,
        record.hostServer,
        [record.name, ...record.addresses].map((address) => this.domains.canonicalAddress(address)),
      );
  }

  /**
   * The route of an address. An address may have been taken in before its domain was known to be an alias, so a miss at the domain's own
   * name is followed by one look at the address as it stands.
   */
  find(address: AccountName): IndexedRoute | undefined {
    const canonical = this.domains.canonicalAddress(address);
    return this.index.find(canonical) ?? (canonical === address ? undefined : this.index.find(address));
  }

  /** Whether the domain, or an alias of it, is known to be served here. */
  hasDomain(domain: DomainName): boolean {
    return this.domains.canonical(domain) !== undefined;
  }
}
