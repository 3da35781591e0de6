/**
 * What every long-running part is: started by its maker, stopped once by `Symbol.asyncDispose`, with what it has to report.
 */
import type { Clock } from '#common/clock.ts';
import type { Files } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { SocketSource } from '#common/network/listening-sockets.ts';
import type { Network } from '#common/network/network.ts';
import type { Random } from '#common/random.ts';

/** The outside world, handed to each service's `main.ts`; from there on each part takes only what it uses. */
export interface Ports {
  readonly clock: Clock;
  readonly random: Random;
  readonly network: Network;
  readonly files: Files;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Sockets of servers that libraries bring; without it they are bound anew. `network` has its own. */
  readonly sockets?: SocketSource;
}

/** A named condition of a service's readiness. */
export interface ReadinessCheck {
  readonly name: string;
  readonly ok: boolean;
  /** What is seen, in a sentence, also when all is well. */
  readonly detail: string;
  /** It is not ok because an operator ordered that: a drain, a cordon. */
  readonly isOrdered?: boolean;
}

/** A running service: a frontend, a cluster member, a directory server or the replication service. */
export interface RunningService<Status> extends AsyncDisposable {
  /** `frontend`, `backend-cluster`, `directory` or `replication`. */
  readonly role: string;
  /** The node's name, e.g. `front1.eu.isp.example`. */
  readonly name: string;
  /** The whole picture, for the admin API; plain JSON. */
  status(): Status;
  /** Asks other processes that serve it too; `status` then has what they said. Never rejects. */
  refresh?(): Promise<void>;
  /** Reads anew what may change while it runs, such as certificates. */
  reload?(): Promise<void>;
  /** Empty means that it was never ready. */
  readiness(): readonly ReadinessCheck[];
}
