/**
 * Finds an account of this cluster by its UUID or by an address: here first, at the master before anything permanent is said.
 */
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { DirectoryReader } from '#directory/client/directory.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { AccountRegistry } from './registry.ts';

/** Where an account is. `absent` is the master's word. */
export type Located =
  | { readonly where: 'here'; readonly record: AccountRecord }
  | { readonly where: 'elsewhere'; readonly hostServer: ClusterName | undefined }
  | { readonly where: 'absent' };

/** Asks at the master for what the registry lacks; see `locate`. */
export class Locator {
  readonly #cluster: ClusterName;
  readonly #registry: AccountRegistry;
  readonly #reader: Pick<DirectoryReader, 'findAccount' | 'findAccountByUuid'>;
  /** Questions on the way, so that a storm of logins for one missing account is one question. */
  readonly #asked = new Map<string, Promise<Located>>();

  constructor(cluster: ClusterName, registry: AccountRegistry, reader: Pick<DirectoryReader, 'findAccount' | 'findAccountByUuid'>) {
    this.#cluster = cluster;
    this.#registry = registry;
    this.#reader = reader;
  }

  /** Rejects with `DIR_NO_MASTER` when the registry does not know it and the master does not answer. */
  byUuid(uuid: AccountUuid): Promise<Located> {
    const record = this.#registry.find(uuid);
    if (record !== undefined) return Promise.resolve({ where: 'here', record });
    return this.#once(uuid, () => this.#reader.findAccountByUuid(uuid, { authoritative: true }));
  }

  /** As `byUuid`, for an address. */
  byAddress(address: AccountName): Promise<Located> {
    const record = this.#registry.resolve(address);
    if (record !== undefined) return Promise.resolve({ where: 'here', record });
    return this.#once(address, () => this.#reader.findAccount(address, { authoritative: true }));
  }

  #once(key: string, ask: () => Promise<{ record: AccountRecord | undefined }>): Promise<Located> {
    const before = this.#asked.get(key);
    if (before !== undefined) return before;
    const asking = ask()
      .then(({ record }): Located => {
        if (record === undefined) return { where: 'absent' };
        this.#registry.learn(record);
        return record.hostServer === this.#cluster ? { where: 'here', record } : { where: 'elsewhere', hostServer: record.hostServer };
      })
      .finally(() => this.#asked.delete(key));
    this.#asked.set(key, asking);
    return asking;
  }
}
