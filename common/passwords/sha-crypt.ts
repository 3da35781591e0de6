/**
 * SHA-crypt, the `$5$` and `$6$` hashes of crypt(3), after Drepper's specification "Unix crypt using SHA-256 and SHA-512".
 * Node has no crypt. It runs on a thread of its own: crypt-thread.ts.
 */
import { createHash, timingSafeEqual } from 'node:crypto';

const roundsDefault = 5000;
const roundsMin = 1000;
/** More rounds than this match nothing: a login would cost seconds. */
export const shaCryptRoundsMax = 200_000;
const alphabet = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** Scheme, rounds if given, salt, hash. */
export const shaCryptPattern = /^\$([56])\$(?:rounds=(\d{1,9})\$)?([^$]{0,256})\$([./0-9A-Za-z]{43}|[./0-9A-Za-z]{86})$/;

/** Whether `password` has this `$5$` or `$6$` hash; a malformed string matches nothing. */
export function shaCryptVerify(stored: string, password: Buffer): boolean {
  const parts = shaCryptPattern.exec(stored);
  if (parts === null) return false;
  const algorithm = parts[1] === '5' ? 'sha256' : 'sha512';
  const rounds = parts[2] === undefined ? roundsDefault : Math.max(roundsMin, Number(parts[2]));
  if (rounds > shaCryptRoundsMax) return false;
  const expected = Buffer.from(parts[4] as string);
  // The specification uses the first 16 octets of the salt.
  const digest = shaCrypt(algorithm, password, Buffer.from(parts[3] as string).subarray(0, 16), rounds);
  const actual = Buffer.from(encode(algorithm, digest));
  return actual.length === expected.length && timingSafeEqual(actual, expected);
}

function shaCrypt(algorithm: 'sha256' | 'sha512', key: Buffer, salt: Buffer, rounds: number): Buffer {
  const hash = (...parts: Buffer[]): Buffer => {
    const sum = createHash(algorithm);
    for (const part of parts) sum.update(part);
    return sum.digest();
  };
  // Steps 4-8: digest B, and digest A from key, salt and B.
  const b = hash(key, salt, key);
  const a: Buffer[] = [key, salt, repeated(b, key.length)];
  for (let bits = key.length; bits > 0; bits >>= 1) a.push((bits & 1) === 1 ? b : key);
  let digest = hash(...a);
  // Steps 13-20: sequences P and S, as long as key and salt.
  const p = repeated(hash(...Array.from({ length: key.length }, () => key)), key.length);
  const s = repeated(hash(...Array.from({ length: 16 + (digest[0] as number) }, () => salt)), salt.length);
  // Step 21.
  for (let round = 0; round < rounds; round += 1) {
    const odd = round % 2 === 1;
    const parts: Buffer[] = [odd ? p : digest];
    if (round % 3 !== 0) parts.push(s);
    if (round % 7 !== 0) parts.push(p);
    parts.push(odd ? digest : p);
    digest = hash(...parts);
  }
  return digest;
}

function repeated(block: Buffer, length: number): Buffer {
  const out = Buffer.alloc(length);
  for (let at = 0; at < length; at += block.length) block.copy(out, at);
  return out;
}

// Step 22: three bytes at a time, taken from the three thirds of the digest in turn, as four characters of 6 bits, lowest first.
function encode(algorithm: 'sha256' | 'sha512', digest: Buffer): string {
  const third = algorithm === 'sha256' ? 10 : 21;
  const step = algorithm === 'sha256' ? [2, 0, 1] : [1, 2, 0];
  let [x, y, z] = [0, third, third * 2];
  let text = '';
  for (let i = 0; i < third; i += 1) {
    text += four(((digest[x] as number) << 16) | ((digest[y] as number) << 8) | (digest[z] as number), 4);
    const turned = [x, y, z];
    [x, y, z] = step.map((from) => (turned[from] as number) + 1) as [number, number, number];
  }
  return algorithm === 'sha256'
    ? text + four(((digest[31] as number) << 8) | (digest[30] as number), 3)
    : text + four(digest[63] as number, 2);
}

function four(bits: number, count: number): string {
  let text = '';
  for (let i = 0; i < count; i += 1) text += alphabet[(bits >> (6 * i)) & 63];
  return text;
}
