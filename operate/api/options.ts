/** What the admin API is given, and what it is once it runs. */
import type { ClusterAccounts } from '#backend-cluster/client/cluster-client.ts';
import type { Ports, RunningService } from '#common/lifecycle.ts';
import type { Secret } from '#common/secret.ts';
import type { DirectoryReader, DirectoryWriter } from '#directory/client/directory.ts';
import type { RouteExplanation } from '#frontend/client/status.ts';
import type { ComparisonOptions, PromotionReport, RepairOptions, RepairReport, VerifyReport } from '#replication/client/status.ts';

/** A service of this process, with what only some roles can do. */
export interface AdminService extends Pick<RunningService<unknown>, 'role' | 'name' | 'status' | 'readiness' | 'refresh'> {
  /** Frontends: how this address would be routed now. */
  explain?(address: string): Promise<RouteExplanation> | RouteExplanation;
  /** Frontends: cordon, drain, resume, weight, and the guard's verbs; see frontend/control.ts. */
  control?(action: string, body: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Replication: compares a replica with the master now; what was found is then in the service's status. */
  verify?(replica: string, options?: ComparisonOptions): Promise<readonly VerifyReport[]>;
  /** Replication: compares a replica and makes it equal to the master, or only says what differs. */
  repair?(replica: string, options: RepairOptions): Promise<RepairReport>;
  /** Replication: the latest change at the master. */
  masterCsn?(): Promise<string>;
  /** Replication: resolves once a replica has everything up to that change. */
  waitFor?(change: string, replica: string | undefined, signal: AbortSignal): Promise<void>;
  /** Replication: lets a stopped replica follow the master as it is now. */
  resume?(replica: string): void;
  /** Replication: lets a stopped replica delete what its refresh asks for. */
  allowDeletes?(replica: string): void;
  /** Replication: makes a replica the master. */
  promote?(replica: string, options: { readonly isForced: boolean; readonly withinMs: number }): Promise<PromotionReport>;
  /** Where all directory servers are written at once: how far each is. */
  copies?(): readonly unknown[];
  /** Ends what can be ended in good order and takes nothing new. */
  drain?(): Promise<void>;
}

/** Another process of the installation. */
export interface AdminPeerAddress {
  readonly name: string;
  readonly url: string;
  /** PEM of the CA of its certificate. */
  readonly ca?: string | undefined;
}

/** What the admin API is made of. */
export interface AdminOptions {
  /** Name of this process. */
  readonly node: string;
  readonly listen: { readonly address: string; readonly port: number };
  /** PEM texts. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  /** Bearer token of the API, password of the console; the same on all peers. */
  readonly token: Secret<string>;
  readonly peers: readonly AdminPeerAddress[];
  /** Looked at anew for every request: the caller may add and remove while the server runs. */
  readonly services: readonly AdminService[];
  readonly directory?: { readonly reader: DirectoryReader; readonly writer?: DirectoryWriter | undefined } | undefined;
  readonly accounts?: ClusterAccounts | undefined;
  /** Only in the demo. */
  readonly demo?: { killMember(name: string): Promise<void> } | undefined;
  readonly ports: Ports;
}

/** A running admin API. */
export interface RunningAdmin extends AsyncDisposable {
  /** `https://127.0.0.1:21080` */
  readonly url: string;
  readonly port: number;
}
