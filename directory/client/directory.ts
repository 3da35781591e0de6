/**
 * The door to the directory: following it, looking an address up with fail-over, and the writes that are made on the master.
 * The implementations are follow.ts (RFC 4533), lookup.ts and write.ts beside this file.
 */
import type { AccountName, AccountUuid, DomainName } from '#common/account-name.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Secret } from '#common/secret.ts';
import type { AccountRecord, AccountStatus, ClusterRecord, DirectoryRecord, DomainRecord } from '#directory/client/records.ts';

/** What following the directory reports, in order. */
export type DirectoryChange =
  /** Entry added, changed or renamed: the record replaces what was known of this `uuid`. */
  | { readonly type: 'put'; readonly record: DirectoryRecord }
  /** `name`: an account's name, where the server says which entry it was. */
  | { readonly type: 'remove'; readonly uuid: AccountUuid; readonly name?: AccountName }
  /** The whole content is known as of `cookie`; until the first of these nobody may be told that something does not exist. */
  | { readonly type: 'refreshed'; readonly cookie: Buffer | undefined };

/** State of a follower, for status pages and readiness. */
export interface FollowerStatus {
  /** URL followed now, or last. */
  readonly server: string;
  readonly state: 'connecting' | 'refreshing' | 'following' | 'frozen';
  /** Once true it stays true: frozen routes are still routes. */
  readonly refreshedOnce: boolean;
  /** Milliseconds since the last sign of life from the server; its age when frozen. */
  readonly silentMs: number;
  readonly changes: number;
  readonly lastError: string | undefined;
}

/**
 * Content kept by the one who follows, so that the follower need not remember every entry (25 bytes and more for each). A refresh without
 * cookie names everything that exists; what it has not named by its end is gone, if that can be believed.
 */
export interface FollowedContent {
  /** The same as a `put` of an account; of its record only this is looked at. */
  putAccount(name: AccountName, hostServer: ClusterName | undefined, addresses: readonly AccountName[]): void;
  /** A refresh that names everything begins; one that was begun before has broken off. */
  beginRefresh(): void;
  /** Of `known` entries `gone` have not been named since `beginRefresh`. */
  readonly unnamed: { readonly gone: number; readonly known: number };
  /** Called before `refreshed` is reported. Not believed: nothing goes. */
  endRefresh(isBelieved: boolean): void;
}

/** Where an earlier process of this follower had come to. */
export interface FollowedPosition {
  readonly url: string;
  /** Missing where all is to be read anew; what that does not name goes only if that can be believed. */
  readonly cookie: Buffer | undefined;
  /** DNs of the domains known; a domain that has another one now renamed its accounts. */
  readonly domainDns: readonly (readonly [uuid: AccountUuid, dn: string])[];
}

/** Follows one of a list of servers, going on to the next when one fails, for ever. */
export interface DirectoryFollower extends AsyncDisposable {
  status(): FollowerStatus;
  /** Resolves at the first `refreshed`; rejects when `signal` aborts before. */
  whenRefreshed(signal?: AbortSignal): Promise<void>;
}

/** A follower whose next process can go on where this one is. */
export interface ResumableFollower extends DirectoryFollower {
  /** Up to where everything has been reported, and by whom; `undefined` until the first refresh is over. */
  position(): FollowedPosition | undefined;
  /** Reads everything anew from the server that is followed. */
  refresh(): void;
}

/** Answer of a look-up. */
export interface LookupAnswer {
  readonly record: AccountRecord | undefined;
  /** Server that answered. */
  readonly server: string;
  /** True when the master answered: only then does an `undefined` record mean that there is no such account. */
  readonly authoritative: boolean;
}

/** Looks addresses up. */
export interface DirectoryReader extends AsyncDisposable {
  /**
   * Finds the account that an address belongs to: name, `mail`, `mailAlternateAddress`, each also at domain aliases.
   * `authoritative` asks the master and fails with `DIR_NO_MASTER` when it does not answer; otherwise the servers are tried in order
   * (`DIR_UNAVAILABLE` when none answers). An address that several accounts have and that is the name of none: `DIR_ADDRESS_AMBIGUOUS`.
   */
  findAccount(address: AccountName, options?: { authoritative?: boolean }): Promise<LookupAnswer>;
  findAccountByUuid(uuid: AccountUuid, options?: { authoritative?: boolean }): Promise<LookupAnswer>;
  /** The domain of that name or alias, if it is served here. */
  findDomain(domain: DomainName): Promise<DomainRecord | undefined>;
  /** Accounts, at most `limit`, in no order; for lists. */
  listAccounts(filter: { domain?: DomainName; hostServer?: ClusterName; text?: string }, limit: number): Promise<readonly AccountRecord[]>;
  /** Every cluster of the topology. */
  listClusters(): Promise<readonly ClusterRecord[]>;
  /** One line per server: reachable, and how far behind the master it is. */
  servers(): Promise<readonly DirectoryServerStatus[]>;
}

/** One directory server, as seen from here. */
export interface DirectoryServerStatus {
  readonly url: string;
  readonly isMaster: boolean;
  readonly reachable: boolean;
  readonly lastError: string | undefined;
  /** `contextCSN` of the suffix; `undefined` when it could not be read. */
  readonly contextCsn: string | undefined;
  /** Time between the master's and this server's `contextCSN`, milliseconds; 0 when equal, `undefined` when unknown. */
  readonly lagMs: number | undefined;
}

/** A new account. */
export interface NewAccount {
  readonly name: AccountName;
  readonly hostServer?: ClusterName;
  readonly password?: Secret<string>;
  readonly displayName?: string;
  readonly quotaBytes?: number;
  readonly region?: string;
  /** Without it active. */
  readonly status?: AccountStatus;
}

/** Something about to be changed: by UUID, or by name while it has none. */
export interface CopyIntent {
  readonly number: number;
  readonly subject: { readonly uuid: string } | { readonly dn: string };
}

/** Carries a writer's changes from the master to other servers; see replication/client/all-at-once.ts. */
export interface DirectoryCopies extends AsyncDisposable {
  /** Before the master is asked; returns once it is durable. */
  begin(subject: CopyIntent['subject']): Promise<CopyIntent>;
  /** The master has it; resolves at the quorum, rejects with `DIR_QUORUM`. */
  done(intent: CopyIntent, uuid: string): Promise<void>;
  /** The master refused, or did not answer: the others get what it turns out to have. */
  unknown(intent: CopyIntent): Promise<void>;
  status(): readonly unknown[];
}

/** Writes on the master. Failures: `DIR_NO_MASTER`, `DIR_EXISTS`, `DIR_NOT_FOUND`, `DIR_DENIED`, `DIR_REFUSED`, `DIR_BUSY`. */
export interface DirectoryWriter extends AsyncDisposable {
  createAccount(account: NewAccount): Promise<AccountRecord>;
  /** One Modify DN (RFC 4511 §4.9), with a new superior when the domain changes. */
  renameAccount(uuid: AccountUuid, to: AccountName): Promise<AccountRecord>;
  removeAccount(uuid: AccountUuid): Promise<void>;
  setPassword(uuid: AccountUuid, password: Secret<string>): Promise<void>;
  setStatus(uuid: AccountUuid, status: AccountStatus): Promise<void>;
  createDomain(domain: DomainName): Promise<void>;
  /** Where all servers are written at once: how far each is. */
  copies?(): readonly unknown[];
}
