/**
 * Care of the cluster's store: the background check, the accounts that are damaged, and what operators ask of the store of a running
 * cluster (`store.*` calls; the Controller carries out what closes or changes an account).
 */
import type { StoreReport } from '#backend-cluster/client/status.ts';
import type { AccountRepair, AccountStore, DamagedAccount } from '#backend-cluster/storage/account-store.ts';
import { Scrub } from '#backend-cluster/storage/scrub.ts';
import { type AccountUuid, parseAccountUuid } from '#common/account-name.ts';
import type { Clock, Timer } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';

/** How often the list of damaged accounts is read again. */
const refreshEveryMs = 30_000;
/** Damaged accounts that are listed; all are counted. */
export const damagedListedMax = 100;
const goodbye = 'Account is being checked, connect again';

/** What it is made of. */
export interface StoreCareOptions {
  readonly store: AccountStore;
  readonly storage: { readonly engine: string; readonly path: string };
  readonly scrub: { readonly bytesPerSecond: number; readonly everyMs: number };
  readonly member: MemberName;
  readonly incarnation: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  isController(): boolean;
  closeEverywhere(uuid: AccountUuid, text: string): Promise<void>;
}

/** See the header of this file. */
export class StoreCare {
  readonly #options: StoreCareOptions;
  readonly #scrub: Scrub;
  #damaged: { readonly count: number; readonly accounts: readonly DamagedAccount[] } = { count: 0, accounts: [] };
  #timer: Timer | undefined;
  #refreshing: Promise<void> = Promise.resolve();
  #repairs = 0;

  constructor(options: StoreCareOptions) {
    this.#options = options;
    this.#scrub = new Scrub({
      ...options,
      ...options.scrub,
      mayRun: () => options.isController(),
      onDamage: (uuid) => void this.#letGo(uuid),
    });
    const gauge = options.metrics.gauge(
      'archipelago_store_damaged_accounts',
      'Accounts that are read-only because something stored is damaged.',
    );
    options.metrics.onCollect(() => gauge.set({}, this.#damaged.count));
  }

  /** As last read. */
  get damaged(): { readonly count: number; readonly accounts: readonly DamagedAccount[] } {
    return this.#damaged;
  }

  start(): void {
    this.#timer = this.#options.clock.every(refreshEveryMs, () => void this.refresh());
    void this.refresh();
    this.#scrub.start();
  }

  async stop(): Promise<void> {
    this.#timer?.cancel();
    await Promise.all([this.#scrub.stop(), this.#refreshing]);
  }

  /** Reads the list of damaged accounts again. Never rejects: storage that does not answer is somebody else's alarm. */
  refresh(): Promise<void> {
    this.#refreshing = this.#refreshing.then(async () => {
      try {
        this.#damaged = await this.#options.store.listDamaged(damagedListedMax);
      } catch (error) {
        this.#options.log.debug({ err: asPlatformError(error) }, 'the list of damaged accounts could not be read');
      }
    });
    return this.#refreshing;
  }

  /** A `store.*` call, on the Controller. */
  async run(method: string, params: Record<string, unknown>): Promise<unknown> {
    if (method === 'store.stat') return this.#report();
    if (method === 'store.scrub') {
      this.#scrub.ask();
      return this.#report();
    }
    const uuid = parseAccountUuid(String(params.uuid ?? ''));
    if (method === 'store.check') return this.#check(uuid);
    if (method === 'store.repair') return this.#repair(uuid, params.discardLost === true, params.isDryRun === true);
    throw new PlatformError('LINK_PROTOCOL', `the call ${method} is unknown to this release`);
  }

  async #report(): Promise<StoreReport> {
    const { storage, store, scrub } = this.#options;
    await this.refresh();
    const tombstones = await store.listTombstones();
    return {
      ...storage,
      damaged: this.#damaged.count,
      damagedAccounts: this.#damaged.accounts,
      removed: tombstones.length,
      scrub: { bytesPerSecond: scrub.bytesPerSecond, everyMs: scrub.everyMs, last: await this.#scrub.status() },
    };
  }

  async #check(uuid: AccountUuid): Promise<unknown> {
    const check = await this.#options.store.checkAccount(uuid, { isMarking: true });
    if (!check.isComplete) await this.#letGo(uuid);
    return check;
  }

  async #repair(uuid: AccountUuid, discardLost: boolean, isDryRun: boolean): Promise<AccountRepair> {
    const { store, member, incarnation, log } = this.#options;
    if (!isDryRun) await this.#options.closeEverywhere(uuid, goodbye);
    this.#repairs += 1;
    const opening = { member, incarnation, openId: `repair.${member}.${incarnation}.${this.#repairs}` };
    const repair = await store.repair(uuid, { opening, discardLost, isDryRun });
    const { outcome, lostMessages, lostSlots, mended } = repair;
    log.warn({ account: uuid, outcome, lostMessages, lostSlots, mended, isDryRun }, 'repair of an account');
    await this.refresh();
    return repair;
  }

  /** Whoever has the account open closes it; the next opening is read-only. */
  async #letGo(uuid: AccountUuid): Promise<void> {
    try {
      await this.#options.closeEverywhere(uuid, goodbye);
    } catch (error) {
      this.#options.log.warn({ account: uuid, err: asPlatformError(error) }, 'the host of a damaged account was not told');
    }
    await this.refresh();
  }
}
