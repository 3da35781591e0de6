/** What a cluster member reports of itself and its cluster; plain JSON. Times are the reporting machine's wall clock. */

/** One member as the cluster sees it. */
export interface MemberStatus {
  readonly name: string;
  readonly address: string;
  readonly state: 'joining' | 'active' | 'cordoned' | 'draining' | 'leaving' | 'dead';
  /** Share of sessions and accounts; 100 unless it was set. */
  readonly weight: number;
  readonly incarnation: string;
  readonly openAccounts: number;
  readonly sessions: number;
  readonly lastSeenAtMs: number;
}

/** How far a drain is. Times are the member's wall clock. */
export interface DrainStatus {
  readonly state: 'none' | 'running' | 'done' | 'aborted';
  /** Accounts to be closed, and closed so far. */
  readonly accounts: number;
  readonly closed: number;
  readonly startedAtMs: number;
  /** Time that it may take. */
  readonly deadlineMs: number;
}

/** A Dynamic Cluster as one of its members sees it. */
export interface ClusterStatus {
  readonly cluster: string;
  /** Member that reports. */
  readonly observer: string;
  readonly controller: string | undefined;
  readonly term: number;
  readonly members: readonly MemberStatus[];
  /** Accounts whose `hostServer` is this cluster. */
  readonly accounts: number;
}

/** One live session on this member. */
export interface MemberSession {
  readonly sessionId: string;
  readonly service: string;
  readonly account: string;
  readonly clientAddress: string;
  readonly frontend: string;
  readonly startedAtMs: number;
}

/** What one service of a server has asked of one member over the link. */
export interface LinkUse {
  readonly member: string;
  readonly service: string;
  /** Other services use the same connections. */
  readonly isShared: boolean;
  /** Those that it may use, and the sessions on them. */
  readonly connections: number;
  readonly sessions: number;
  /** Sessions and calls that found a connection, that had to wait for one to be made, and that got none. */
  readonly hits: number;
  readonly misses: number;
  readonly refused: number;
}

/** Where a member has the requests of one service to the outside world carried out; the Guide's Service Processing. */
export interface DutyStatus {
  readonly setting: 'locally' | 'locally-for-others' | 'remotely' | 'auto';
  /** What `auto` comes to at this moment; the setting itself otherwise. */
  readonly effective: 'locally' | 'locally-for-others' | 'remotely';
  /** Members that run it for others, as the Controller told last. */
  readonly runners: readonly string[];
}

/** Something wrong with what is stored: the file, below the store's root, and what is wrong with it. */
export interface StoreFinding {
  readonly file: string;
  readonly problem: string;
}

/** The store of a cluster as its Controller reports it; plain JSON. */
export interface StoreReport {
  readonly engine: string;
  readonly path: string;
  /** Accounts that are read-only because something stored is damaged; the first of them follow. */
  readonly damaged: number;
  readonly damagedAccounts: readonly {
    readonly uuid: string;
    readonly findings: readonly StoreFinding[];
    readonly foundAtMs: number;
    readonly foundBy: string;
  }[];
  /** Removed accounts whose storage is kept. */
  readonly removed: number;
  readonly scrub: {
    readonly bytesPerSecond: number;
    readonly everyMs: number;
    readonly last:
      | {
          readonly round: number;
          readonly startedAtMs: number;
          readonly finishedAtMs: number | undefined;
          readonly accounts: number;
          readonly bytes: number;
          readonly damaged: number;
          readonly unread: number;
        }
      | undefined;
  };
}

/** What a check of one account found. */
export interface AccountCheckReport {
  readonly uuid: string;
  readonly messages: number;
  readonly bodies: number;
  readonly usedBytes: number;
  readonly slots: number;
  readonly snapshots: number;
  readonly findings: readonly StoreFinding[];
  readonly isComplete: boolean;
}

/** What a repair of one account did, or would do. */
export interface AccountRepairReport {
  readonly uuid: string;
  readonly outcome: 'whole' | 'can-be-repaired' | 'would-lose' | 'repaired';
  readonly findings: readonly StoreFinding[];
  readonly lostSlots: number;
  readonly lostMessages: number;
  readonly lost: readonly {
    readonly mailbox: string;
    readonly uid: number;
    readonly internalDateMs: number;
    readonly sizeBytes: number;
    readonly file: string;
    readonly why: string;
  }[];
  readonly mended: number;
  readonly messages: number;
}

/** One member's whole picture. */
export interface BackendStatus {
  readonly role: 'backend-cluster';
  readonly name: string;
  readonly linkAddress: string;
  readonly cluster: ClusterStatus;
  readonly isController: boolean;
  readonly storage: {
    readonly engine: string;
    readonly path: string;
    readonly ok: boolean;
    readonly detail: string;
    /** Accounts of the cluster that are read-only because something stored is damaged. */
    readonly damaged?: number;
  };
  readonly coordinator: { readonly engine: string; readonly ok: boolean; readonly detail: string };
  readonly directory: { readonly server: string; readonly state: string; readonly silentMs: number };
  readonly duties: { readonly httpClient: DutyStatus; readonly remotePolling: DutyStatus };
  readonly openAccounts: number;
  /** Memory of their indexes, and how much of it is kept for accounts that nobody uses. */
  readonly openAccountsBytes: number;
  readonly openAccountsBytesMax: number;
  readonly drain: DrainStatus | undefined;
  /** Version of the cluster-wide settings that this member goes by. */
  readonly settingsVersion: number;
  readonly deliveries: number;
  /** Connections to other members. */
  readonly links?: readonly LinkUse[];
  readonly sessions: readonly MemberSession[];
}
