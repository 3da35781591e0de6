/**
 * A TLS handshake of one connection, from the wish for it to its end.
 *
 * OpenSSL's object for it takes far more memory than all else of a connection. Where the peer speaks first, it is made when something has come: who
 * connects and stays silent costs little until the time is over.
 */
import { limitTime } from '#common/network/time-limit.ts';
import type { TlsSession } from './tls-session.ts';

const handshakeTimeoutMs = 20_000;

/** What is known of it beforehand, and who is told. */
export interface HandshakeOptions {
  /** Whether there is something to do before anything comes from the peer. */
  readonly startsAtOnce: boolean;
  /** See `Handshake.clear`. */
  readonly clear: number;
  /** Called once. */
  done(error: Error | undefined): void;
  /** The time is over; the handshake is to be made to fail with this. */
  tookTooLong(error: Error): void;
}

/** See the header of this file. */
export class Handshake {
  /** Pieces of the queue that were written before, and go in clear. */
  clear: number;
  readonly #begin: () => TlsSession;
  readonly #startsAtOnce: boolean;
  readonly #done: (error: Error | undefined) => void;
  readonly #cancelLimit: () => void;
  #session: TlsSession | undefined;

  constructor(begin: () => TlsSession, { startsAtOnce, clear, done, tookTooLong }: HandshakeOptions) {
    this.#begin = begin;
    this.#startsAtOnce = startsAtOnce;
    this.#done = done;
    this.clear = clear;
    this.#cancelLimit = limitTime(handshakeTimeoutMs, () => tookTooLong(new Error(`nothing came within ${handshakeTimeoutMs} ms`)));
  }

  /** Whether the last step waits for room to write. */
  get wantsWrite(): boolean {
    return this.#session?.wantsWrite === true;
  }

  /**
   * One step: the session once the handshake is over. Throws what it failed with.
   *
   * @param isReadable whether something may have come
   */
  step(isReadable: boolean): TlsSession | undefined {
    if (this.#session === undefined) {
      if (!this.#startsAtOnce && !isReadable) return undefined;
      this.#session = this.#begin();
    }
    return this.#session.handshake() ? this.#session : undefined;
  }

  /** It is over, and the session is the caller's. */
  succeed(): void {
    this.#cancelLimit();
    this.#done(undefined);
  }

  /** It is over, and the session is gone. */
  fail(error: Error): void {
    this.#cancelLimit();
    this.#session?.free();
    this.#done(error);
  }
}
