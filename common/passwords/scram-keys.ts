/**
 * What a server keeps of a password for SCRAM-SHA-256 (RFC 5802, RFC 7677), how it is written in a directory (RFC 5803), and the arithmetic with it.
 * The keys check a proof; they do not make one, and whoever reads them can only guess passwords, as with any hash.
 */
import { createHash, createHmac, pbkdf2, timingSafeEqual } from 'node:crypto';
import { prepared } from './saslprep.ts';

/** What a server keeps of a password (RFC 5803): enough to check a proof, not enough to make one. */
export interface ScramKeys {
  readonly iterations: number;
  readonly salt: Buffer;
  readonly storedKey: Buffer;
  readonly serverKey: Buffer;
}

/** More rounds than this are refused: a password verified against such keys would cost seconds. */
export const scramIterationsMax = 1_000_000;
/** RFC 7677 §4: at least 4096. */
export const scramIterationsMin = 4096;
/** Salt of new keys; made-up ones for accounts that have none are as long. */
export const scramSaltBytes = 16;
const hashBytes = 32;

/** Checks a client's proof; the server's signature (base64), or `undefined` when the proof is wrong. */
export function checkProof(keys: ScramKeys, message: string, proof: string): string | undefined {
  const given = Buffer.from(proof, 'base64');
  if (given.length !== hashBytes) return undefined;
  const signature = hmac(keys.storedKey, message);
  const clientKey = Buffer.alloc(hashBytes);
  for (let at = 0; at < hashBytes; at += 1) clientKey[at] = (given[at] as number) ^ (signature[at] as number);
  if (!timingSafeEqual(createHash('sha256').update(clientKey).digest(), keys.storedKey)) return undefined;
  return hmac(keys.serverKey, message).toString('base64');
}

/** Makes the keys of a password. */
export function scramKeys(password: string, salt: Buffer, iterations: number): Promise<ScramKeys> {
  return new Promise((resolve, reject) => {
    pbkdf2(prepared(password), salt, iterations, hashBytes, 'sha256', (error, salted) => {
      if (error !== null) return reject(error);
      const clientKey = hmac(salted, 'Client Key');
      const storedKey = createHash('sha256').update(clientKey).digest();
      resolve({ iterations, salt, storedKey, serverKey: hmac(salted, 'Server Key') });
    });
  });
}

/** Keys as RFC 5803 §2 writes them after the scheme: `iterations:salt$StoredKey:ServerKey`. */
export function formatScramKeys({ iterations, salt, storedKey, serverKey }: ScramKeys): string {
  return `${iterations}:${salt.toString('base64')}$${storedKey.toString('base64')}:${serverKey.toString('base64')}`;
}

/** Reads them, also with the commas that Dovecot writes; `undefined` when they are malformed or cost too much. */
export function parseScramKeys(text: string): ScramKeys | undefined {
  const base64 = '([A-Za-z0-9+/]+={0,2})';
  const parts = new RegExp(`^\\$?(\\d{1,7})[:,]${base64}[$,]${base64}[:,]${base64}$`).exec(text.trim());
  if (parts === null) return undefined;
  const iterations = Number(parts[1]);
  const [salt, storedKey, serverKey] = parts.slice(2).map((part) => Buffer.from(part, 'base64')) as [Buffer, Buffer, Buffer];
  if (iterations < 1 || iterations > scramIterationsMax || salt.length === 0) return undefined;
  if (storedKey.length !== hashBytes || serverKey.length !== hashBytes) return undefined;
  return { iterations, salt, storedKey, serverKey };
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

/** Whether `password` has these keys. */
export async function matchesScramKeys(keys: ScramKeys, password: string): Promise<boolean> {
  const { storedKey } = await scramKeys(password, keys.salt, keys.iterations);
  return timingSafeEqual(storedKey, keys.storedKey);
}
