/**
 * Tokens judged by the issuer's own server (RFC 7662): for tokens that say nothing by themselves. What it says of a token that is good is kept for
 * a short while, because mail clients open several connections at once; a refusal is never kept.
 */
import { createHmac } from 'node:crypto';
import type { Clock } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { HttpExchange } from '#common/http/exchange.ts';
import type { Random } from '#common/random.ts';
import type { Secret } from '#common/secret.ts';

/** Time for which a good token is not asked about again. */
const keptMs = 60_000;
/** Tokens kept; at the bound the oldest is forgotten. */
const keptMax = 10_000;
/** Questions under way; beyond it a login is put off. */
const askedMax = 256;
const answerBytesMax = 65_536;

/** Where to ask, and as whom. */
export interface IntrospectionOptions {
  readonly url: string;
  readonly clientId: string;
  readonly clientSecret: Secret<string>;
  readonly timeoutMs: number;
  readonly http: HttpExchange;
  readonly clock: Clock;
  readonly random: Random;
}

type Claims = Readonly<Record<string, unknown>>;

/** See the header of this file. */
export class Introspection {
  readonly #options: IntrospectionOptions;
  readonly #key: Buffer;
  readonly #kept = new Map<string, { readonly claims: Claims; readonly untilMs: number }>();
  #asked = 0;

  constructor(options: IntrospectionOptions) {
    this.#options = options;
    this.#key = options.random.bytes(32);
  }

  /** What the server says of the token, or `undefined` when it is not active. Rejects with `AUTH_TOKEN_UNVERIFIED` when it cannot be asked. */
  async claimsOf(token: string): Promise<Claims | undefined> {
    const { clock } = this.#options;
    const key = createHmac('sha256', this.#key).update(token).digest('base64');
    const kept = this.#kept.get(key);
    if (kept !== undefined && kept.untilMs > clock.monotonicMs()) return kept.claims;
    this.#kept.delete(key);
    const claims = await this.#ask(token);
    if (claims.active !== true) return undefined;
    if (this.#kept.size >= keptMax) this.#kept.delete(this.#kept.keys().next().value as string);
    this.#kept.set(key, { claims, untilMs: clock.monotonicMs() + keptMs });
    return claims;
  }

  async #ask(token: string): Promise<Claims> {
    const { http, timeoutMs, clientId, clientSecret } = this.#options;
    const { origin, pathname, search } = new URL(this.#options.url);
    if (this.#asked >= askedMax) throw unverified(origin, `${askedMax} questions are under way`);
    // RFC 6749 §2.3.1: both are form-encoded first.
    const credentials = Buffer.from(`${encodeURIComponent(clientId)}:${encodeURIComponent(clientSecret.reveal())}`).toString('base64');
    this.#asked += 1;
    try {
      const answer = await http.request({
        method: 'POST',
        origin,
        target: `${pathname}${search}`,
        headers: {
          authorization: `Basic ${credentials}`,
          'content-type': 'application/x-www-form-urlencoded',
          accept: 'application/json',
        },
        body: [Buffer.from(new URLSearchParams({ token, token_type_hint: 'access_token' }).toString())],
        timeoutMs,
        answerBytesMax,
      });
      if (answer.status !== 200) throw new Error(`it answered ${answer.status}`);
      const claims: unknown = JSON.parse(answer.body.toString('utf8'));
      if (typeof (claims as { active?: unknown } | null)?.active !== 'boolean')
        throw new Error('its answer has no "active" (RFC 7662 §2.2)');
      return claims as Claims;
    } catch (error) {
      throw unverified(origin, messageOf(error), error);
    } finally {
      this.#asked -= 1;
    }
  }
}

function unverified(origin: string, why: string, cause?: unknown): PlatformError {
  return new PlatformError('AUTH_TOKEN_UNVERIFIED', `the token introspection server ${origin} did not judge a token: ${why}`, { cause });
}
