/**
 * What the admin API answers; plain JSON. The CLI and the console are written against these shapes and nothing else.
 */
import type { AccountWhereabouts } from '#backend-cluster/client/cluster-client.ts';
import type { LinkUse, MemberStatus } from '#backend-cluster/client/status.ts';
import type { ProblemDocument } from '#common/http/server.ts';
import type { ReadinessCheck } from '#common/lifecycle.ts';
import type { DirectoryServerStatus } from '#directory/client/directory.ts';
import type { DirectoryStatus } from '#directory/client/status.ts';
import type { FrontendStatus, RouteExplanation } from '#frontend/client/status.ts';
import type {
  ComparisonProgress,
  CopyStatus,
  Difference,
  PromotionReport,
  ReplicaStatus,
  ReplicationStatus,
  VerifyReport,
} from '#replication/client/status.ts';

/** One service as its own process reports it. `status` is the room's status without its list of sessions. */
export interface ServiceReport {
  readonly role: string;
  readonly name: string;
  readonly ready: boolean;
  readonly readiness: readonly ReadinessCheck[];
  readonly status: unknown;
}

/** One process: `/api/v1/node`. */
export interface NodeReport {
  readonly node: string;
  readonly version: string;
  /** Wall clock of that process. */
  readonly atMs: number;
  readonly upMs: number;
  readonly services: readonly ServiceReport[];
  /** Writers of this process that write all directory servers at once. */
  readonly copies?: readonly WriterCopies[];
}

/** A writer, and how far each server is that it writes. */
export interface WriterCopies {
  readonly writer: string;
  readonly servers: readonly CopyStatus[];
}

/** Whether a process answered. */
export interface NodeReply {
  readonly node: string;
  readonly url: string;
  readonly ok: boolean;
  readonly error: string | undefined;
  readonly tookMs: number;
}

/** How complete an answer is. */
export interface Replies {
  readonly asked: number;
  readonly replied: number;
  readonly nodes: readonly NodeReply[];
}

/** Something an operator should know of. */
export interface Finding {
  readonly severity: 'warning' | 'failure';
  /** What it is about, e.g. a server's name. */
  readonly about: string;
  readonly what: string;
  /** What to do. */
  readonly fix: string;
}

/** A frontend without its sessions. */
export interface FrontendView extends Omit<FrontendStatus, 'sessions'> {
  readonly ready: boolean;
  readonly node: string;
  readonly sessionCount: number;
}

/** A Frontend Subset. */
export interface SubsetView {
  readonly name: string;
  readonly region: string | undefined;
  readonly sessions: number;
  readonly frontends: readonly FrontendView[];
}

/** A Directory Server, with what the replication service says of it. */
export interface DirectoryView extends DirectoryStatus {
  readonly ready: boolean;
  readonly node: string;
  readonly lagMs: number | undefined;
  readonly backlogChanges: number | undefined;
  readonly replicationState: string | undefined;
}

/** One replica, with the service that feeds it. */
export interface ReplicaView extends ReplicaStatus {
  readonly service: string;
  readonly masterState: string;
}

/** A member, as all who can see it report it. */
export interface MemberView extends Omit<MemberStatus, 'incarnation'> {
  readonly isController: boolean;
  /** It answers for itself through an admin API. */
  readonly reportsItself: boolean;
  readonly ready: boolean;
  readonly node: string | undefined;
  readonly storage: string | undefined;
  readonly coordinator: string | undefined;
  /** Its connections to other members, as it reports them itself. */
  readonly links: readonly LinkUse[];
  /** Observers that see another state than `state`: `back2 says dead`. */
  readonly disagreement: readonly string[];
}

/** A Backend Dynamic Cluster. */
export interface ClusterView {
  readonly name: string;
  readonly controller: string | undefined;
  readonly term: number;
  readonly accounts: number;
  readonly sessions: number;
  /** Accounts that are read-only because something stored is damaged. */
  readonly damaged: number;
  readonly observers: readonly string[];
  /** Observers that see another Controller. */
  readonly disagreement: readonly string[];
  readonly members: readonly MemberView[];
}

/** The whole installation: `/api/v1/status`. */
export interface StatusReport {
  readonly node: string;
  readonly version: string;
  readonly atMs: number;
  readonly verdict: 'ok' | 'degraded';
  readonly replies: Replies;
  readonly findings: readonly Finding[];
  readonly totals: { readonly sessions: number; readonly accounts: number; readonly replicaLagMs: number; readonly queued: number };
  readonly subsets: readonly SubsetView[];
  readonly directories: readonly DirectoryView[];
  readonly replication: readonly (Omit<ReplicationStatus, 'replicas'> & { readonly node: string; readonly ready: boolean })[];
  readonly replicas: readonly ReplicaView[];
  /** Who writes all directory servers at once, and how far each of them is. */
  readonly writers: readonly WriterCopies[];
  readonly clusters: readonly ClusterView[];
  /** What this process may do beyond looking. */
  readonly abilities: { readonly accounts: boolean; readonly passwords: boolean; readonly killMember: boolean };
}

/** One live session: `/api/v1/sessions`. */
export interface SessionView {
  readonly sessionId: string;
  readonly protocol: string;
  readonly account: string;
  readonly clientAddress: string;
  readonly frontend: string;
  readonly subset: string;
  readonly cluster: string;
  readonly member: string;
  readonly startedAtMs: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** Live sessions, newest first. `total` counts all that match, also past the limit. */
export interface SessionsReport {
  readonly replies: Replies;
  readonly total: number;
  readonly sessions: readonly SessionView[];
}

/** Something done about a replica: `/api/v1/replicas/NAME/ACTION`. */
export interface ReplicaActionReport {
  readonly replica: string;
  readonly result: string;
  /** What differed when it was compared, for `diff` and `repair`. */
  readonly before?: VerifyReport;
  /** What differs still, for `repair`. */
  readonly after?: VerifyReport | undefined;
  /** How many entries differ, for `verify`. */
  readonly differing?: number;
  readonly promotion?: PromotionReport;
}

/** A difference as it is listed, with what a repair would do about it. */
export interface ListedDifference extends Difference {
  readonly todo: readonly ('add' | 'rename' | 'modify' | 'delete')[];
}

/** What a comparison came to: its report without the list. */
export type FoundReport = Omit<VerifyReport, 'differences'> & {
  /** Differences that follow; fewer than `differing` where they are too many to be kept. */
  readonly listed: number;
  /** Why a repair would not begin. */
  readonly refusal?: string;
};

/**
 * One line of the stream that `verify`, `diff` and `repair` answer with when `application/x-ndjson` is asked for: progress, and the last of it
 * again every second; what was found; each difference, parents before children; and the end, or a problem instead of it.
 */
export type ComparisonLine =
  | { readonly progress: ComparisonProgress }
  | { readonly found: FoundReport }
  | { readonly difference: ListedDifference }
  | { readonly end: ReplicaActionReport }
  | { readonly problem: ProblemDocument };

/** Replicas: `/api/v1/replicas`. */
export interface ReplicasReport {
  readonly replies: Replies;
  /** `problem`: why nothing comes from it, or why nothing is written there. */
  readonly master: { readonly url: string; readonly state: string; readonly problem: string | undefined } | undefined;
  readonly replicas: readonly ReplicaView[];
  readonly writers: readonly WriterCopies[];
}

/** Who serves whom: `/api/v1/topology`. */
export interface TopologyReport {
  readonly replies: Replies;
  readonly subsets: readonly {
    readonly name: string;
    readonly region: string | undefined;
    readonly frontends: readonly {
      readonly name: string;
      readonly listeners: readonly string[];
      readonly follows: string;
      /** Clusters as this frontend sees them. */
      readonly reaches: readonly { readonly cluster: string; readonly up: number; readonly members: number }[];
    }[];
  }[];
  readonly directories: readonly { readonly name: string; readonly mode: string; readonly urls: readonly string[] }[];
  readonly clusters: readonly {
    readonly name: string;
    readonly controller: string | undefined;
    readonly members: readonly { readonly name: string; readonly address: string; readonly state: string }[];
  }[];
}

/** An account, without its password: `/api/v1/accounts/:address`. */
export interface AccountView {
  readonly uuid: string;
  readonly name: string;
  readonly dn: string;
  readonly hostServer: string | undefined;
  readonly hostServerProblem: string | undefined;
  readonly status: string;
  readonly addresses: readonly string[];
  readonly quotaBytes: number | undefined;
  readonly region: string | undefined;
  readonly displayName: string | undefined;
  /** Server that answered. */
  readonly server: string;
}

/** Where a user is and why: `/api/v1/users/:address/why`. */
export interface WhyReport {
  readonly address: string;
  readonly atMs: number;
  readonly replies: Replies;
  readonly directory: {
    readonly server: string | undefined;
    readonly lagMs: number | undefined;
    readonly error: string | undefined;
    readonly servers: readonly DirectoryServerStatus[];
  };
  readonly account: AccountView | undefined;
  /** `undefined`: nobody could be asked; `error` says why. */
  readonly whereabouts: AccountWhereabouts | undefined;
  readonly whereaboutsError: string | undefined;
  readonly explanations: readonly RouteExplanation[];
  /** Frontends do not all route alike. */
  readonly disagreement: string | undefined;
  readonly sessions: readonly SessionView[];
  readonly verdict: {
    readonly state: 'served' | 'unknown' | 'refused' | 'unavailable';
    readonly text: string;
    readonly fix: string | undefined;
  };
}
