/**
 * The account store of one Backend Dynamic Cluster, as the rest of the member sees it: accounts that are opened and closed, tombstones
 * of removed ones, the Controller's terms, and the intents of journalled account operations. All members of the cluster share it.
 *
 * What always holds: safety lives here and nowhere else. A change to an account is acknowledged only after the conditional create of the
 * account's next log slot, and a term belongs to whoever created its file. Leases and the coordinator only decide who should try; being
 * wrong about that costs a retry, never mail.
 *
 * Implemented by open-store.ts; layout.ts describes what lies on disk.
 */
import type { ImportTarget, MailboxImport } from '#backend-cluster/mailboxes/import-changes.ts';
import type { AppendRequest, OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import type { AccountUuid } from '#common/account-name.ts';
import type { MemberName } from '#common/host-server.ts';

/** Who opens an account. */
export interface AccountOpening {
  readonly member: MemberName;
  /** Random for each start of the member's process. */
  readonly incarnation: string;
  /** `member.incarnation.counter`: never used twice. Letters, digits, dots, hyphens and underscores; at most 200 characters. */
  readonly openId: string;
  /** From the account's directory entry; absent or 0 is none. */
  readonly quotaBytes?: number;
}

/** A message of an import, with what it was elsewhere. */
export interface ImportedMessage extends AppendRequest {
  readonly deliveryId: string;
  readonly uid: number | undefined;
  readonly modseq: number | undefined;
  /** Hex. */
  readonly emailId: string | undefined;
}

/** An open account with what only its host may do. */
export interface StoredAccount extends OpenAccount {
  /** What the host was told at opening, changed: the directory entry has another quota now. */
  setQuota(limitBytes: number | undefined): void;
  /** True once damage was found that lost something: it can be read, and every change rejects with `STORE_CORRUPT`. */
  readonly isReadOnly: boolean;
  /** Makes or finds a mailbox for an import; see import-changes.ts. */
  importMailbox(mailbox: MailboxImport): Promise<ImportTarget>;
  /** Stores messages of an import; how many were not there already. */
  importMessages(target: ImportTarget, messages: readonly ImportedMessage[]): Promise<number>;
  /** Lets a mailbox that kept its UIDs go on where it was elsewhere. */
  finishImport(mailboxId: number, uidNext: number, modseq: number): Promise<void>;
  /** Called now and then: index data that was not used since the last call is packed. */
  pack(): void;
  /** Bytes of memory that its index data takes, for an LRU. */
  readonly memoryBytes: number;
  /**
   * Asks storage whether this opening is still the last one; one that is not ends at once, as deposed. Rejects with `STORE_UNAVAILABLE` when
   * storage does not say.
   */
  checkHeld(): Promise<boolean>;
  /** Finishes the commit that runs, writes a snapshot when there is enough to save, and ends. Never rejects; a second call waits for the first. */
  close(): Promise<void>;
}

/** What the store knows of an account without opening it. */
export type AccountState = 'absent' | 'present' | 'tombstone';

/** A removed account whose storage is kept until the grace ends. */
export interface Tombstone {
  readonly uuid: AccountUuid;
  /** Its name when it was removed; empty when the record of it is damaged. */
  readonly name: string;
  /** Wall clock of the Controller that removed it; `Infinity` when the record of it is damaged, so that its grace does not end. */
  readonly removedAtMs: number;
}

/** Who claimed a term. */
export interface TermClaim {
  readonly member: MemberName;
  readonly incarnation: string;
}

/** What the start-up probe found. It rejects with `STORE_UNSAFE` instead when the storage cannot be used. */
export interface ProbeResult {
  /** Each thing tried, in words, e.g. `a second create of the same name fails`. */
  readonly checks: readonly string[];
  /** What works but should be looked at. */
  readonly warnings: readonly string[];
  /** What the whole probe took. */
  readonly durationMs: number;
}

/** Something wrong with an account's files. */
export interface Finding {
  /** Path below the store's root. */
  readonly file: string;
  readonly problem: string;
}

/** An account in which damage was found that lost something: it is read-only until it is repaired. */
export interface DamagedAccount {
  readonly uuid: AccountUuid;
  readonly findings: readonly Finding[];
  /** Wall clock of whoever found it. */
  readonly foundAtMs: number;
  /** `opening`, `reading`, `check` or `repair`; `record` when it is the record of the damage that cannot be read. */
  readonly foundBy: string;
  /** A repair has the account until then. */
  readonly repairingUntilMs?: number;
}

/** A message that a repair cannot bring back. */
export interface LostMessage {
  readonly mailbox: string;
  readonly uid: number;
  readonly internalDateMs: number;
  readonly sizeBytes: number;
  /** Path below the store's root. */
  readonly file: string;
  readonly why: string;
}

/** What a repair did, or would do. */
export interface AccountRepair {
  readonly uuid: AccountUuid;
  /** `would-lose`: nothing was changed, because something cannot be brought back and nobody has agreed to its loss. */
  readonly outcome: 'whole' | 'can-be-repaired' | 'would-lose' | 'repaired';
  readonly findings: readonly Finding[];
  /** Log slots whose changes are gone: deliveries, flags and removals of those commits. */
  readonly lostSlots: number;
  readonly lostMessages: number;
  /** The first of them. */
  readonly lost: readonly LostMessage[];
  /** Messages that were made whole from what was left. */
  readonly mended: number;
  readonly messages: number;
}

/** How to repair. */
export interface RepairRequest {
  readonly opening: AccountOpening;
  readonly discardLost: boolean;
  readonly isDryRun: boolean;
}

/** How to check an account. */
export interface CheckRequest {
  /** Waits as long as reading so many bytes may take; without it the check reads as fast as it can. */
  pace?(bytes: number): Promise<void>;
  /** Makes the account read-only when something was lost. */
  readonly isMarking?: boolean;
}

/** What `checkAccount` read and found. */
export interface AccountCheck {
  readonly uuid: AccountUuid;
  readonly epoch: number;
  readonly lastSlot: number;
  readonly snapshots: number;
  readonly slots: number;
  readonly mailboxes: number;
  readonly messages: number;
  /** Sum of the sizes of all messages, as quota counts it. */
  readonly usedBytes: number;
  /** Bodies read and verified; a copied message counts once. */
  readonly bodies: number;
  readonly findings: readonly Finding[];
  /** False when something is lost: a slot or a body. A damaged snapshot that others cover for is not. */
  readonly isComplete: boolean;
}

/** One intent as stored. */
export interface Intent {
  readonly id: string;
  readonly value: unknown;
}

/** Small durable records by which a half-done account operation is finished or undone by the next Controller. */
export interface Intents {
  /** Creates or replaces; durable when it resolves. `value` is stored as JSON of at most 64 kB. Ids: letters, digits, dots, hyphens, underscores; at most 100. */
  put(id: string, value: unknown): Promise<void>;
  /** Creates; false when there is one of that id already. */
  create(id: string, value: unknown): Promise<boolean>;
  /** By id. */
  list(): Promise<Intent[]>;
  /** No failure when there is none. */
  remove(id: string): Promise<void>;
}

/** See the header of this file. Any call may reject with `STORE_UNAVAILABLE`. */
export interface AccountStore {
  /** Tries what safety depends on. Rejects with `STORE_UNSAFE` (the message says what to change), `STORE_FULL` or `STORE_UNAVAILABLE`. */
  probe(): Promise<ProbeResult>;
  /**
   * Opens the account here and takes it from whoever had it open: that one finds itself deposed at its next commit. A new account gets
   * INBOX and the usual special-use mailboxes.
   *
   * Rejects with `CLUSTER_DEPOSED` when another opening won the race (back off at random, ask the Controller again), `ACCT_REMOVED` when
   * there is a tombstone, `STORE_UNAVAILABLE`, `STORE_FULL`.
   */
  open(uuid: AccountUuid, opening: AccountOpening): Promise<StoredAccount>;
  state(uuid: AccountUuid): Promise<AccountState>;
  /** From now on `open` fails with `ACCT_REMOVED`; nothing is moved. The account should be closed first; an opening that is still there is deposed. */
  entomb(uuid: AccountUuid, tombstone: { readonly name: string; readonly removedAtMs: number }): Promise<void>;
  listTombstones(): Promise<Tombstone[]>;
  /** Takes the tombstone away: the account can be opened again with all it had. */
  restore(uuid: AccountUuid): Promise<void>;
  /** Removes everything of an entombed account, the tombstone last. Rejects with `ACCT_EXISTS` when there is no tombstone. */
  purge(uuid: AccountUuid): Promise<void>;
  /** Highest term ever claimed; 0 when none was. */
  highestTerm(): Promise<number>;
  /** Conditional create: true when the term is this claimant's, also when it already was. */
  claimTerm(term: number, claim: TermClaim): Promise<boolean>;
  /** Who claimed a term; `undefined` when nobody did. */
  readTerm(term: number): Promise<TermClaim | undefined>;
  readonly intents: Intents;
  /** Reads everything of an account and verifies it, without opening it and without disturbing its host. */
  checkAccount(uuid: AccountUuid, request?: CheckRequest): Promise<AccountCheck>;
  /** UUIDs of all accounts with storage, in order, from the one after `after` on. */
  accounts(after: string): AsyncIterable<AccountUuid>;
  /** Accounts that are read-only because of damage: how many, and the first `limit` of them. */
  listDamaged(limit: number): Promise<{ readonly count: number; readonly accounts: readonly DamagedAccount[] }>;
  /** The damage of one account; `undefined` when none is known. */
  damageOf(uuid: AccountUuid): Promise<DamagedAccount | undefined>;
  /**
   * Makes a damaged account whole again, and writable; see repair-account.ts. The account should be closed first: a host that still has it
   * is deposed, and nobody opens it meanwhile. Rejects as `open` does.
   */
  repair(uuid: AccountUuid, request: RepairRequest): Promise<AccountRepair>;
  /** Gives what an entombed account has to another one, which must have nothing yet, and takes the tombstone away. */
  adopt(entombed: AccountUuid, by: AccountUuid): Promise<void>;
  /** A small durable note of the cluster, such as how far the check of all accounts is. */
  readonly notes: {
    read(name: string): Promise<unknown>;
    write(name: string, value: unknown): Promise<void>;
    /** False when there is one of that name. */
    create(name: string, value: unknown): Promise<boolean>;
    /** In order. */
    names(): Promise<string[]>;
    remove(name: string): Promise<void>;
  };
}
