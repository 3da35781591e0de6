/**
 * The issuer's public keys, read when they are needed and kept. A key that is not among them may be new, so the set is read again, but not more often
 * than every `rereadMs`: anybody can send a token with a key's name made up. While the set cannot be read, the keys that are known go on being used.
 */
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { isSignedBy, type ParsedToken, parseKeySet, type TokenKey } from './jwt.ts';

/** Age at which a set is read again though nothing is missing: keys are withdrawn, too. */
const freshMs = 600_000;
/** Least time between two readings. */
export const rereadMs = 10_000;

/** See the header of this file. */
export class KeySet {
  readonly #load: () => Promise<unknown>;
  readonly #clock: Clock;
  readonly #log: Logger;
  #keys: readonly TokenKey[] | undefined;
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #readAtMs = Number.NEGATIVE_INFINITY;
  #failure: PlatformError | undefined;
  #reading: Promise<void> | undefined;

  /** @param load the set's document; rejects with what keeps it from being read */
  constructor(load: () => Promise<unknown>, ports: { readonly clock: Clock; readonly log: Logger }) {
    this.#load = load;
    this.#clock = ports.clock;
    this.#log = ports.log;
  }

  /** Whether one of the keys signed the token. Rejects with `AUTH_TOKEN_UNVERIFIED` when that cannot be known now. */
  async hasSigned(token: ParsedToken): Promise<boolean> {
    if (this.#clock.monotonicMs() - this.#readAtMs > freshMs) await this.#read();
    if (this.#keys !== undefined && isSignedBy(token, this.#keys)) return true;
    const known = this.#keys?.some(({ id }) => id !== undefined && id === token.keyId) === true;
    // A key of that name is there, and did not sign it: another reading brings nothing.
    if (!known) await this.#read();
    if (this.#keys !== undefined && isSignedBy(token, this.#keys)) return true;
    if (this.#failure !== undefined && !known) throw this.#failure;
    return false;
  }

  #read(): Promise<void> {
    if (this.#reading !== undefined) return this.#reading;
    if (this.#clock.monotonicMs() - this.#triedAtMs < rereadMs) return Promise.resolve();
    this.#triedAtMs = this.#clock.monotonicMs();
    this.#reading = this.#readOnce().finally(() => (this.#reading = undefined));
    return this.#reading;
  }

  async #readOnce(): Promise<void> {
    try {
      const keys = parseKeySet(await this.#load());
      if (keys === undefined || keys.length === 0) throw new Error('what came is no JWK Set, or has no key that could sign (RFC 7517 §5)');
      this.#keys = keys;
      this.#failure = undefined;
      this.#readAtMs = this.#clock.monotonicMs();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#failure = new PlatformError('AUTH_TOKEN_UNVERIFIED', `the keys of the tokens’ issuer cannot be read: ${why}`, { cause: error });
      this.#log.warn({ errCode: this.#failure.code, keys: this.#keys?.length ?? 0 }, this.#failure.message);
    }
  }
}
