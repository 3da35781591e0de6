/**
 * The pace of work that one command can make long: after some milliseconds of it other sessions have their turn.
 */
import { nextTurn } from './output.ts';

/** Characters looked at in one go. */
const perTurn = 500_000;

/** Counts the work of one command. */
export class Pace {
  #spent = 0;

  /** Notes work about to be done, in characters looked at; waits for the others when it was enough. */
  async spend(characters: number): Promise<void> {
    this.#spent += characters;
    if (this.#spent < perTurn) return;
    this.#spent = 0;
    await nextTurn();
  }
}
