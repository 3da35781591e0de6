/**
 * Runs account operations on the Controller: one at a time for each account, those left behind by a former Controller first, and the
 * housekeeping that follows removals.
 */
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { parseAccountName, parseAccountUuid } from '#common/account-name.ts';
import type { Timer } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import { Secret } from '#common/secret.ts';
import { createAccount, finishCreate } from './create.ts';
import type { OperationContext, OperationIntent } from './operation.ts';
import { finishRemove, removeAccount } from './remove.ts';
import { finishRename, renameAccount } from './rename.ts';
import { finishRestore, restoreAccount } from './restore.ts';

/** Operations that run or wait at a time. */
export const operationsMax = 256;
const recoverEveryMs = 5_000;
const purgeEveryMs = 3_600_000;
/** Removals seen in the directory and not yet done. */
const removalsMax = 100_000;

/** See the header of this file. */
export class AccountOperations {
  readonly #context: OperationContext;
  readonly #store: Pick<AccountStore, 'intents' | 'listTombstones' | 'purge'>;
  readonly #graceMs: number;
  readonly #isController: () => boolean;
  /** Last operation of each account or name, which the next one waits for. */
  readonly #tails = new Map<string, Promise<unknown>>();
  /** Removed by others, to be entombed by whoever is Controller. */
  readonly #removals = new Map<AccountUuid, string>();
  /** Intents whose operation runs here now: not left behind. */
  #running = 0;
  #timers: Timer[] = [];
  #recovering: Promise<void> | undefined;
  #recoverAgain = false;
  #purging: Promise<void> | undefined;
  #mayHaveLeftovers = true;
  #isStopped = false;

  constructor(options: {
    context: OperationContext;
    store: Pick<AccountStore, 'intents' | 'listTombstones' | 'purge'>;
    tombstoneGraceHours: number;
    isController: () => boolean;
  }) {
    this.#context = options.context;
    this.#store = options.store;
    this.#graceMs = options.tombstoneGraceHours * 3_600_000;
    this.#isController = options.isController;
  }

  start(): void {
    const { clock } = this.#context;
    this.#timers = [clock.every(recoverEveryMs, () => void this.recover()), clock.every(purgeEveryMs, () => void this.purge())];
  }

  /** Begins nothing more; resolves when what runs has come to its end. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const timer of this.#timers) timer.cancel();
    await Promise.allSettled([this.#recovering, this.#purging, ...this.#tails.values()]);
  }

  /** This member leads now: what the former Controller left is looked into. */
  onLead(): void {
    this.#mayHaveLeftovers = true;
    void this.recover().then(() => this.purge());
  }

  /** The directory lost an entry of this cluster. Remembered on every member, done by the Controller. */
  onRemoved(uuid: AccountUuid, name: string): void {
    if (this.#removals.size >= removalsMax) this.#removals.delete(this.#removals.keys().next().value as AccountUuid);
    this.#removals.set(uuid, name);
    if (this.#isController()) void this.recover();
  }

  /** A call of another room, on the Controller. */
  async run(method: string, params: Record<string, unknown>): Promise<unknown> {
    const context = this.#context;
    const startedMs = context.clock.monotonicMs();
    const { about, work } = this.#plan(method, params);
    try {
      const result = await this.#inTurn(about, work);
      context.log.info(
        { account: about, operation: method, durationMs: Math.round(context.clock.monotonicMs() - startedMs), outcome: 'done' },
        method,
      );
      return result;
    } catch (error) {
      const failure = asPlatformError(error);
      if (failure.retry !== 'never') this.#mayHaveLeftovers = true;
      context.log.info({ account: about, operation: method, outcome: 'failed', errCode: failure.code, err: failure }, method);
      throw failure;
    }
  }

  #plan(method: string, params: Record<string, unknown>): { about: string; work: () => Promise<unknown> } {
    const context = this.#context;
    const text = (key: string): string | undefined => (typeof params[key] === 'string' ? (params[key] as string) : undefined);
    if (method === 'accounts.create') {
      const name = parseAccountName(text('name') ?? '');
      const password = text('password');
      const displayName = text('displayName');
      const quotaBytes = typeof params.quotaBytes === 'number' && params.quotaBytes >= 0 ? params.quotaBytes : undefined;
      const request = {
        name,
        ...(password === undefined ? {} : { password: new Secret(password) }),
        ...(displayName === undefined ? {} : { displayName }),
        ...(quotaBytes === undefined ? {} : { quotaBytes }),
      };
      return { about: name, work: () => createAccount(context, request) };
    }
    if (method === 'accounts.restore') {
      const removed = text('removed') ?? '';
      const name = text('name');
      const password = text('password');
      const request = {
        removed,
        ...(name === undefined ? {} : { name: parseAccountName(name) }),
        ...(password === undefined ? {} : { password: new Secret(password) }),
      };
      return { about: removed, work: () => restoreAccount(context, request) };
    }
    const uuid = parseAccountUuid(text('uuid') ?? '');
    if (method === 'accounts.rename') {
      const to = parseAccountName(text('to') ?? '');
      return { about: uuid, work: () => renameAccount(context, uuid, to).then(() => ({})) };
    }
    if (method === 'accounts.remove') return { about: uuid, work: () => removeAccount(context, uuid).then(() => ({})) };
    throw new PlatformError('LINK_PROTOCOL', `the call ${method} is unknown to this release`);
  }

  async #inTurn<T>(about: string, work: () => Promise<T>): Promise<T> {
    if (this.#running >= operationsMax)
      throw new PlatformError('AUTH_BUSY', `${operationsMax} account operations are waiting already; try again`);
    this.#running += 1;
    const before = this.#tails.get(about);
    const mine = (before ?? Promise.resolve()).then(work, work);
    const tail = mine.catch(() => {});
    this.#tails.set(about, tail);
    try {
      return await mine;
    } finally {
      this.#running -= 1;
      if (this.#tails.get(about) === tail) this.#tails.delete(about);
    }
  }

  /** Finishes or undoes what was left behind, and entombs what was removed in the directory. What cannot be done now is tried again. */
  recover(): Promise<void> {
    if (this.#recovering !== undefined) {
      this.#recoverAgain = true;
      return this.#recovering;
    }
    this.#recovering = (async () => {
      do {
        this.#recoverAgain = false;
        await this.#recoverOnce();
      } while (this.#recoverAgain);
      this.#recovering = undefined;
    })();
    return this.#recovering;
  }

  async #recoverOnce(): Promise<void> {
    if (this.#isStopped || !this.#isController()) return;
    try {
      for (const [uuid, name] of [...this.#removals]) {
        await this.#context.store.intents.put(`remove.${uuid}`, {
          operation: 'remove',
          uuid,
          name,
          isGone: true,
        } satisfies OperationIntent);
        this.#removals.delete(uuid);
        this.#mayHaveLeftovers = true;
      }
      // An operation that runs has an intent as well, and is not left behind: looked into when it is over.
      if (!this.#mayHaveLeftovers || this.#running > 0) return;
      let isClean = true;
      for (const { id, value } of await this.#store.intents.list()) {
        if (this.#isStopped || !this.#isController()) return;
        isClean = (await this.#finish(id, value as OperationIntent)) && isClean;
      }
      this.#mayHaveLeftovers = !isClean;
    } catch (error) {
      this.#context.log.warn({ err: error }, 'half-done account operations could not be looked into; tried again shortly');
    }
  }

  async #finish(id: string, intent: OperationIntent): Promise<boolean> {
    const context = this.#context;
    const about = intent.operation === 'restore' ? intent.from : 'uuid' in intent ? intent.uuid : intent.name;
    try {
      const outcome = await this.#inTurn(about, () =>
        intent.operation === 'create'
          ? finishCreate(context, intent)
          : intent.operation === 'rename'
            ? finishRename(context, intent)
            : intent.operation === 'restore'
              ? finishRestore(context, intent)
              : finishRemove(context, intent),
      );
      await this.#store.intents.remove(id);
      context.log.info({ account: about, operation: intent.operation, outcome }, 'account operation looked into');
      return true;
    } catch (error) {
      context.log.warn(
        { account: about, operation: intent.operation, err: error },
        'a half-done account operation waits; tried again shortly',
      );
      return false;
    }
  }

  /** Removes storage whose tombstone is older than the grace. Age is by this machine's clock: an hour more or less does not matter. */
  purge(): Promise<void> {
    this.#purging ??= this.#purgeOnce().finally(() => {
      this.#purging = undefined;
    });
    return this.#purging;
  }

  async #purgeOnce(): Promise<void> {
    if (this.#isStopped || !this.#isController()) return;
    const { clock, log, reader } = this.#context;
    try {
      for (const { uuid, name, removedAtMs } of await this.#store.listTombstones()) {
        if (clock.nowMs() - removedAtMs < this.#graceMs || this.#isStopped || !this.#isController()) continue;
        // What the master has again, by a restored backup for one, is not thrown away.
        if ((await reader.findAccountByUuid(uuid, { authoritative: true })).record !== undefined) {
          log.error(
            { account: uuid, name },
            'a removed account is in the directory again; its storage is kept: restore it or remove the entry',
          );
          continue;
        }
        await this.#store.purge(uuid);
        log.info({ account: uuid, name }, 'storage of a removed account purged: its grace has ended');
      }
    } catch (error) {
      log.warn({ err: error }, 'removed accounts could not be purged; tried again in an hour');
    }
  }
}
