/**
 * What a storage engine does for one account: the few operations on which everything else rests. posix-log.ts has them for a shared
 * directory, s3/s3-log.ts for an object store.
 */

import { PlatformError } from '#common/errors/platform-error.ts';
import type { Finding } from './account-store.ts';

/** Reads an account; needs no opening. Missing files reject with `ENOENT` in `code`. */
export interface AccountReader {
  /** Ascending. */
  listSnapshots(): Promise<number[]>;
  readSnapshot(slot: number): Promise<Buffer>;
  /** Ascending. */
  listSlots(): Promise<number[]>;
  readSlot(slot: number, offset: number, length: number): Promise<Buffer>;
  /** The `at` of every body that is not in the log: slots that left it (above 0) and files of their own (below 0). */
  listBodies(): Promise<number[]>;
  readBody(at: number, offset: number, length: number): Promise<Buffer>;
  /** Makes the slots that are there outlive a failure of power: whoever wrote the last one may have died before it did. */
  settle(): Promise<void>;
  /** What the engine itself found damaged while it listed; the account has lost something then. */
  findings(): readonly Finding[];
  /** Where something is, for messages: path below the store's root. */
  nameOf(what: { readonly slot: number } | { readonly snapshot: number } | { readonly body: number }): string;
}

/**
 * What became of a commit. `full` and `refused`: certainly nothing happened. `deposed`: somebody else has the slot, or this opening was
 * revoked. `unknown`: it may or may not be there; the account must be opened again to find out.
 */
export type CommitOutcome =
  | { readonly kind: 'committed' }
  | { readonly kind: 'full'; readonly cause: unknown }
  | { readonly kind: 'deposed'; readonly cause?: unknown }
  | { readonly kind: 'unknown'; readonly cause: unknown };

/** One opening of an account: the only way to change it. Whatever it still has under way when it is revoked comes to nothing. */
export interface OpeningLog extends AccountReader {
  /** Makes the account itself durable, before its first commit: whoever made its directories may have died before that. */
  secure(): Promise<void>;
  /** Lets this machine forget what it may remember of the account's directories. */
  refresh(): Promise<void>;
  /** False once another opening has revoked this one: what was read before may not be the newest any more. Asks storage. */
  isHeld(): Promise<boolean>;
  /** Begins to write what will probably be committed next: `commit` with the same nonce has less to do then. Missing where that helps nobody. */
  prepare?(nonce: string, parts: readonly Uint8Array[]): void;
  /**
   * Creates the slot, whole and durable, unless it is there. `nonce` is in the parts and tells an own slot from another's. An engine where
   * that takes two steps calls `taken` after the first: nobody else can have the slot any more, but a failure of power can still take it.
   */
  commit(slot: number, nonce: string, parts: readonly Uint8Array[], taken?: () => void): Promise<CommitOutcome>;
  /** Writes a large message; durable on return. */
  writeBody(at: number, parts: readonly Uint8Array[]): Promise<void>;
  /** Creates a snapshot, durable on return; nothing when it is there. */
  writeSnapshot(slot: number, parts: readonly Uint8Array[]): Promise<void>;
  /** Makes the bodies in a slot outlive its removal from the log; durable after `syncBodies`. Nothing when that was done before. */
  keepBodiesOf(slot: number): Promise<void>;
  syncBodies(): Promise<void>;
  /** These do nothing when there is no such thing. */
  removeSlots(ascending: readonly number[]): Promise<void>;
  removeSnapshot(slot: number): Promise<void>;
  removeBody(at: number): Promise<void>;
  /** Ends the opening in good order. */
  end(): Promise<void>;
}

/** The file that a body is in, for messages: its slot for as long as that is in the log. */
export async function fileOfBody(log: AccountReader, at: number): Promise<string> {
  const isInLog = at > 0 && (await log.listSlots().catch((): number[] => [])).includes(at);
  return log.nameOf(isInLog ? { slot: at } : { body: at });
}

/** A log that can be read and not written: for looking at what an opening would find. */
export function lookingOnly(reader: AccountReader): OpeningLog {
  const refused = async (): Promise<never> => {
    throw new PlatformError('BUG_UNEXPECTED', 'an account that is only looked at was to be changed');
  };
  return {
    ...reader,
    secure: async () => {},
    refresh: async () => {},
    isHeld: async () => true,
    commit: refused,
    writeBody: refused,
    writeSnapshot: refused,
    keepBodiesOf: refused,
    syncBodies: refused,
    removeSlots: refused,
    removeSnapshot: refused,
    removeBody: refused,
    end: async () => {},
  };
}

/** A log that stands in for another one until that can be begun: on full storage an account can still be read. */
export class LateLog implements OpeningLog {
  #log: OpeningLog;
  readonly #lastSlot: number | undefined;

  /** Nobody else had committed anything after `lastSlot` when the account was read. */
  constructor(reader: AccountReader, lastSlot: number) {
    this.#lastSlot = lastSlot;
    const full = async (): Promise<never> => {
      throw new PlatformError('STORE_FULL', 'shared storage is full: the account can only be read');
    };
    this.#log = {
      ...lookingOnly(reader),
      isHeld: async () => ((await reader.listSlots()).at(-1) ?? 0) === this.#lastSlot,
      writeBody: full,
      writeSnapshot: full,
    };
  }

  /** From now on this is the opening. */
  begun(log: OpeningLog): void {
    this.#log = log;
  }

  listSnapshots: OpeningLog['listSnapshots'] = () => this.#log.listSnapshots();
  readSnapshot: OpeningLog['readSnapshot'] = (slot) => this.#log.readSnapshot(slot);
  listSlots: OpeningLog['listSlots'] = () => this.#log.listSlots();
  readSlot: OpeningLog['readSlot'] = (slot, offset, length) => this.#log.readSlot(slot, offset, length);
  listBodies: OpeningLog['listBodies'] = () => this.#log.listBodies();
  readBody: OpeningLog['readBody'] = (at, offset, length) => this.#log.readBody(at, offset, length);
  settle: OpeningLog['settle'] = () => this.#log.settle();
  findings: OpeningLog['findings'] = () => this.#log.findings();
  nameOf: OpeningLog['nameOf'] = (what) => this.#log.nameOf(what);
  secure: OpeningLog['secure'] = () => this.#log.secure();
  refresh: OpeningLog['refresh'] = () => this.#log.refresh();
  isHeld: OpeningLog['isHeld'] = () => this.#log.isHeld();
  commit: OpeningLog['commit'] = (slot, nonce, parts, taken) => this.#log.commit(slot, nonce, parts, taken);
  writeBody: OpeningLog['writeBody'] = (at, parts) => this.#log.writeBody(at, parts);
  writeSnapshot: OpeningLog['writeSnapshot'] = (slot, parts) => this.#log.writeSnapshot(slot, parts);
  keepBodiesOf: OpeningLog['keepBodiesOf'] = (slot) => this.#log.keepBodiesOf(slot);
  syncBodies: OpeningLog['syncBodies'] = () => this.#log.syncBodies();
  removeSlots: OpeningLog['removeSlots'] = (ascending) => this.#log.removeSlots(ascending);
  removeSnapshot: OpeningLog['removeSnapshot'] = (slot) => this.#log.removeSnapshot(slot);
  removeBody: OpeningLog['removeBody'] = (at) => this.#log.removeBody(at);
  end: OpeningLog['end'] = () => this.#log.end();
}
