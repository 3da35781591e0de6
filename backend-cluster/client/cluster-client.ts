/**
 * The door to Backend Dynamic Clusters: sessions, deliveries and calls over kept, multiplexed link connections.
 * Implemented by link-client.ts beside this file.
 */

import type { LinkSettings } from '#backend-cluster/client/link-settings.ts';
import type { AccountCheckReport, AccountRepairReport, ClusterStatus, LinkUse, StoreReport } from '#backend-cluster/client/status.ts';
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import type { ClusterName, MemberName } from '#common/host-server.ts';
import type { Connection } from '#common/network/network.ts';
import type { Secret } from '#common/secret.ts';
import type { OpenSession, OpenSessionAnswer } from '#protocol/link/messages.ts';

/** Where a member is reached. */
export interface MemberAddress {
  readonly name: MemberName;
  readonly host: string;
  readonly port: number;
}

/** What is known of a member from here. */
export interface MemberHealth {
  readonly member: MemberAddress;
  /** down: the last attempt failed and it is too early for the next one. */
  readonly state: 'unknown' | 'up' | 'draining' | 'down';
  /** Sessions and open accounts it reported last; the least loaded member takes the next session. */
  readonly load: number;
  readonly lastError: string | undefined;
}

/** Who hears what a member says beside a session's bytes. */
export interface NoticeListener {
  channelNotice(notice: Record<string, unknown>): void;
}

/** A session's channel: a connection, and words of the member beside its bytes (`SessionNotice`). */
export interface SessionChannel extends Connection {
  onNotice?(listener: NoticeListener): void;
}

/** Speaks to members. One per process; connections are kept and shared by all sessions. */
export interface LinkClient extends AsyncDisposable {
  /**
   * Asks one member to serve a session. With `opened` comes the channel, which behaves as any connection does. Rejects with
   * `NET_*` or `LINK_*` when the member cannot be asked.
   */
  openSession(
    member: MemberAddress,
    request: OpenSession,
  ): Promise<{ readonly answer: OpenSessionAnswer; readonly channel: SessionChannel | undefined }>;
  /** A call to one member. Rejects with the member's `PlatformError`, or `NET_*`. */
  call(member: MemberAddress, method: string, params: unknown, timeoutMs?: number): Promise<unknown>;
  health(member: MemberAddress): MemberHealth;
  /** Goes by these from now on; sessions under way stay where they are. */
  configure(settings: LinkSettings): void;
  /** What has been asked so far, by member and service. */
  use(): readonly LinkUse[];
}

/** Account operations, run as journalled operations by the hosting cluster's Controller; any member may be asked. */
export interface ClusterAccounts {
  create(
    cluster: ClusterName,
    account: { name: AccountName; password?: Secret<string>; displayName?: string; quotaBytes?: number },
  ): Promise<{ uuid: AccountUuid }>;
  rename(cluster: ClusterName, uuid: AccountUuid, to: AccountName): Promise<void>;
  remove(cluster: ClusterName, uuid: AccountUuid): Promise<void>;
  /** What an operator asks of members or the Controller: `members.*` and `settings.*` of controller/upkeep.ts. */
  manage(cluster: ClusterName, method: string, params: object): Promise<unknown>;
  status(cluster: ClusterName): Promise<ClusterStatus>;
  /** Brings back an account that was removed, by its former name or UUID, as long as its storage is kept; see accounts/restore.ts. */
  restore(cluster: ClusterName, request: RestoreRequest): Promise<{ uuid: AccountUuid; name: string }>;
  /**
   * A channel to the account's current host that gives an archive of the account, or takes one; see accounts/archives.ts. `from`: who asks.
   */
  openArchive(cluster: ClusterName, uuid: AccountUuid, service: 'export' | 'import', from: string): Promise<Connection>;
  store(cluster: ClusterName): Promise<StoreReport>;
  /** Begins a check of all accounts; `store` tells how far it is. */
  startScrub(cluster: ClusterName): Promise<StoreReport>;
  checkAccount(cluster: ClusterName, uuid: AccountUuid): Promise<AccountCheckReport>;
  repairAccount(cluster: ClusterName, uuid: AccountUuid, how: { discardLost: boolean; isDryRun: boolean }): Promise<AccountRepairReport>;
  /** Who has the account open, its sessions, and what the cluster knows of it. */
  whereIs(cluster: ClusterName, uuid: AccountUuid): Promise<AccountWhereabouts>;
}

/** A removed account that is to come back. */
export interface RestoreRequest {
  /** Its name when it was removed, or its UUID. */
  readonly removed: string;
  /** What it shall be called; without it as before. */
  readonly name?: AccountName;
  readonly password?: Secret<string>;
}

/** What a cluster says of one account. */
export interface AccountWhereabouts {
  /** `not-here`: another cluster hosts it; `tombstone`: removed, storage is kept until the grace ends. */
  readonly state: 'open' | 'closed' | 'never-opened' | 'not-here' | 'tombstone';
  readonly currentHost: MemberName | undefined;
  readonly epoch: number | undefined;
  readonly sessions: readonly {
    readonly sessionId: string;
    readonly service: string;
    readonly clientAddress: string;
    readonly frontend: string;
    readonly sinceMs: number;
  }[];
}
