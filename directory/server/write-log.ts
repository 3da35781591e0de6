/**
 * What the log says of writes: a line for each while they are few, and in a second with many the first of them and one line with the number
 * of the others. A provisioning run of a million accounts neither fills the disk nor waits for it.
 */
import { printable } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Operation } from './operation.ts';

/** Lines of one second; further writes are counted. */
const linesPerSecondMax = 20;

/** See the header of this file. */
export class WriteLog {
  readonly #log: Logger;
  readonly #clock: Clock;
  #lines = 0;
  #unnamed = 0;

  constructor(log: Logger, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  /** Takes note of a write that is durable. */
  written(op: string, dn: string, operation: Operation): void {
    // Replication writes every change of the master; its own log has them.
    if (operation.who.rights === 'replicator') return;
    if (this.#lines === linesPerSecondMax) {
      this.#unnamed += 1;
      return;
    }
    if (this.#lines === 0) this.#clock.after(1000, () => this.#secondIsOver());
    this.#lines += 1;
    const onBehalfBy = operation.onBehalfBy === undefined ? {} : { onBehalfBy: operation.onBehalfBy };
    this.#log.info({ by: operation.who.dn, ...onBehalfBy, dn: printable(dn), op, outcome: 'done' }, 'entry written');
  }

  #secondIsOver(): void {
    if (this.#unnamed > 0) this.#log.info({ count: this.#unnamed, outcome: 'done' }, 'more entries written within the same second');
    this.#lines = 0;
    this.#unnamed = 0;
  }
}
