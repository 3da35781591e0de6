/** What a replicator (replicator.ts) is made with: the two servers, and where it keeps what must outlive it. */
import type { Ports } from '#common/lifecycle.ts';
import type { LdapConnection, WriteGuard } from '#directory/client/ldap-connection.ts';
import type { CheckpointFile } from '#replication/checkpoint.ts';
import type { Quarantine } from '#replication/quarantine.ts';
import type { Scope } from '#replication/scope.ts';
import type { ServerAccess } from '#replication/server-access.ts';
import type { Shadow } from '#replication/store/shadow.ts';

/** What one replicator needs. */
export interface ReplicatorOptions {
  readonly name: string;
  readonly master: ServerAccess;
  readonly replica: ServerAccess;
  readonly suffix: string;
  readonly scope: Scope;
  readonly refreshDeletesMaxPercent: number;
  readonly checkpoint: CheckpointFile;
  readonly quarantine: Quarantine;
  /** Opens what the replica is known to hold; without, it is read before every change. */
  readonly openShadow?: () => Promise<Shadow | undefined>;
  /** File for who was named in a refresh of very many; without, they stay in memory. What a killed one left is removed. */
  readonly namedFile?: string;
  /** The same for who was named as gone. */
  readonly goneFile?: string;
  /** Makes what stands before every write on a new connection to the replica. */
  readonly guard?: (connection: LdapConnection) => Promise<WriteGuard>;
  readonly ports: Ports;
}
