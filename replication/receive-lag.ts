/**
 * How far what was received is behind what the master has, in changes and in time. The master is asked every so often, on a connection of its
 * own: the stream alone cannot tell silence from a stream that hangs. Both times are of the master's clock, both counts of its journal.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { openBound } from '#directory/client/access.ts';
import { askAuthority, hasAuthority } from '#directory/client/authority.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { csnDistanceMs } from '#directory/client/lookup.ts';
import { contextCsnOf } from '#replication/history.ts';
import type { ServerAccess } from '#replication/server-access.ts';

const askEveryMs = 2000;
/** Rates are over the last so many questions. */
const samplesMax = 6;

/** Where the master is. */
interface Position {
  readonly csn: string | undefined;
  /** Number of its last change; `undefined` on servers that are not ours. */
  readonly changeNumber: number | undefined;
}

/** See the header of this file. Dispose of it to stop. */
export class MasterPosition implements AsyncDisposable {
  readonly #master: () => ServerAccess;
  readonly #suffix: string;
  readonly #ports: Ports;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #rates = new Map<string, { readonly atMs: number; readonly applied: number }[]>();
  readonly #applied: () => ReadonlyMap<string, number>;
  #position: Position | undefined;
  #connection: LdapConnection | undefined;
  #isOurs = false;

  /** `applied`: writes to each replica so far, by its name. */
  constructor(master: () => ServerAccess, suffix: string, ports: Ports, applied: () => ReadonlyMap<string, number>) {
    this.#master = master;
    this.#suffix = suffix;
    this.#ports = ports;
    this.#clock = ports.clock;
    this.#applied = applied;
    this.#running = this.#run();
  }

  /** Of what was received with that cookie; `undefined` where it cannot be told. */
  lagOf(cookie: Buffer | undefined, csn: string | undefined): { readonly ms: number | undefined; readonly changes: number | undefined } {
    const received = Number(/(?:^|,)pos=[0-9a-f]+\.(\d{1,15})(?:,|$)/.exec(cookie?.toString('latin1') ?? '')?.[1]);
    const { changeNumber } = this.#position ?? {};
    return {
      ms: csnDistanceMs(this.#position?.csn, csn),
      changes: changeNumber === undefined || Number.isNaN(received) ? undefined : Math.max(0, changeNumber - received),
    };
  }

  /** Writes to that replica a second, over the last ten seconds or so. */
  rateOf(replica: string): number {
    const samples = this.#rates.get(replica) ?? [];
    const first = samples[0];
    const last = samples.at(-1);
    if (first === undefined || last === undefined || last.atMs <= first.atMs) return 0;
    return Math.round((Math.max(0, last.applied - first.applied) / (last.atMs - first.atMs)) * 10_000) / 10;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#connection?.destroy();
    await this.#running;
    this.#connection?.destroy();
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const atMs = this.#clock.monotonicMs();
      for (const [replica, applied] of this.#applied()) {
        this.#rates.set(replica, [...(this.#rates.get(replica) ?? []).slice(1 - samplesMax), { atMs, applied }]);
      }
      try {
        this.#position = await this.#ask();
      } catch (error) {
        // What it had is what it had; the stream's own error is in the status.
        this.#connection?.destroy();
        this.#ports.log.debug({ component: 'receive-lag' }, `the master does not say where it is: ${messageOf(error)}`);
      }
      await sleep(this.#clock, askEveryMs, this.#stop.signal);
    }
  }

  async #ask(): Promise<Position> {
    const master = this.#master();
    if (this.#connection?.isOpen !== true || this.#connection.url !== master.url) {
      this.#connection?.destroy();
      this.#connection = await openBound(master.url, master, this.#ports);
      this.#isOurs = await hasAuthority(this.#connection);
    }
    if (!this.#isOurs) return { csn: await contextCsnOf(this.#connection, this.#suffix), changeNumber: undefined };
    const { contextCsn, changeNumber } = await askAuthority(this.#connection, { op: 'look' });
    return { csn: contextCsn, changeNumber };
  }
}
