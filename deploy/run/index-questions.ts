/**
 * The route index of a helper's first process, read in the memory that the two share. What cannot be told there is asked of that process: what comes up in
 * one turn of the event loop goes in one message, so that the busier a helper is, the less each question costs.
 */
import type { AccountName } from '#common/account-name.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { IndexElsewhere } from '#frontend/routing/route-account.ts';
import type { IndexedRoute } from '#frontend/routing/route-index.ts';
import type { SharedIndexReader } from '#frontend/routing/shared-index.ts';
import type { ProcessChannel } from './process-channel.ts';

/** After that the directory is asked. */
const answerWithinMs = 1_000;
/** Addresses of one message; more go in the next. */
const addressesMax = 512;

type Shared = Pick<SharedIndexReader, 'find' | 'clusterCount' | 'setClusters'>;

interface Answer {
  readonly routes?: readonly ({ readonly cluster?: ClusterName; readonly isName: boolean } | null)[];
  /** All of them, where there are more than were known. */
  readonly clusters?: readonly ClusterName[];
}

interface Question {
  readonly address: AccountName;
  answer(route: IndexedRoute | undefined): void;
}

/** See the header of this file. */
export class IndexQuestions implements IndexElsewhere {
  readonly #channel: Pick<ProcessChannel, 'ask'>;
  readonly #shared: Shared | undefined;
  #waiting: Question[] = [];

  /** @param shared missing where processes cannot share memory */
  constructor(channel: Pick<ProcessChannel, 'ask'>, shared?: Shared) {
    this.#channel = channel;
    this.#shared = shared;
  }

  find(address: AccountName, canonical: AccountName): ReturnType<IndexElsewhere['find']> {
    const seen = this.#look(address, canonical);
    if (seen !== 'unsure') return seen;
    return new Promise((answer) => {
      this.#waiting.push({ address, answer });
      if (this.#waiting.length === 1) setImmediate(() => this.#askAll());
    });
  }

  forget(address: AccountName): void {
    this.#channel.ask('forget', { address }, answerWithinMs).catch(() => {});
  }

  #look(address: AccountName, canonical: AccountName): IndexedRoute | undefined | 'unsure' {
    if (this.#shared === undefined) return 'unsure';
    // As `Routes.find` does.
    const seen = this.#shared.find(canonical);
    return seen === undefined && canonical !== address ? this.#shared.find(address) : seen;
  }

  #askAll(): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (let at = 0; at < all.length; at += addressesMax) void this.#ask(all.slice(at, at + addressesMax));
  }

  async #ask(questions: readonly Question[]): Promise<void> {
    const addresses = questions.map(({ address }) => address);
    const { routes = [], clusters } = (await this.#channel
      .ask('routes', { addresses, clusters: this.#shared?.clusterCount }, answerWithinMs)
      .catch(() => ({}))) as Answer;
    if (clusters !== undefined) this.#shared?.setClusters(clusters);
    for (const [index, { answer }] of questions.entries()) {
      const found = routes[index] ?? undefined;
      // What is undefined is left out on the way.
      answer(found === undefined ? undefined : { cluster: found.cluster, isName: found.isName });
    }
  }
}
