/** What only an operator can decide about a replica: a refresh that would delete too much, and a master that went back to an older state. */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { checkDeletes, deletesFloor } from '#replication/resync.ts';

const operatorCodes: ReadonlySet<string> = new Set(['REPL_TOO_MANY_DELETES', 'REPL_MASTER_WENT_BACK']);

/** Whether it is one of those. */
export function isForOperator(error: unknown): error is PlatformError {
  return error instanceof PlatformError && operatorCodes.has(error.code);
}

/** Of one replicator: stopped while `wait` is under way. */
export class OperatorStop {
  readonly #log: Logger;
  readonly #maxPercent: number;
  readonly #replica: string;
  #stoppedBy: PlatformError | undefined;
  /** Deletions of a refresh that an operator has let through, having been told of so many. */
  #allowedDeletes = 0;
  #resume: (() => void) | undefined;
  #isOver = false;

  /** `maxPercent`: share of the replica that a refresh may delete unasked. */
  constructor(log: Logger, maxPercent: number, replica: string) {
    this.#log = log;
    this.#maxPercent = maxPercent;
    this.#replica = replica;
  }

  /** What it waits for the operator for. */
  get stoppedBy(): PlatformError | undefined {
    return this.#stoppedBy;
  }

  /** Lets what was asked for be deleted, once; false where nothing asks for that. */
  allowDeletes(): boolean {
    if (this.#stoppedBy?.code !== 'REPL_TOO_MANY_DELETES') return false;
    this.#allowedDeletes = Number(this.#stoppedBy.fields.deletes) + deletesFloor;
    return this.goOn();
  }

  /** Ends the wait; false where there is none. */
  goOn(): boolean {
    if (this.#stoppedBy === undefined) return false;
    this.#resume?.();
    return true;
  }

  /** Throws where a refresh would delete more than it may, and nobody has allowed it. */
  checkDeletes(count: number, total: number): void {
    if (count > this.#allowedDeletes) checkDeletes(count, total, this.#maxPercent, this.#replica);
  }

  /** A refresh came to its end: the next one is asked about again. */
  forgetAllowed(): void {
    this.#allowedDeletes = 0;
  }

  /** Waits until the operator has decided, or `end`. */
  async wait(error: PlatformError): Promise<void> {
    this.#stoppedBy = error;
    this.#log.error({ errCode: error.code }, error.message);
    await new Promise<void>((resolve) => {
      this.#resume = resolve;
      if (this.#isOver) resolve();
    });
    this.#resume = undefined;
    this.#stoppedBy = undefined;
  }

  /** Nobody waits from now on. */
  end(): void {
    this.#isOver = true;
    this.#resume?.();
  }
}
