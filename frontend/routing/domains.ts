/**
 * The domains served here, and their aliases. Addresses are taken to the domain's own name before they are looked for, so that aliases
 * cost nothing in the route index.
 */
import { type AccountName, type AccountUuid, type DomainName, domainOf, localPartOf } from '#common/account-name.ts';
import type { DomainRecord } from '#directory/client/records.ts';

/** See the header of this file. */
export class Domains {
  readonly #records = new Map<AccountUuid, DomainRecord>();
  /** By name and by alias. */
  readonly #named = new Map<DomainName, DomainRecord>();
  /** Name or alias → how many domains claim it; more than one is a mistake in the directory, and survived. */
  readonly #claims = new Map<DomainName, number>();

  /** Domains, aliases not counted. */
  get count(): number {
    return this.#records.size;
  }

  /** Every domain's record. */
  records(): IterableIterator<DomainRecord> {
    return this.#records.values();
  }

  /** Replaces what was known of this entry. */
  put(record: DomainRecord): void {
    this.remove(record.uuid);
    this.#records.set(record.uuid, record);
    for (const name of namesOf(record)) this.#claims.set(name, (this.#claims.get(name) ?? 0) + 1);
    this.#add(record);
  }

  /** Forgets an entry; `false` when it is not a domain's. */
  remove(uuid: AccountUuid): boolean {
    const record = this.#records.get(uuid);
    if (record === undefined) return false;
    this.#records.delete(uuid);
    let isContested = false;
    for (const name of namesOf(record)) {
      const left = (this.#claims.get(name) ?? 1) - 1;
      if (left === 0) this.#claims.delete(name);
      else this.#claims.set(name, left);
      if (this.#named.get(name)?.uuid === uuid) this.#named.delete(name);
      isContested ||= left > 0;
    }
    // Another domain claims one of the names as well, and gets it now.
    if (isContested) for (const other of this.#records.values()) this.#add(other);
    return true;
  }

  /** The domain of that name or alias. */
  find(domain: DomainName): DomainRecord | undefined {
    return this.#named.get(domain);
  }

  /** The domain's own name, or `undefined` when it is not served here as far as is known. */
  canonical(domain: DomainName): DomainName | undefined {
    return this.#named.get(domain)?.name;
  }

  /** The address at its domain's own name; unchanged when the domain is not known. */
  canonicalAddress(address: AccountName): AccountName {
    const domain = domainOf(address);
    const canonical = this.canonical(domain);
    return canonical === undefined || canonical === domain ? address : (`${localPartOf(address)}@${canonical}` as AccountName);
  }

  /** A domain's own name goes before another's alias. */
  #add(record: DomainRecord): void {
    this.#named.set(record.name, record);
    for (const alias of record.aliases) {
      if (this.#named.get(alias)?.name !== alias) this.#named.set(alias, record);
    }
  }
}

function namesOf(record: DomainRecord): Set<DomainName> {
  return new Set([record.name, ...record.aliases]);
}
