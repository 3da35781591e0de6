/**
 * Questions and answers between a process and its child, over the channel that Node gives the two (`subprocess.send`). Sockets go with questions.
 *
 * Both ends may be of different releases: whoever is asked what it does not know says so, and what is new in a body is left out of account.
 */
import type { Server } from 'node:net';
import { type Clock, withTimeout } from '#common/clock.ts';
import { type ErrorCode, errorCatalogue } from '#common/errors/catalogue.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';

/** Questions without an answer yet. */
const pendingMax = 10_000;

/** An end of the channel: `process` in the child, the `ChildProcess` in its parent. */
export interface ChannelEnd {
  readonly connected: boolean;
  send?(message: unknown, handle: Server | undefined, options: object, sent: (error: Error | null) => void): boolean;
  on(event: 'message', listener: (message: unknown, handle: unknown) => void): unknown;
  on(event: 'disconnect', listener: () => void): unknown;
}

/** What a question comes with. */
export type Body = Readonly<Record<string, unknown>>;

/** Answers a kind of question. */
export type Answer = (body: Body, handle: unknown) => Promise<Body | undefined> | Body | undefined;

type Message =
  | { readonly ask: string; readonly id: number; readonly body: Body }
  | {
      readonly id: number;
      readonly answer?: Body;
      readonly problem?: { readonly code: string; readonly message: string; readonly hint?: string };
    };

/** See the header of this file. */
export class ProcessChannel {
  readonly #end: ChannelEnd;
  readonly #clock: Clock;
  readonly #answers: Readonly<Record<string, Answer>>;
  readonly #pending = new Map<number, (message: Message | undefined) => void>();
  readonly #closed = Promise.withResolvers<void>();
  #nextId = 1;

  constructor(end: ChannelEnd, clock: Clock, answers: Readonly<Record<string, Answer>> = {}) {
    this.#end = end;
    this.#clock = clock;
    this.#answers = answers;
    end.on('message', (message, handle) => this.#receive(message as Message, handle));
    end.on('disconnect', () => {
      this.#closed.resolve();
      for (const settle of [...this.#pending.values()]) settle(undefined);
    });
  }

  /** Resolves when the other process has gone. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get isOpen(): boolean {
    return this.#end.connected;
  }

  /** Asks the other process. Rejects with its error, with `NET_TIMEOUT`, or with `NET_CLOSED` when it has gone. */
  ask(what: string, body: Body, limitMs: number, handle?: Server): Promise<Body> {
    const id = this.#nextId;
    this.#nextId += 1;
    const answered = new Promise<Body>((resolve, reject) => {
      const gone = new PlatformError('NET_CLOSED', 'the other process has gone');
      if (!this.isOpen || this.#pending.size >= pendingMax) return reject(gone);
      this.#pending.set(id, (message) => {
        this.#pending.delete(id);
        if (message === undefined) reject(gone);
        else if ('problem' in message && message.problem !== undefined) reject(errorOf(message.problem));
        else resolve('answer' in message ? (message.answer ?? {}) : {});
      });
      this.#send({ ask: what, id, body }, handle, reject);
    });
    const tooLate = (): Error => new PlatformError('NET_TIMEOUT', `the other process did not answer "${what}" within ${limitMs / 1000} s`);
    return withTimeout(this.#clock, limitMs, answered, tooLate).finally(() => this.#pending.delete(id));
  }

  #receive(message: Message, handle: unknown): void {
    if (typeof message !== 'object' || message === null) return;
    if (!('ask' in message)) {
      this.#pending.get(message.id)?.(message);
      return;
    }
    const { ask, id, body } = message;
    const answer = Object.hasOwn(this.#answers, ask) ? this.#answers[ask] : undefined;
    // Sockets that were sent must find their server within this very call.
    const answered = (async () => {
      if (answer === undefined) throw new PlatformError('ADMIN_NOT_ABLE', `the other process is of another release and knows no "${ask}"`);
      return answer(body, handle);
    })();
    answered.then(
      (given) => this.#send({ id, answer: given ?? {} }),
      (thrown: unknown) => {
        const { code, message: text, fields } = asPlatformError(thrown);
        this.#send({ id, problem: { code, message: text, ...(typeof fields.hint === 'string' ? { hint: fields.hint } : {}) } });
      },
    );
  }

  #send(message: Message, handle?: Server, failed: (error: Error) => void = () => {}): void {
    if (!this.isOpen) return;
    this.#end.send?.(message, handle, {}, (error) => {
      if (error !== null) failed(error);
    });
  }
}

function errorOf({ code, message, hint }: { readonly code: string; readonly message: string; readonly hint?: string }): PlatformError {
  const known = Object.hasOwn(errorCatalogue, code) ? (code as ErrorCode) : 'BUG_UNEXPECTED';
  return new PlatformError(known, message, hint === undefined ? {} : { fields: { hint } });
}
