/**
 * JSON Web Tokens as far as an access token needs them: a compact JWS (RFC 7515 §3.1) with an asymmetric signature, keys as a JWK Set gives them
 * (RFC 7517), claims of RFC 7519 and RFC 9068. There is no `none` and no HMAC: whoever could make us take a public key for a secret could sign.
 */
import { constants, createPublicKey, type KeyObject, verify } from 'node:crypto';

/** Longest token that is looked at, characters. */
export const tokenLengthMax = 8192;

interface Algorithm {
  readonly keyType: 'rsa' | 'ec' | 'ed25519';
  readonly hash: string | null;
  readonly curve?: string;
  readonly isPss?: boolean;
}

/** RFC 7518 §3.1, RFC 8037 §3.1. */
const algorithms: Readonly<Record<string, Algorithm>> = {
  RS256: { keyType: 'rsa', hash: 'sha256' },
  RS384: { keyType: 'rsa', hash: 'sha384' },
  RS512: { keyType: 'rsa', hash: 'sha512' },
  PS256: { keyType: 'rsa', hash: 'sha256', isPss: true },
  PS384: { keyType: 'rsa', hash: 'sha384', isPss: true },
  PS512: { keyType: 'rsa', hash: 'sha512', isPss: true },
  ES256: { keyType: 'ec', hash: 'sha256', curve: 'prime256v1' },
  ES384: { keyType: 'ec', hash: 'sha384', curve: 'secp384r1' },
  ES512: { keyType: 'ec', hash: 'sha512', curve: 'secp521r1' },
  EdDSA: { keyType: 'ed25519', hash: null },
};
const rsaBitsMin = 2048;
/** Keys of one set that are kept. */
const keysMax = 100;

/** A key that may sign tokens. */
export interface TokenKey {
  readonly id: string | undefined;
  /** The only algorithm that it is for, if the set says so. */
  readonly algorithm: string | undefined;
  readonly key: KeyObject;
}

/** A token taken apart, not yet believed. */
export interface ParsedToken {
  readonly algorithm: string;
  readonly keyId: string | undefined;
  readonly claims: Readonly<Record<string, unknown>>;
  readonly signed: Buffer;
  readonly signature: Buffer;
}

/** The keys of a JWK Set; those that are not for signatures, too weak or of no kind that is known are left out. `undefined` when it is no set. */
export function parseKeySet(document: unknown): TokenKey[] | undefined {
  const list = (document as { keys?: unknown } | null)?.keys;
  if (!Array.isArray(list)) return undefined;
  const found: TokenKey[] = [];
  for (const jwk of list.slice(0, keysMax) as Record<string, unknown>[]) {
    if (typeof jwk !== 'object' || jwk === null || !['RSA', 'EC', 'OKP'].includes(String(jwk.kty))) continue;
    if (jwk.use !== undefined && jwk.use !== 'sig') continue;
    if (Array.isArray(jwk.key_ops) && !jwk.key_ops.includes('verify')) continue;
    let key: KeyObject;
    try {
      key = createPublicKey({ key: jwk as never, format: 'jwk' });
    } catch {
      // A key that this Node does not know signs nothing that could be verified.
      continue;
    }
    if (key.asymmetricKeyType === 'rsa' && (key.asymmetricKeyDetails?.modulusLength ?? 0) < rsaBitsMin) continue;
    found.push({ id: textOf(jwk.kid), algorithm: textOf(jwk.alg), key });
  }
  return found;
}

/** Takes a token apart; `undefined` when it is none, or is signed in a way that is not accepted. */
export function parseToken(text: string): ParsedToken | undefined {
  if (text.length > tokenLengthMax) return undefined;
  const parts = text.split('.');
  if (parts.length !== 3 || !parts.every((part) => /^[A-Za-z0-9_-]+$/.test(part))) return undefined;
  const [header, claims] = parts.slice(0, 2).map((part) => jsonOf(part));
  if (header === undefined || claims === undefined) return undefined;
  const algorithm = textOf(header.alg);
  // RFC 7515 §4.1.11: what is marked critical and not understood makes the token invalid.
  if (algorithm === undefined || !Object.hasOwn(algorithms, algorithm) || header.crit !== undefined) return undefined;
  return {
    algorithm,
    keyId: textOf(header.kid),
    claims,
    signed: Buffer.from(`${parts[0]}.${parts[1]}`),
    signature: Buffer.from(parts[2] as string, 'base64url'),
  };
}

/** Whether one of the keys signed it. */
export function isSignedBy(token: ParsedToken, keys: readonly TokenKey[]): boolean {
  const algorithm = algorithms[token.algorithm] as Algorithm;
  return keys.some((candidate) => {
    if (token.keyId !== undefined && candidate.id !== undefined && candidate.id !== token.keyId) return false;
    if (candidate.algorithm !== undefined && candidate.algorithm !== token.algorithm) return false;
    const { key } = candidate;
    if (key.asymmetricKeyType !== algorithm.keyType) return false;
    if (algorithm.curve !== undefined && key.asymmetricKeyDetails?.namedCurve !== algorithm.curve) return false;
    const padding =
      algorithm.isPss === true ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST } : {};
    // RFC 7518 §3.4: an ECDSA signature is the two numbers side by side.
    return verify(algorithm.hash, token.signed, { key, dsaEncoding: 'ieee-p1363', ...padding }, token.signature);
  });
}

function jsonOf(part: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}
