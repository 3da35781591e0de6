/**
 * Whether a login is right: a password against the hashes of the account's entry, a SCRAM proof against the keys there, an access token by its
 * issuer; then the status of the account.
 *
 * argon2 costs 70 ms of a thread and mail clients log in over and over, so a password that was right is remembered, as an HMAC under a
 * key that this process made at its start and never stores, until the entry changes or `rememberedMs` have passed. A name that does not
 * exist costs as much time as a wrong password.
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import { tryParseAccountName } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { TokenVerifier } from '#common/oauth/token-verifier.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import { scramKeysOf } from '#common/passwords/schemes.ts';
import { checkProof, type ScramKeys } from '#common/passwords/scram-keys.ts';
import type { Random } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { LinkLogin, ScramSalt } from '#protocol/link/messages.ts';

/** Passwords remembered; at the bound the longest unused is forgotten. */
export const rememberedMax = 50_000;
const rememberedMs = 600_000;

interface Remembered {
  readonly csn: string;
  readonly mac: Buffer;
  readonly untilMs: number;
}

/** See the header of this file. */
export class Authenticator {
  readonly #hasher: PasswordHasher;
  readonly #clock: Clock;
  readonly #tokens: TokenVerifier | undefined;
  /** Made once: from bytes, OpenSSL makes one for each HMAC, which takes four times as long as the HMAC. */
  readonly #key: KeyObject;
  readonly #remembered = new Map<string, Remembered>();

  /** @param tokens missing where no tokens are taken */
  constructor(hasher: PasswordHasher, clock: Clock, random: Random, tokens: TokenVerifier | undefined) {
    this.#tokens = tokens;
    this.#hasher = hasher;
    this.#clock = clock;
    this.#key = createSecretKey(random.bytes(32));
  }

  /**
   * Resolves when the login is right, with SCRAM's server signature where there is one; a token must have been found to be the account's before.
   * Rejects with `AUTH_FAILED`, `AUTH_ACCOUNT_LOCKED`, `AUTH_ACCOUNT_MAINTENANCE`, or `AUTH_BUSY` when too many passwords are being verified.
   */
  async verify(record: AccountRecord, login: LinkLogin): Promise<string | undefined> {
    let serverSignature: string | undefined;
    if (login.mechanism === 'PLAIN') await this.#verifyPassword(record, login);
    else if (login.mechanism === 'SCRAM-SHA-256') serverSignature = this.#verifyProof(record, login);
    if (record.status === 'maintenance') throw new PlatformError('AUTH_ACCOUNT_MAINTENANCE', `${record.name} is in maintenance`);
    if (record.status !== 'active') throw new PlatformError('AUTH_ACCOUNT_LOCKED', `${record.name} is ${record.status}`);
    return serverSignature;
  }

  /** Takes the time of a wrong password: for accounts that do not exist. Other logins cost next to nothing. */
  async verifyNothing(login: LinkLogin): Promise<void> {
    if (login.mechanism === 'PLAIN') await this.#hasher.verifyNothing(new Secret(login.password));
  }

  /** The login name that an access token stands for. Rejects with `AUTH_FAILED`, `AUTH_TOKEN_UNVERIFIED` or `AUTH_MECHANISM`. */
  async tokenOwner(token: string): Promise<string> {
    if (this.#tokens === undefined) {
      throw new PlatformError(
        'AUTH_MECHANISM',
        'a frontend sent an access token, and this member has no oauth: configured; give it the same as the frontends',
      );
    }
    return this.#tokens.accountOf(new Secret(token));
  }

  /** Salt and iterations of the account's SCRAM keys; empty when it has none. */
  saltOf(record: AccountRecord): ScramSalt {
    const keys = this.#scramKeys(record);
    return keys === undefined ? {} : { salt: keys.salt.toString('base64'), iterations: keys.iterations };
  }

  async #verifyPassword(record: AccountRecord, login: Extract<LinkLogin, { mechanism: 'PLAIN' }>): Promise<void> {
    // RFC 4616 §2: an authorization identity other than the authenticated one asks to act for somebody else.
    const isOwn = login.authorizationId === '' || this.#names(record, login.authorizationId);
    if (!(await this.#isRight(record, new Secret(login.password))) || !isOwn) {
      throw new PlatformError('AUTH_FAILED', isOwn ? 'wrong password' : `${record.name} may not act for another account`);
    }
  }

  #verifyProof(record: AccountRecord, login: Extract<LinkLogin, { mechanism: 'SCRAM-SHA-256' }>): string {
    const keys = this.#scramKeys(record);
    const signature = keys === undefined ? undefined : checkProof(keys, login.authMessage, login.proof);
    if (signature !== undefined) return signature;
    throw new PlatformError(
      'AUTH_FAILED',
      keys === undefined ? `${record.name} has no SCRAM keys; they are made when its password is set anew` : 'wrong SCRAM proof',
    );
  }

  #scramKeys(record: AccountRecord): ScramKeys | undefined {
    return scramKeysOf(record.passwords.reveal());
  }

  async #isRight(record: AccountRecord, password: Secret<string>): Promise<boolean> {
    const mac = createHmac('sha256', this.#key).update(`${record.uuid}\0${password.reveal()}`).digest();
    const known = this.#remembered.get(record.uuid);
    if (known !== undefined && known.csn === record.csn && known.untilMs > this.#clock.monotonicMs() && timingSafeEqual(known.mac, mac)) {
      this.#remembered.delete(record.uuid);
      this.#remembered.set(record.uuid, known);
      return true;
    }
    const hashes = record.passwords.reveal();
    if (password.reveal() === '' || hashes.length === 0) return this.#hasher.verifyNothing(password);
    if (!(await this.#hasher.verifyPassword(hashes, password))) return false;
    this.#remembered.delete(record.uuid);
    this.#remembered.set(record.uuid, { csn: record.csn, mac, untilMs: this.#clock.monotonicMs() + rememberedMs });
    if (this.#remembered.size > rememberedMax) this.#remembered.delete(this.#remembered.keys().next().value as string);
    return true;
  }

  #names(record: AccountRecord, identity: string): boolean {
    const name = tryParseAccountName(identity);
    return name !== undefined && (name === record.name || record.addresses.includes(name));
  }
}
