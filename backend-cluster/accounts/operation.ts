/**
 * What the journalled account operations have in common. Each is one file: create.ts, rename.ts, remove.ts.
 *
 *   intent in shared storage ─► directory (the master is the authority for names) ─► storage ─► intent removed
 *
 * Every step may be done twice. A Controller that dies in between leaves the intent, and the next one finishes the operation, or finds
 * that its decisive step in the directory never happened and drops it: there is no half-made account in either case.
 */
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Random } from '#common/random.ts';
import type { DirectoryReader, DirectoryWriter } from '#directory/client/directory.ts';
import type { AccountRecord } from '#directory/client/records.ts';

/** A half-done operation, as it lies in storage. Never holds a password. */
export type OperationIntent =
  | { readonly operation: 'create'; readonly name: AccountName }
  | { readonly operation: 'rename'; readonly uuid: AccountUuid; readonly to: AccountName }
  /** `from`: what was removed; `uuid`: the new entry, once it is known. */
  | { readonly operation: 'restore'; readonly from: AccountUuid; readonly name: AccountName; readonly uuid?: AccountUuid }
  /** `isGone`: the entry was removed by somebody else, so it is only checked, never removed by us. */
  | { readonly operation: 'remove'; readonly uuid: AccountUuid; readonly name: string; readonly isGone: boolean };

/** What operations work with; the Controller's. */
export interface OperationContext {
  readonly cluster: ClusterName;
  readonly store: Pick<AccountStore, 'intents' | 'entomb' | 'state' | 'listTombstones' | 'adopt'>;
  readonly reader: Pick<DirectoryReader, 'findAccount' | 'findAccountByUuid'>;
  readonly writer: Pick<DirectoryWriter, 'createAccount' | 'renameAccount' | 'removeAccount' | 'setStatus'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Closes the account on whichever member has it. */
  closeEverywhere(uuid: AccountUuid, text: string): Promise<void>;
  /** The directory's answer, known here before the follower brings it. */
  learn(record: AccountRecord): void;
}
