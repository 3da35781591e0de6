/**
 * An account that is open on this member, as IMAP, POP3 and LMTP see it. All of them share one `OpenAccount` per account: it orders
 * their changes, commits them to the account's slot log, and tells every session what changed.
 *
 * What always holds: a change whose promise resolved is durable on shared storage; one that rejected with `CLUSTER_DEPOSED` or
 * `STORE_UNAVAILABLE` may or may not have happened, the account is closed and must be opened again; UIDs only grow, a UID never names two
 * messages, MODSEQ never goes back.
 */
import type { AccountUuid } from '#common/account-name.ts';

/** One message's index data. A new object whenever something of it changed. */
export interface MessageInfo {
  readonly uid: number;
  /** Changes with every change of this message (RFC 7162). */
  readonly modseq: number;
  /** System flags with their backslash (`\Seen`) and keywords, each spelled as first stored; no `\Recent`. */
  readonly flags: readonly string[];
  readonly internalDateMs: number;
  /** Octets of the message as stored, which is with CRLF line ends. */
  readonly sizeBytes: number;
  /** 128 bits in hex, kept by COPY and MOVE: EMAILID (RFC 8474) and UIDL. */
  readonly emailId: string;
}

/** One mailbox. Properties are live: they change as the account does. */
export interface Mailbox {
  /** Never reused in this account, kept by rename: MAILBOXID (RFC 8474). */
  readonly id: number;
  /** Full name, `/` between levels, INBOX in capitals; decoded (not modified UTF-7). */
  readonly name: string;
  readonly uidValidity: number;
  readonly uidNext: number;
  readonly highestModseq: number;
  readonly messageCount: number;
  readonly unseenCount: number;
  readonly sizeBytes: number;
  readonly subscribed: boolean;
  /** `\Sent`, `\Trash`, ... (RFC 6154), or none. */
  readonly specialUse: string | undefined;
  /** UIDs in ascending order, as of now: a copy that stays as it is. */
  uids(): Uint32Array;
  /** `undefined` when there is no such message (any more). */
  message(uid: number): MessageInfo | undefined;
  /** What happened after `modseq`: messages new or changed, and UIDs that are gone. `isComplete` false: too long ago, compare `uids()`. */
  changesSince(modseq: number): {
    readonly changed: readonly MessageInfo[];
    readonly vanished: readonly number[];
    readonly isComplete: boolean;
  };
}

/** A message to be stored. */
export interface AppendRequest {
  /** RFC 5322 text with CRLF line ends. */
  readonly raw: Buffer;
  /** Opaque to the store: structure and envelope as made by `#protocol/mime/summary.ts`, given back by `readSummary`. */
  readonly summary: Buffer;
  readonly flags: readonly string[];
  readonly internalDateMs: number;
  /** Same id again: nothing is stored and the first UID is returned. Remembered for at least seven days. */
  readonly deliveryId?: string;
}

/** Where a stored or copied message is. */
export interface AppendedMessage {
  readonly uidValidity: number;
  readonly uid: number;
}

/** Change of flags. */
export type FlagOperation = 'add' | 'remove' | 'replace';

/** See the header of this file. Failures: `MBOX_NOT_FOUND`, `MBOX_EXISTS`, `MBOX_NAME_INVALID`, `MBOX_OVER_QUOTA`, `MBOX_LIMIT`, `STORE_*`, `CLUSTER_DEPOSED`. */
export interface OpenAccount {
  readonly uuid: AccountUuid;
  /** Grows with every opening of the account anywhere. */
  readonly epoch: number;
  /** False once deposed or closed: every call rejects from then on. */
  readonly isOpen: boolean;
  /** INBOX first, then by name. INBOX always exists. */
  mailboxes(): readonly Mailbox[];
  mailbox(name: string): Mailbox | undefined;
  mailboxById(id: number): Mailbox | undefined;
  /** Also subscribed names without a mailbox. */
  subscriptions(): readonly string[];
  /** Missing parents are made too (RFC 9051 §6.3.4). */
  createMailbox(name: string, specialUse?: string): Promise<Mailbox>;
  /** A mailbox with children may be deleted; the children stay. INBOX may not. */
  deleteMailbox(name: string): Promise<void>;
  /** Renames the children as well. INBOX: its messages move to the new mailbox (RFC 9051 §6.3.6). */
  renameMailbox(from: string, to: string): Promise<void>;
  subscribe(name: string, subscribed: boolean): Promise<void>;
  /** All in one commit: all are stored or none (RFC 3502). */
  append(mailboxId: number, messages: readonly AppendRequest[]): Promise<readonly AppendedMessage[]>;
  /**
   * UIDs that do not exist are passed over. `changed` has all others, also those that had these flags already. With `unchangedSince`, messages whose modseq is higher are left alone and returned in
   * `modified` (RFC 7162 §3.1.3).
   */
  storeFlags(
    mailboxId: number,
    uids: readonly number[],
    operation: FlagOperation,
    flags: readonly string[],
    unchangedSince?: number,
  ): Promise<{ readonly changed: readonly MessageInfo[]; readonly modified: readonly number[] }>;
  /** Copies without copying bytes; all or none. */
  copy(fromId: number, uids: readonly number[], toId: number): Promise<readonly { readonly sourceUid: number; readonly uid: number }[]>;
  /** Copy and expunge in one commit (RFC 6851). */
  move(fromId: number, uids: readonly number[], toId: number): Promise<readonly { readonly sourceUid: number; readonly uid: number }[]>;
  /** Removes messages that have `\Deleted`, or only those of `uids` that have it; `force` removes `uids` whatever their flags (POP3). Returns the UIDs removed. */
  expunge(mailboxId: number, uids?: readonly number[], force?: boolean): Promise<readonly number[]>;
  readRaw(mailboxId: number, uid: number): Promise<Buffer>;
  readSummary(mailboxId: number, uid: number): Promise<Buffer>;
  /** Names of Sieve scripts with their texts, and which one runs at delivery. */
  scripts(): { readonly texts: ReadonlyMap<string, string>; readonly active: string | undefined };
  /** Throws `MBOX_LIMIT` when a script has no room. */
  checkScriptRoom(name: string, bytes: number): void;
  /** Stores a script that has been checked. Scripts fail with `SCRIPT_*` and `MBOX_LIMIT`. */
  putScript(name: string, text: string): Promise<void>;
  deleteScript(name: string): Promise<void>;
  renameScript(from: string, to: string): Promise<void>;
  /** Empty: none runs. */
  activateScript(name: string): Promise<void>;
  /** Bytes stored and allowed (`undefined`: no quota), and messages stored. */
  quota(): { readonly usedBytes: number; readonly limitBytes: number | undefined; readonly messages: number };
  /** Called after each commit (also of this caller's own changes) with the mailboxes concerned, and with `closed` set when the account is closed or deposed. */
  onChange(listener: (change: { readonly mailboxIds: readonly number[]; readonly closed: boolean }) => void): () => void;
}
