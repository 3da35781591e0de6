/**
 * The accounts that are open on this member: opened once for all their sessions, closed when nobody has used them for a while.
 *
 *   absent ─► opening (ask the Controller, then storage) ─► open ─► closing ─► absent
 *                     │ `at(other)`                          │ deposed
 *                     └─► the caller is sent there           └─► absent, sessions get their bye
 *
 * The Controller's grant only says who should try. Storage decides: an opening that loses the race there is tried again from the start,
 * and one that won finds every former opening without a way to commit.
 */
import type { MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { LocalAccounts } from '#backend-cluster/controller/collect.ts';
import type { Controller } from '#backend-cluster/controller/controller.ts';
import type { AccountStore, StoredAccount } from '#backend-cluster/storage/account-store.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { type Clock, sleep, type Timer } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import { jitteredMs, type Random } from '#common/random.ts';

/** Accounts open on one member at a time; at the bound, and at that of their memory, idle ones are closed, the longest unused first. */
export const openAccountsMax = 20_000;
const openAttempts = 5;
/** A wall clock that is behind by more was set back. */
const setBackMs = 250;
/** Accounts whose sessions ask for nothing (IDLE) are looked at again after so many leases. */
const sweepLeases = 4;
/** Accounts whose index data is packed in one turn. */
const packedAtOnce = 8;
const sweptAtOnce = 16;

/** The account is here until `release`, or another member has it. */
export type Acquired =
  | {
      readonly outcome: 'here';
      readonly account: StoredAccount;
      /** Before something is read: see `HostedAccounts.acquire`. Nothing to wait for when it is fresh enough. */
      refresh(): Promise<void> | undefined;
      release(): void;
    }
  | { readonly outcome: 'at'; readonly host: MemberAddress };

interface Hosted {
  readonly account: StoredAccount;
  users: number;
  idle: Timer | undefined;
  idleSinceMs: number;
  closing: Promise<void> | undefined;
  /** When storage was last asked whether this opening holds the account; by both clocks, as one of them stands still in a machine's sleep. */
  heldAt: { readonly monotonicMs: number; readonly wallMs: number };
  checking: Promise<void> | undefined;
  /** Memory of its index as last counted. */
  bytes: number;
}

/** What hosted accounts are made of. */
export interface HostedAccountsOptions {
  readonly member: MemberName;
  readonly incarnation: string;
  readonly store: Pick<AccountStore, 'open'>;
  readonly controller: () => Pick<Controller, 'requestOpen' | 'report'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly idleCloseMs: number;
  /** Memory of open accounts' indexes, beyond which idle ones are closed. */
  readonly bytesMax: number;
  /** What is read from an open account may be so old. */
  readonly leaseMs: number;
  quotaOf(uuid: AccountUuid): number | undefined;
  /** No new accounts are opened while false. */
  isTaking(): boolean;
  /** The account has been deposed: its sessions must end. */
  onEnd(uuid: AccountUuid, text: string): void;
  /** The account is about to be closed: its sessions go with it, or end. Resolves when they may no longer use it. */
  onLeave(uuid: AccountUuid, text: string): Promise<void>;
}

/** See the header of this file. */
export class HostedAccounts implements LocalAccounts {
  readonly #options: HostedAccountsOptions;
  readonly #open = new Map<AccountUuid, Hosted>();
  /** Those that nobody uses, the longest unused first. */
  readonly #idle = new Map<AccountUuid, Hosted>();
  #bytes = 0;
  readonly #opening = new Map<AccountUuid, Promise<Hosted | MemberAddress>>();
  #openings = 0;
  #isKilled = false;
  readonly #sweeper: Timer;
  readonly #opens: { add(labels?: Record<string, string>, value?: number): void };
  readonly #openSeconds: { observe(labels: Record<string, string>, value: number): void };

  constructor(options: HostedAccountsOptions) {
    this.#options = options;
    this.#opens = options.metrics.counter('archipelago_member_account_opens_total', 'Requests for accounts that were not open here.', [
      'outcome',
    ]);
    this.#openSeconds = options.metrics.histogram('archipelago_member_account_open_seconds', 'Time to open an account, grant included.');
    const gauge = options.metrics.gauge('archipelago_member_open_accounts', 'Accounts open on this member.');
    const memory = options.metrics.gauge('archipelago_member_open_accounts_bytes', 'Memory of the indexes of open accounts.');
    options.metrics.onCollect(() => {
      gauge.set({}, this.#open.size);
      memory.set({}, this.#bytes);
    });
    this.#sweeper = options.clock.every(sweepLeases * options.leaseMs, () => void this.#sweep());
  }

  get count(): number {
    return this.#open.size;
  }

  /** Memory of the indexes of all that are open. */
  get bytes(): number {
    return this.#bytes;
  }

  isOpen(uuid: AccountUuid): boolean {
    return this.#open.get(uuid)?.closing === undefined && this.#open.has(uuid);
  }

  epochOf(uuid: AccountUuid): number | undefined {
    return this.#open.get(uuid)?.account.epoch;
  }

  /**
   * The account, open here, or where it is. A member that was cut off or asleep does not know that another one has opened the account
   * since; so an opening that storage has not confirmed for a lease is confirmed before it is used, and before each reading
   * (`refresh`), and what clients are shown is never older than that. Rejects with `CLUSTER_NO_CONTROLLER`, `CLUSTER_DRAINING`, `CLUSTER_DEPOSED` (too many others
   * want it), `ACCT_REMOVED` or `STORE_*`.
   */
  async acquire(uuid: AccountUuid): Promise<Acquired> {
    for (;;) {
      const hosted = this.#open.get(uuid);
      if (hosted?.closing !== undefined) {
        await hosted.closing;
        continue;
      }
      if (hosted !== undefined) {
        const refreshed = this.#refresh(hosted);
        if (refreshed === undefined) return this.#use(uuid, hosted);
        await refreshed.catch((error: unknown) => {
          if (asPlatformError(error).code !== 'CLUSTER_DEPOSED') throw error;
        });
        continue;
      }
      let opening = this.#opening.get(uuid);
      if (opening === undefined) {
        opening = this.#openHere(uuid).finally(() => this.#opening.delete(uuid));
        this.#opening.set(uuid, opening);
      }
      const result = await opening;
      if ('port' in result) return { outcome: 'at', host: result };
      // It may have been deposed between its opening and this turn; then it is not in the map any more.
      if (this.#open.get(uuid) === result && result.closing === undefined) return this.#use(uuid, result);
    }
  }

  setQuota(uuid: AccountUuid, limitBytes: number | undefined): void {
    this.#open.get(uuid)?.account.setQuota(limitBytes);
  }

  openReports(after: string, limit: number): readonly { readonly uuid: AccountUuid; readonly epoch: number }[] {
    return [...this.#open]
      .filter(([uuid, hosted]) => uuid > after && hosted.account.isOpen)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .slice(0, limit)
      .map(([uuid, hosted]) => ({ uuid, epoch: hosted.account.epoch }));
  }

  async close(uuid: AccountUuid, text: string): Promise<void> {
    // One that is being opened is closed as soon as it is open.
    await this.#opening.get(uuid)?.catch(() => {});
    const hosted = this.#open.get(uuid);
    if (hosted !== undefined) await this.#close(uuid, hosted, text);
  }

  /** Those that nobody uses first, the longest unused first of them. */
  inOrderOfUse(): readonly { readonly uuid: AccountUuid; readonly users: number }[] {
    return [...this.#open]
      .filter(([, hosted]) => hosted.closing === undefined)
      .sort(([, a], [, b]) => a.users - b.users || a.idleSinceMs - b.idleSinceMs)
      .map(([uuid, { users }]) => ({ uuid, users }));
  }

  /** Closes everything, some at a time; for the stop. */
  async closeAll(text: string): Promise<void> {
    await Promise.allSettled(this.#opening.values());
    const uuids = [...this.#open.keys()];
    const worker = async (): Promise<void> => {
      for (let uuid = uuids.pop(); uuid !== undefined; uuid = uuids.pop()) await this.close(uuid, text);
    };
    await Promise.all(Array.from({ length: 16 }, worker));
  }

  /** The last thing after `closeAll`, when the process ends. */
  stop(): void {
    this.#sweeper.cancel();
  }

  /** Forgets everything without closing it, as a dead process does. */
  kill(): void {
    this.#isKilled = true;
    this.stop();
    for (const hosted of this.#open.values()) hosted.idle?.cancel();
    this.#open.clear();
    this.#idle.clear();
    this.#bytes = 0;
  }

  #use(uuid: AccountUuid, hosted: Hosted): Acquired {
    hosted.users += 1;
    this.#idle.delete(uuid);
    hosted.idle?.cancel();
    hosted.idle = undefined;
    let isReleased = false;
    return {
      outcome: 'here',
      account: hosted.account,
      refresh: () => this.#refresh(hosted),
      release: () => {
        if (isReleased) return;
        isReleased = true;
        hosted.users -= 1;
        if (hosted.users === 0) this.#becameIdle(uuid, hosted);
      },
    };
  }

  #refresh(hosted: Hosted): Promise<void> | undefined {
    const { clock, leaseMs } = this.#options;
    const { monotonicMs, wallMs } = hosted.heldAt;
    const byOwnClock = clock.monotonicMs() - monotonicMs;
    const byWall = clock.nowMs() - wallMs;
    // A machine that was suspended shows it by the wall clock alone, and one that was set back meanwhile shows nothing.
    const isSetBack = byWall < byOwnClock - setBackMs;
    if (Math.max(byOwnClock, byWall) < leaseMs && !isSetBack) return undefined;
    hosted.checking ??= this.#check(hosted).finally(() => {
      hosted.checking = undefined;
    });
    return hosted.checking;
  }

  async #check(hosted: Hosted): Promise<void> {
    const askedAt = this.#now();
    if (!(await hosted.account.checkHeld())) throw new PlatformError('CLUSTER_DEPOSED', 'another member has the account');
    hosted.heldAt = askedAt;
  }

  /** A client that idles on a host that was deposed without knowing it would wait for ever; it is told by way of `#lost`. */
  async #sweep(): Promise<void> {
    const due = [...this.#open.values()].filter((hosted) => hosted.users > 0 && hosted.closing === undefined);
    const worker = async (): Promise<void> => {
      for (let hosted = due.pop(); hosted !== undefined; hosted = due.pop()) await this.#refresh(hosted)?.catch(() => {});
    };
    await Promise.all(Array.from({ length: Math.min(sweptAtOnce, due.length) }, worker));
    await this.#pack();
  }

  /** What was not looked at since the last sweep takes less room from now on. A few at a time: packing takes the processor. */
  async #pack(): Promise<void> {
    let packed = 0;
    for (const hosted of [...this.#open.values()]) {
      if (hosted.closing !== undefined) continue;
      hosted.account.pack();
      this.#count(hosted);
      packed += 1;
      if (packed % packedAtOnce === 0) await sleep(this.#options.clock, 1);
      if (this.#isKilled) return;
    }
  }

  #now(): Hosted['heldAt'] {
    return { monotonicMs: this.#options.clock.monotonicMs(), wallMs: this.#options.clock.nowMs() };
  }

  async #openHere(uuid: AccountUuid): Promise<Hosted | MemberAddress> {
    const { clock, random, store, member, incarnation, log } = this.#options;
    const startedMs = clock.monotonicMs();
    for (let attempt = 1; ; attempt += 1) {
      if (!this.#options.isTaking()) throw new PlatformError('CLUSTER_DRAINING', `${member} is draining and opens no more accounts`);
      await this.#makeRoom();
      const grant = await this.#options.controller().requestOpen(uuid);
      if (grant.outcome === 'at') {
        if (grant.host.name !== member) {
          this.#opens.add({ outcome: 'at' });
          return grant.host;
        }
        // The table is behind: what it means by `here` was closed a moment ago.
      } else {
        try {
          this.#openings += 1;
          const askedAt = this.#now();
          const quotaBytes = this.#options.quotaOf(uuid);
          const openId = `${member}.${incarnation}.${this.#openings}`;
          const account = await store.open(uuid, { member, incarnation, openId, ...(quotaBytes === undefined ? {} : { quotaBytes }) });
          this.#openSeconds.observe({}, (clock.monotonicMs() - startedMs) / 1000);
          this.#opens.add({ outcome: 'opened' });
          return this.#opened(uuid, account, askedAt);
        } catch (error) {
          const failure = asPlatformError(error);
          this.#options.controller().report('closed', uuid, undefined);
          if (failure.code !== 'CLUSTER_DEPOSED' || attempt >= openAttempts) {
            this.#opens.add({ outcome: 'failed' });
            throw failure;
          }
          log.debug({ account: uuid, attempt }, 'another member opened the account first; the Controller is asked again');
        }
      }
      if (attempt >= openAttempts) throw new PlatformError('CLUSTER_DEPOSED', `account ${uuid} was not opened in ${attempt} attempts`);
      await sleep(clock, jitteredMs(random, 20 * 2 ** attempt, 0.9));
    }
  }

  #opened(uuid: AccountUuid, account: StoredAccount, heldAt: Hosted['heldAt']): Hosted {
    const idleSinceMs = this.#options.clock.monotonicMs();
    const hosted: Hosted = { account, users: 0, idle: undefined, idleSinceMs, closing: undefined, heldAt, checking: undefined, bytes: 0 };
    if (this.#isKilled) throw new PlatformError('CLUSTER_DRAINING', 'this member was stopped');
    // Its opening is made durable while it is already there; who asks after the end is told nothing any more.
    if (!account.isOpen) throw new PlatformError('CLUSTER_DEPOSED', 'the account ended while it was being opened');
    this.#open.set(uuid, hosted);
    this.#count(hosted);
    account.onChange((change) => {
      if (change.closed) this.#lost(uuid, hosted);
      else this.#count(hosted);
    });
    this.#options.controller().report('opened', uuid, account.epoch);
    this.#becameIdle(uuid, hosted);
    return hosted;
  }

  // Deposed, or storage answered in a way that leaves the outcome of a commit open: the account must be opened anew.
  #lost(uuid: AccountUuid, hosted: Hosted): void {
    if (this.#open.get(uuid) !== hosted || hosted.closing !== undefined) return;
    hosted.idle?.cancel();
    this.#remove(uuid, hosted);
    this.#options.log.warn(
      { account: uuid, epoch: hosted.account.epoch },
      'account deposed here: another member has it, or storage is in doubt',
    );
    this.#options.controller().report('closed', uuid, hosted.account.epoch);
    this.#options.onEnd(uuid, 'Account is served elsewhere now, connect again');
  }

  #close(uuid: AccountUuid, hosted: Hosted, text: string): Promise<void> {
    if (hosted.closing !== undefined) return hosted.closing;
    hosted.idle?.cancel();
    // Set before the account is told: it reports its end from within, and that is no deposition.
    const { promise, resolve } = Promise.withResolvers<void>();
    hosted.closing = promise;
    const left = hosted.users > 0 ? this.#options.onLeave(uuid, text) : Promise.resolve();
    const closed = left.catch(() => {}).then(() => hosted.account.close());
    void closed.then(() => {
      if (this.#open.get(uuid) === hosted) {
        this.#remove(uuid, hosted);
        this.#options.controller().report('closed', uuid, hosted.account.epoch);
      }
      resolve();
    });
    return promise;
  }

  #becameIdle(uuid: AccountUuid, hosted: Hosted): void {
    if (this.#open.get(uuid) !== hosted || hosted.closing !== undefined) return;
    hosted.idleSinceMs = this.#options.clock.monotonicMs();
    this.#idle.delete(uuid);
    this.#idle.set(uuid, hosted);
    hosted.idle?.cancel();
    hosted.idle = this.#options.clock.after(this.#options.idleCloseMs, () => {
      if (hosted.users === 0) void this.#close(uuid, hosted, '');
    });
  }

  #count(hosted: Hosted): void {
    const bytes = hosted.account.memoryBytes;
    this.#bytes += bytes - hosted.bytes;
    hosted.bytes = bytes;
  }

  #remove(uuid: AccountUuid, hosted: Hosted): void {
    this.#open.delete(uuid);
    this.#idle.delete(uuid);
    this.#bytes -= hosted.bytes;
    hosted.bytes = 0;
  }

  /** Before one more is opened. What is in use is never closed for another's sake: of memory, there may be more for a while. */
  async #makeRoom(): Promise<void> {
    while (this.#open.size >= openAccountsMax || this.#bytes >= this.#options.bytesMax) {
      const [longest] = this.#idle;
      if (longest !== undefined) {
        this.#idle.delete(longest[0]);
        await this.#close(longest[0], longest[1], '');
      } else if (this.#open.size >= openAccountsMax) {
        throw new PlatformError('LIMIT_CONNECTIONS', `${this.#open.size} accounts are open and in use on this member`);
      } else return;
    }
  }
}
