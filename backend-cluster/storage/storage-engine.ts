/**
 * What the account store needs of the storage that the members of a cluster share. Two engines have it: a shared directory
 * (posix-engine.ts) and a bucket of an S3 server (s3/s3-engine.ts). Everything above this line is the same for both.
 */
import type { AccountUuid } from '#common/account-name.ts';
import type { Room } from '#common/files/files.ts';
import type { AccountReader, OpeningLog } from './account-log.ts';
import type { ProbeResult } from './account-store.ts';
import type { SmallRecords } from './small-records.ts';

/** See the header of this file. Failures that are no `PlatformError` are told as `STORE_UNAVAILABLE` or `STORE_FULL` by the store. */
export interface StorageEngine {
  readonly terms: SmallRecords;
  readonly intents: SmallRecords;
  readonly tombstones: SmallRecords;
  readonly damaged: SmallRecords;
  readonly notes: SmallRecords;
  /** See `AccountStore.probe`. */
  probe(): Promise<ProbeResult>;
  /** Begins an opening and revokes every other one of the account. Nothing is committed yet. Makes what a new account needs. */
  begin(uuid: AccountUuid, openId: string): Promise<OpeningLog>;
  /** Whether a look at an account's last slot before its opening is worth two requests more: openings prepare what they will commit. */
  readonly guessesEnd?: boolean;
  /** Reads an account that may or may not be open somewhere. */
  reader(uuid: AccountUuid): AccountReader;
  /** Whether anything was ever begun for the account. */
  exists(uuid: AccountUuid): Promise<boolean>;
  /** How much room there is; missing where the storage does not tell. */
  room?(): Promise<Room>;
  /** UUIDs of all accounts that were ever begun and not removed, in order, from the one after `after` on. */
  accounts(after: string): AsyncIterable<AccountUuid>;
  /** Gives all that is stored for one account to another, of which nothing is stored. May be done again after it was cut short. */
  moveAccount(from: AccountUuid, to: AccountUuid): Promise<void>;
  /** Removes everything of an account. */
  removeAccount(uuid: AccountUuid): Promise<void>;
}
