/**
 * Verifies and makes password hashes, a few at a time: one argon2 costs 19 MiB and some ten milliseconds of a thread, so a storm of
 * logins must meet a bounded queue and not the machine's memory. At the bound a caller gets `AUTH_BUSY`, which every protocol
 * reports as temporary.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Random } from '#common/random.ts';
import type { Secret } from '#common/secret.ts';
import { argon2Cost, argon2Hash } from './argon2.ts';
import { schemeOf, scramScheme, verifyStored } from './schemes.ts';
import { formatScramKeys, scramKeys, scramSaltBytes } from './scram-keys.ts';

/** Longest password that is looked at, bytes; a longer one matches nothing and is not hashed. */
export const passwordBytesMax = 1024;
/** Stored values of one entry that are tried. */
const storedValuesMax = 8;

/** Bounds of one hasher. */
export interface PasswordHasherLimits {
  /** Verifications and hashings that run side by side; node:crypto has four threads unless told otherwise. Default 2. */
  readonly runningMax?: number;
  /** Callers that may wait for their turn. Default 512. */
  readonly waitingMax?: number;
  /** Rounds of SCRAM keys that are made beside the hash of a new password; none are made without it. */
  readonly scramIterations?: number | undefined;
}

/** See the header of this file. */
export interface PasswordHasher {
  /** Whether `given` matches one of the stored `userPassword` values. Rejects with `AUTH_BUSY` at the bound. */
  verifyPassword(stored: readonly string[], given: Secret<string>): Promise<boolean>;
  /** A new `{ARGON2}` value. Rejects with `AUTH_BUSY` at the bound, `PROTO_TOO_LONG` for an overlong password. */
  hashPassword(given: Secret<string>): Promise<string>;
  /** What is to be stored of a new password: an `{ARGON2}` value, and SCRAM keys where they are wanted. Rejects as `hashPassword` does. */
  storedValues(given: Secret<string>): Promise<readonly string[]>;
  /**
   * Takes as long as verifying a value made by `hashPassword` does, and is false: for names that do not exist, so that the time of an
   * answer does not tell which do.
   */
  verifyNothing(given: Secret<string>): Promise<false>;
}

/** Whether a `userPassword` value is hashed already, i.e. starts with `{SCHEME}`. */
export function isHashed(value: string): boolean {
  return schemeOf(value) !== undefined;
}

/** Makes a hasher with its own queue. */
export function createPasswordHasher(random: Random, limits: PasswordHasherLimits = {}): PasswordHasher {
  const turns = new Turns(limits.runningMax ?? 2, limits.waitingMax ?? 512);
  const decoySalt = random.bytes(argon2Cost.saltBytes);
  return {
    verifyPassword: (stored, given) =>
      turns.run(async () => {
        const password = Buffer.from(given.reveal());
        if (password.length > passwordBytesMax) return false;
        // SCRAM keys are made beside a hash of the same password: where one is, they would only cost time, and tell that they are there.
        const hashes = stored.filter((value) => schemeOf(value)?.scheme !== scramScheme);
        for (const value of (hashes.length > 0 ? hashes : stored).slice(0, storedValuesMax)) {
          if (await verifyStored(value, password)) return true;
        }
        return false;
      }),
    hashPassword: (given) => turns.run(() => hashOf(random, given)),
    storedValues: (given) =>
      turns.run(async () => {
        const hash = await hashOf(random, given);
        if (limits.scramIterations === undefined) return [hash];
        const keys = await scramKeys(given.reveal(), random.bytes(scramSaltBytes), limits.scramIterations);
        return [hash, `{${scramScheme}}${formatScramKeys(keys)}`];
      }),
    verifyNothing: (given) =>
      turns.run(async () => {
        await argon2Hash(Buffer.from(given.reveal()).subarray(0, passwordBytesMax), decoySalt);
        return false as const;
      }),
  };
}

async function hashOf(random: Random, given: Secret<string>): Promise<string> {
  const password = Buffer.from(given.reveal());
  if (password.length > passwordBytesMax) {
    throw new PlatformError('PROTO_TOO_LONG', `a password has ${password.length} bytes; at most ${passwordBytesMax} are allowed`);
  }
  return `{ARGON2}${await argon2Hash(password, random.bytes(argon2Cost.saltBytes))}`;
}

/** Runs at most `runningMax` works at a time; the others wait in order, at most `waitingMax` of them. */
class Turns {
  readonly #runningMax: number;
  readonly #waitingMax: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(runningMax: number, waitingMax: number) {
    this.#runningMax = runningMax;
    this.#waitingMax = waitingMax;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#runningMax) {
      if (this.#waiting.length >= this.#waitingMax) {
        throw new PlatformError('AUTH_BUSY', `${this.#waiting.length} password checks are waiting already; try again shortly`);
      }
      // Whoever finishes hands its place over, so #running stays as it is.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#running += 1;
    }
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}
