/**
 * Counters of entries by name, e.g. accounts of a cluster: in memory as of the open transaction, and written with it. What the present work
 * counts is kept apart until the work has stayed.
 */
import type { Statements } from './statements.ts';

/** See the header of this file. */
export class Tallies {
  readonly #statements: Statements;
  /** As of this transaction, without the present work. */
  readonly #counts = new Map<string, number>();
  readonly #changed = new Set<string>();
  readonly #ofWork = new Map<string, number>();

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  get(name: string): number {
    let count = this.#counts.get(name);
    if (count === undefined) {
      count = this.#statements.number('SELECT count FROM tally WHERE name = ?', name) ?? 0;
      this.#counts.set(name, count);
    }
    return count + (this.#ofWork.get(name) ?? 0);
  }

  /** Counts the same change in several counters. */
  count(names: readonly string[], by: number): void {
    for (const name of names) this.#ofWork.set(name, (this.#ofWork.get(name) ?? 0) + by);
  }

  /** The work before has stayed: what it counted is part of the transaction. */
  keep(): void {
    for (const [name, by] of this.#ofWork) {
      if (by === 0) continue;
      this.#counts.set(name, this.get(name));
      this.#changed.add(name);
    }
    this.#ofWork.clear();
  }

  undoWork(): void {
    this.#ofWork.clear();
  }

  undoBatch(): void {
    this.#ofWork.clear();
    this.#counts.clear();
    this.#changed.clear();
  }

  /** Writes what the transaction changed; inside it. */
  write(): void {
    for (const name of this.#changed) {
      this.#statements.run(
        'INSERT INTO tally (name, count) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET count = excluded.count',
        name,
        this.get(name),
      );
    }
    this.#changed.clear();
  }
}
