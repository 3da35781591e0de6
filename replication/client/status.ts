/** What the replication service reports; plain JSON. */

/** An entry that a replica refuses and that was set aside. */
export interface RefusedEntry {
  readonly uuid: string;
  readonly dn: string;
  /** What the replica said, and what to do. */
  readonly reason: string;
  readonly sinceMs: number;
}

/** How far a refresh is: the first load, or a catch-up. */
export interface RefreshProgress {
  /** Entries received from the master so far. */
  readonly entries: number;
  /** Entries that the master named without sending them: as still there, or as gone. */
  readonly named: number;
  readonly perSecond: number;
  /** Entries that the master has, and the time until all have come; `undefined` where it does not say, and in a catch-up. */
  readonly ofEntries: number | undefined;
  readonly etaMs: number | undefined;
  /** Time since anything of it came from the master. */
  readonly quietMs: number;
  /** What it waits for, and how long it has, once nothing has moved for ten seconds. */
  readonly waitsFor: string | undefined;
}

/** How far the comparison is that goes on all the time. Times are of the service's clock. */
export interface ContinuousStatus {
  /** Entries of the present round that were looked at, at the master and then at the replica. */
  readonly checked: number;
  /** Share of the round, 0 to 1; `undefined` in the first round, as long as nobody has counted the entries. */
  readonly share: number | undefined;
  readonly roundStartedAtMs: number;
  /** When the last whole round ended, and how many entries differed in it. */
  readonly lastRoundAtMs: number | undefined;
  readonly lastRoundDiffering: number | undefined;
  /** Differences that the present round has found so far. */
  readonly differing: number;
  /** Why it waits, where it does: a refresh runs, or a server does not answer. */
  readonly waitsFor: string | undefined;
}

/** One replica, as the replication service sees it. */
export interface ReplicaStatus {
  readonly name: string;
  readonly url: string;
  /** connecting, refreshing: first load or catch-up by comparison; following: changes as they come; stopped: waits for the operator; standby: another service is active; master: it is the master itself. */
  readonly state: 'connecting' | 'refreshing' | 'following' | 'retrying' | 'stopped' | 'standby' | 'master';
  /** While it is refreshing. */
  readonly refresh?: RefreshProgress;
  /** Changes received from the master and not yet acknowledged by this replica. */
  readonly backlogChanges: number;
  /** Age of the oldest of them, milliseconds; 0 when there is none. */
  readonly lagMs: number;
  /** What the master has and this service has not received for the replica; `undefined` where it cannot be told, or is not known yet. */
  readonly receive?: { readonly lagMs: number | undefined; readonly lagChanges: number | undefined };
  /** Writes to the replica a second, over the last ten seconds or so. */
  readonly changesPerSecond?: number;
  readonly applied: Readonly<Record<'add' | 'modify' | 'rename' | 'delete', number>>;
  readonly conflicts: number;
  /** Entries set aside because the replica refuses them, and the first few of them. */
  readonly refused: { readonly entries: number; readonly first: readonly RefusedEntry[] };
  readonly contextCsn: string | undefined;
  readonly lastError: string | undefined;
  /** Code of the error that it waits for the operator for. */
  readonly stoppedBy?: string;
  readonly lastAppliedAtMs: number | undefined;
  /** When the last comparison came to its end, and to what. */
  readonly lastVerifiedAtMs: number | undefined;
  readonly lastVerifyResult: string | undefined;
  /** Why a later one came to no end. */
  readonly lastVerifyFailure?: string;
  /** The comparison that goes on all the time, where it is configured and has begun. */
  readonly continuous?: ContinuousStatus | undefined;
  /** Where several services take turns: who writes this replica. */
  readonly lease?: {
    readonly isActive: boolean;
    readonly number: number;
    readonly holder: string;
    /** How long the holder before this service had been silent. */
    readonly takenOverAfterMs: number | undefined;
  };
}

/** The replication service's whole picture. */
export interface ReplicationStatus {
  readonly role: 'replication';
  readonly name: string;
  readonly master: {
    /** As it is called in the configuration of the service. */
    readonly name: string;
    readonly url: string;
    /** Number of its mastership. */
    readonly term: number;
    readonly state: string;
    readonly contextCsn: string | undefined;
    readonly lastError: string | undefined;
  };
  readonly replicas: readonly ReplicaStatus[];
}

/** One entry that is not the same at the master and at a replica. */
export interface Difference {
  readonly uuid: string;
  readonly dn: string;
  /** missing: not at the replica; extra: at the replica only. */
  readonly kind: 'missing' | 'extra' | 'different';
  /** Attributes that differ, and `dn` for another name. */
  readonly what: readonly string[];
  /** Its name at the replica, where that is another. */
  readonly replicaDn?: string;
}

/** How far a comparison or a repair is. */
export interface ComparisonProgress {
  /** What is being done, e.g. `reading the master`. */
  readonly step: string;
  readonly entries: number;
  /** `undefined` where it is not known before. */
  readonly ofEntries: number | undefined;
}

/** What a comparison has found, all of it; the reader of it disposes of it. */
export interface FoundDifferences extends Disposable {
  readonly report: VerifyReport;
  /** How many are in the list: all, unless there are more than are kept. */
  readonly size: number;
  /** In the order in which they can be put right: parents before children, then removals from the bottom up. */
  all(): Iterable<Difference>;
  /** Why a repair would not begin, e.g. that it deletes too much; `undefined` when it would. */
  readonly refusal: string | undefined;
}

/** Result of comparing one replica with the master. */
export interface VerifyReport {
  readonly replica: string;
  readonly entries: number;
  /** All of them, unless `isCut`: then the first 10,000. */
  readonly differences: readonly Difference[];
  /** Entries that differ, also those beyond the listed ones. */
  readonly differing: number;
  /** Of these, entries that only the replica has. */
  readonly extra: number;
  readonly isCut: boolean;
  /** Entries that the master changed while they were looked at; the next comparison tells. */
  readonly underWay: number;
}

/** How a comparison or a repair is done. */
export interface ComparisonOptions {
  readonly onProgress?: (progress: ComparisonProgress) => void;
  /** Gives a comparison up; a repair that has begun goes on. */
  readonly signal?: AbortSignal;
}

/** How a repair is done. */
export interface RepairOptions extends ComparisonOptions {
  /** Only compare. */
  readonly isDryRun: boolean;
  /** It may delete as much as it has to. */
  readonly allowsDeletes?: boolean;
  /** Shown what differs, all of it, before anything is written. */
  readonly onFound?: (found: FoundDifferences) => Promise<void>;
}

/** Result of a repair: what differed before, and what still does. */
export interface RepairReport {
  readonly before: VerifyReport;
  /** `undefined` after a dry run. */
  readonly after: VerifyReport | undefined;
}

/** Result of a promotion. */
export interface PromotionReport {
  readonly replica: string;
  readonly url: string;
  readonly term: number;
  /** What the new master holds. */
  readonly contextCsn: string;
  readonly isForced: boolean;
  /** What may be lost, in a sentence; empty when nothing is. */
  readonly missing: string;
  /** How long no server took writes, milliseconds. */
  readonly frozenMs: number;
  /** Other servers that know of it, and those that will be told when they answer. */
  readonly told: readonly string[];
  readonly notTold: readonly string[];
}

/** A server that a writer keeps equal to the master for what it changes (all at once). */
export interface CopyStatus {
  readonly name: string;
  readonly url: string;
  /** away: does not answer; comparing: as a whole, because changes for it were dropped; current: gets each change as it happens. */
  readonly state: 'away' | 'comparing' | 'current';
  /** Changes in the outbox that it has not got. */
  readonly backlogChanges: number;
  readonly isCut: boolean;
  /** The first few entries that it refuses. */
  readonly refused: readonly RefusedEntry[];
  readonly lastError: string | undefined;
}
