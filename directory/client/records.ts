/**
 * What the other rooms see of directory entries. Attribute names and DNs stay in this room; everybody else works with these records.
 */
import type { AccountName, AccountUuid, DomainName } from '#common/account-name.ts';
import type { ClusterName, MemberName } from '#common/host-server.ts';
import type { Secret } from '#common/secret.ts';

/** active: all; locked: mail comes in, no login; maintenance: temporary refusal of both; closed: permanent refusal of both. */
export type AccountStatus = 'active' | 'locked' | 'maintenance' | 'closed';

/** An account's entry. */
export interface AccountRecord {
  readonly kind: 'account';
  readonly uuid: AccountUuid;
  /** Operational DN as the server sent it; for messages and writes. */
  readonly dn: string;
  /** `uid`@`cn of the domain entry`. */
  readonly name: AccountName;
  /** Cluster that hosts it; `undefined` when the attribute is missing, malformed or has more than one value (`hostServerProblem` says which). */
  readonly hostServer: ClusterName | undefined;
  readonly hostServerProblem: string | undefined;
  /** `mail` and `mailAlternateAddress`, without the name itself; each also valid at the domain's aliases. */
  readonly addresses: readonly AccountName[];
  readonly status: AccountStatus;
  /** Bytes; `undefined` when the entry has no `mailQuota`. */
  readonly quotaBytes: number | undefined;
  /** Hashes of `userPassword`; empty when this identity may not read them. */
  readonly passwords: Secret<readonly string[]>;
  readonly region: string | undefined;
  readonly displayName: string | undefined;
  /** `entryCSN`: orders the changes of one entry; compared as text. */
  readonly csn: string;
}

/** A domain's entry. */
export interface DomainRecord {
  readonly kind: 'domain';
  readonly uuid: AccountUuid;
  readonly dn: string;
  readonly name: DomainName;
  readonly aliases: readonly DomainName[];
  readonly csn: string;
}

/** A Backend Dynamic Cluster of the topology. */
export interface ClusterRecord {
  readonly kind: 'cluster';
  readonly uuid: AccountUuid;
  readonly dn: string;
  readonly name: ClusterName;
  /** Seed addresses; which of them are alive is learnt from the cluster itself. */
  readonly members: readonly { readonly name: MemberName; readonly host: string; readonly port: number }[];
  /** Share of new accounts, 0 to 100; 0 takes none. */
  readonly weight: number;
  readonly region: string | undefined;
  readonly csn: string;
}

/** Any entry that routing and clusters care for. */
export type DirectoryRecord = AccountRecord | DomainRecord | ClusterRecord;
