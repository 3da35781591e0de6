/** What the replication service reports; plain JSON. */

/** One replica, as the replication service sees it. */
export interface ReplicaStatus {
  readonly name: string;
  readonly url: string;
  /** connecting, refreshing: first load or catch-up by comparison; following: changes as they come; stopped: waits for the operator. */
  readonly state: 'connecting' | 'refreshing' | 'following' | 'retrying' | 'stopped';
  /** Changes received from the master and not yet acknowledged by this replica. */
  readonly backlogChanges: number;
  /** Age of the oldest of them, milliseconds; 0 when there is none. */
  readonly lagMs: number;
  readonly applied: Readonly<Record<'add' | 'modify' | 'rename' | 'delete', number>>;
  readonly conflicts: number;
  readonly contextCsn: string | undefined;
  readonly lastError: string | undefined;
  readonly lastAppliedAtMs: number | undefined;
  readonly lastVerifiedAtMs: number | undefined;
  readonly lastVerifyResult: string | undefined;
}

/** The replication service's whole picture. */
export interface ReplicationStatus {
  readonly role: 'replication';
  readonly name: string;
  readonly master: {
    readonly url: string;
    readonly state: string;
    readonly contextCsn: string | undefined;
    readonly lastError: string | undefined;
  };
  readonly replicas: readonly ReplicaStatus[];
}
