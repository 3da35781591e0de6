/**
 * Whether an access token is good, and whose account it is for. Either the token says so itself and the issuer's keys prove it (JWT, RFC 9068), or the
 * issuer's server is asked (RFC 7662).
 *
 * What always holds: `AUTH_FAILED` is said of the token alone. An issuer that cannot be reached, or answers nonsense, is `AUTH_TOKEN_UNVERIFIED`, which is
 * temporary: no client throws its token away, and nobody is counted as guessing.
 */
import type { Clock } from '#common/clock.ts';
import type { OAuthOptions } from '#common/config/options.ts';
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import type { HttpExchange } from '#common/http/exchange.ts';
import { openNodeExchange } from '#common/http/node-exchange.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Secret } from '#common/secret.ts';
import { Introspection } from './introspection.ts';
import { parseToken, tokenLengthMax } from './jwt.ts';
import { KeySet } from './key-set.ts';

const keySetBytesMax = 1_048_576;

/** See the header of this file. */
export interface TokenVerifier {
  /** The login name that the token stands for. Rejects with `AUTH_FAILED` or `AUTH_TOKEN_UNVERIFIED`. */
  accountOf(token: Secret<string>): Promise<string>;
}

type TokenPorts = Pick<Ports, 'clock' | 'random' | 'files' | 'log'>;

/** Makes the verifier that the configuration describes. Throws `CONFIG_*` when a file or secret cannot be read. */
export async function openTokenVerifier(options: OAuthOptions, ports: TokenPorts, environment?: Environment): Promise<TokenVerifier> {
  const { files, clock } = ports;
  const ca = options.caFile === undefined ? undefined : await readPem(options.caFile, files);
  const http = openNodeExchange({ clock, ca });
  const clientSecret = options.clientSecret === undefined ? undefined : await readSecret(options.clientSecret, files, environment);
  return tokenVerifier(options, { ...ports, http }, clientSecret);
}

/** The same, with what was read. */
export function tokenVerifier(
  options: OAuthOptions,
  ports: TokenPorts & { readonly http: HttpExchange },
  clientSecret: Secret<string> | undefined,
): TokenVerifier {
  const { clock, random, http } = ports;
  const { introspectionUrl, clientId, timeoutMs } = options;
  const introspection =
    introspectionUrl === undefined || clientId === undefined || clientSecret === undefined
      ? undefined
      : new Introspection({ url: introspectionUrl, clientId, clientSecret, timeoutMs, http, clock, random });
  const keys = new KeySet(() => readKeySet(options, ports.files, http), ports);
  return {
    async accountOf(secret) {
      const token = secret.reveal();
      if (token.length > tokenLengthMax) throw refused(`it has more than ${tokenLengthMax} characters`);
      const claims = introspection === undefined ? await signedClaims(keys, token) : await introspection.claimsOf(token);
      if (claims === undefined) throw refused('the issuer’s server says that it is not active');
      checkClaims(options, claims, clock, introspection !== undefined);
      const name = claims[options.claim];
      if (typeof name !== 'string' || name === '') throw refused(`its claim ${options.claim}, which names the account, is missing`);
      return name.includes('@') || options.domain === undefined ? name : `${name}@${options.domain}`;
    },
  };
}

async function signedClaims(keys: KeySet, text: string): Promise<Readonly<Record<string, unknown>>> {
  const token = parseToken(text);
  if (token === undefined) throw refused('it is no JWT with a signature of a kind that is accepted (RFC 7515)');
  if (!(await keys.hasSigned(token))) throw refused('none of the issuer’s keys has signed it');
  return token.claims;
}

/** RFC 7519 §4.1, RFC 9068 §4. An introspection server need not repeat what it has checked itself. */
function checkClaims(options: OAuthOptions, claims: Readonly<Record<string, unknown>>, clock: Clock, isOptional: boolean): void {
  const seconds = clock.nowMs() / 1000;
  const { iss, aud, exp, nbf, scope } = claims;
  if (iss !== options.issuer && !(isOptional && iss === undefined)) throw refused(`its issuer is not ${options.issuer}`);
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  if (!audiences.includes(options.audience) && !(isOptional && aud === undefined)) throw refused(`it is not for ${options.audience}`);
  if (!isTime(exp) && !(isOptional && exp === undefined)) throw refused('it does not say when it ends');
  if (isTime(exp) && exp + options.clockSkewSeconds <= seconds) throw refused('it has expired');
  if (nbf !== undefined && !(isTime(nbf) && nbf - options.clockSkewSeconds <= seconds)) throw refused('it is not valid yet');
  if (options.scope !== undefined) {
    const scopes = typeof scope === 'string' ? scope.split(' ') : Array.isArray(scope) ? scope : [];
    if (!scopes.includes(options.scope)) throw refused(`it lacks the scope ${options.scope}`);
  }
}

async function readKeySet(options: OAuthOptions, files: Files, http: HttpExchange): Promise<unknown> {
  if (options.jwksFile !== undefined) return JSON.parse((await files.read(options.jwksFile)).toString('utf8'));
  const { origin, pathname, search } = new URL(options.jwksUrl as string);
  const answer = await http.request({
    method: 'GET',
    origin,
    target: `${pathname}${search}`,
    headers: { accept: 'application/jwk-set+json, application/json' },
    timeoutMs: options.timeoutMs,
    answerBytesMax: keySetBytesMax,
  });
  if (answer.status !== 200) throw new Error(`${origin}${pathname} answered ${answer.status}`);
  return JSON.parse(answer.body.toString('utf8'));
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function refused(why: string): PlatformError {
  return new PlatformError('AUTH_FAILED', `access token refused: ${why}`);
}
