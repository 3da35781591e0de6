/**
 * The accounts whose `hostServer` is this cluster, kept current by following the directory: every member knows names, status, quota and
 * password hashes without asking anybody during a login.
 *
 * Staleness is harmless: what is not found here is asked at the master before anything permanent is said, and a record carries its
 * change number, so older news never replaces newer.
 */
import { type AccountName, type AccountUuid, type DomainName, domainOf, localPartOf } from '#common/account-name.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { DirectoryChange } from '#directory/client/directory.ts';
import type { AccountRecord, DomainRecord } from '#directory/client/records.ts';

/** What became of an account of this cluster. `after` is `undefined` when it was removed; its `hostServer` may be another cluster now. */
export interface AccountChange {
  readonly before: AccountRecord | undefined;
  readonly after: AccountRecord | undefined;
}

/** See the header of this file. */
export class AccountRegistry {
  readonly #cluster: ClusterName;
  readonly #accounts = new Map<AccountUuid, AccountRecord>();
  readonly #byAddress = new Map<AccountName, AccountUuid>();
  /** Further addresses that several accounts have: such a one leads to none of them, only to whom it is the name of. */
  readonly #contested = new Map<AccountName, Set<AccountUuid>>();
  readonly #domains = new Map<AccountUuid, DomainRecord>();
  readonly #aliases = new Map<DomainName, DomainName>();
  readonly #listeners: ((change: AccountChange) => void)[] = [];
  #isRefreshed = false;

  constructor(cluster: ClusterName) {
    this.#cluster = cluster;
  }

  get count(): number {
    return this.#accounts.size;
  }

  /** The directory's whole content was seen once. */
  get isRefreshed(): boolean {
    return this.#isRefreshed;
  }

  find(uuid: AccountUuid): AccountRecord | undefined {
    return this.#accounts.get(uuid);
  }

  /** The account that an address belongs to: name, else `mail` or `mailAlternateAddress` of one account, each also at the domain's aliases. */
  resolve(address: AccountName): AccountRecord | undefined {
    const uuid = this.#byAddress.get(address) ?? this.#byAddress.get(this.#atMainDomain(address));
    return uuid === undefined ? undefined : this.#accounts.get(uuid);
  }

  onChange(listener: (change: AccountChange) => void): void {
    this.#listeners.push(listener);
  }

  /** Takes what following the directory reports. */
  apply(change: DirectoryChange): void {
    if (change.type === 'refreshed') {
      this.#isRefreshed = true;
    } else if (change.type === 'remove') {
      const before = this.#accounts.get(change.uuid);
      if (before !== undefined) {
        this.#forget(before);
        this.#tell({ before, after: undefined });
      } else {
        this.#forgetDomain(change.uuid);
      }
    } else if (change.record.kind === 'account') {
      this.learn(change.record);
    } else if (change.record.kind === 'domain') {
      this.#forgetDomain(change.record.uuid);
      this.#domains.set(change.record.uuid, change.record);
      for (const alias of change.record.aliases) this.#aliases.set(alias, change.record.name);
    }
  }

  /** Takes a record, also one that was looked up; older news is passed over. */
  learn(record: AccountRecord): void {
    const before = this.#accounts.get(record.uuid);
    if (before !== undefined && before.csn > record.csn) return;
    if (before !== undefined) this.#forget(before);
    if (record.hostServer === this.#cluster) {
      this.#accounts.set(record.uuid, record);
      this.#byAddress.set(record.name, record.uuid);
      for (const address of record.addresses) this.#claim(address, record.uuid);
    }
    if (before !== undefined || record.hostServer === this.#cluster) this.#tell({ before, after: record });
  }

  #atMainDomain(address: AccountName): AccountName {
    const main = this.#aliases.get(domainOf(address));
    return main === undefined ? address : (`${localPartOf(address)}@${main}` as AccountName);
  }

  #forget(record: AccountRecord): void {
    this.#accounts.delete(record.uuid);
    for (const address of [record.name, ...record.addresses]) {
      // Another account may have the address by now: its news came first.
      if (this.#byAddress.get(address) === record.uuid) this.#byAddress.delete(address);
      const claims = this.#contested.get(address);
      if (claims?.delete(record.uuid) !== true || claims.size > 1) continue;
      this.#contested.delete(address);
      for (const left of claims) this.#claim(address, left);
    }
  }

  #claim(address: AccountName, uuid: AccountUuid): void {
    const claims = this.#contested.get(address);
    if (claims !== undefined) {
      claims.add(uuid);
      return;
    }
    const holder = this.#byAddress.get(address);
    if (holder === undefined) this.#byAddress.set(address, uuid);
    else if (this.#accounts.get(holder)?.name !== address) {
      this.#contested.set(address, new Set([holder, uuid]));
      this.#byAddress.delete(address);
    }
  }

  #forgetDomain(uuid: AccountUuid): void {
    const domain = this.#domains.get(uuid);
    if (domain === undefined) return;
    this.#domains.delete(uuid);
    for (const alias of domain.aliases) if (this.#aliases.get(alias) === domain.name) this.#aliases.delete(alias);
  }

  #tell(change: AccountChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}
