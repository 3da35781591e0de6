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
  /** Account that takes mail for addresses that nobody has. */
  readonly catchAll?: AccountName | undefined;
  readonly csn: string;
}

/** A server of a cluster. */
export interface ClusterMember {
  readonly name: MemberName;
  readonly host: string;
  readonly port: number;
  /** Foreign: share of the accounts, 0 to 100; one of 0 keeps those that are pinned to it. */
  readonly weight?: number;
}

/** What a foreign server may be asked for. */
export const foreignProtocols = ['imap', 'pop3', 'lmtp', 'submission', 'managesieve'] as const;
export type ForeignProtocol = (typeof foreignProtocols)[number];

/** Where all hosts of a foreign cluster serve a protocol. */
export interface ForeignService {
  readonly protocol: ForeignProtocol;
  readonly port: number;
  readonly tls: 'none' | 'starttls' | 'implicit';
}

/** A Backend Dynamic Cluster of the topology, or a foreign one: plain mail servers that are not ours. */
export interface ClusterRecord {
  readonly kind: 'cluster';
  readonly uuid: AccountUuid;
  readonly dn: string;
  readonly name: ClusterName;
  /** Seed addresses; which of them are alive is learnt from the cluster itself. Of a foreign cluster: its hosts, whose port is 0. */
  readonly members: readonly ClusterMember[];
  /** Share of new accounts, 0 to 100; 0 takes none. */
  readonly weight: number;
  readonly region: string | undefined;
  /** Set for a foreign cluster. */
  readonly foreign?: readonly ForeignService[];
  readonly csn: string;
}

/** A frontend subset of the topology. What its values mean is the frontends' business. */
export interface SubsetRecord {
  readonly kind: 'subset';
  readonly uuid: AccountUuid;
  readonly dn: string;
  readonly name: string;
  /** As they stand: name, space, value. */
  readonly settings: readonly string[];
  /** As they stand: full name, space, host:port. */
  readonly frontends: readonly string[];
  readonly csn: string;
}

/** Any entry that routing, clusters and frontends care for. */
export type DirectoryRecord = AccountRecord | DomainRecord | ClusterRecord | SubsetRecord;
