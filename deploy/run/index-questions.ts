/**
 * A helper's questions to the route index of its first process. What is asked in one turn of the event loop goes in one message, so that the busier
 * a helper is, the less each question costs.
 */
import type { AccountName } from '#common/account-name.ts';
import type { IndexElsewhere } from '#frontend/routing/route-account.ts';
import type { IndexedRoute } from '#frontend/routing/route-index.ts';
import type { ProcessChannel } from './process-channel.ts';

/** After that the directory is asked. */
const answerWithinMs = 1_000;
/** Addresses of one message; more go in the next. */
const addressesMax = 512;

interface Question {
  readonly address: AccountName;
  answer(route: IndexedRoute | undefined): void;
}

/** See the header of this file. */
export class IndexQuestions implements IndexElsewhere {
  readonly #channel: Pick<ProcessChannel, 'ask'>;
  #waiting: Question[] = [];

  constructor(channel: Pick<ProcessChannel, 'ask'>) {
    this.#channel = channel;
  }

  find(address: AccountName): Promise<IndexedRoute | undefined> {
    return new Promise((answer) => {
      this.#waiting.push({ address, answer });
      if (this.#waiting.length === 1) setImmediate(() => this.#askAll());
    });
  }

  forget(address: AccountName): void {
    this.#channel.ask('forget', { address }, answerWithinMs).catch(() => {});
  }

  #askAll(): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (let at = 0; at < all.length; at += addressesMax) void this.#ask(all.slice(at, at + addressesMax));
  }

  async #ask(questions: readonly Question[]): Promise<void> {
    const addresses = questions.map(({ address }) => address);
    const routes = await this.#channel.ask('routes', { addresses }, answerWithinMs).then(
      (answer) => answer.routes as readonly ({ readonly cluster?: IndexedRoute['cluster']; readonly isName: boolean } | null)[],
      () => [],
    );
    for (const [index, { answer }] of questions.entries()) {
      const found = routes[index] ?? undefined;
      // What is undefined is left out on the way.
      answer(found === undefined ? undefined : { cluster: found.cluster, isName: found.isName });
    }
  }
}
