/** What a cluster member reports of itself and its cluster; plain JSON. Times are the reporting machine's wall clock. */

/** One member as the cluster sees it. */
export interface MemberStatus {
  readonly name: string;
  readonly address: string;
  readonly state: 'joining' | 'active' | 'draining' | 'leaving' | 'dead';
  readonly incarnation: string;
  readonly openAccounts: number;
  readonly sessions: number;
  readonly lastSeenAtMs: number;
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

/** One member's whole picture. */
export interface BackendStatus {
  readonly role: 'backend-cluster';
  readonly name: string;
  readonly linkAddress: string;
  readonly cluster: ClusterStatus;
  readonly isController: boolean;
  readonly storage: { readonly engine: string; readonly path: string; readonly ok: boolean; readonly detail: string };
  readonly coordinator: { readonly engine: string; readonly ok: boolean; readonly detail: string };
  readonly directory: { readonly server: string; readonly state: string; readonly silentMs: number };
  readonly openAccounts: number;
  readonly deliveries: number;
  readonly sessions: readonly MemberSession[];
}
