/**
 * Argon2 hashes in PHC string form, `$argon2id$v=19$m=19456,t=2,p=1$salt$hash` (RFC 9106), computed by node:crypto on its own threads.
 * Parameters of stored hashes are bounded, because whoever may write an entry chooses them and whoever may bind makes us pay for them.
 */
import { argon2, timingSafeEqual } from 'node:crypto';

/** Cost of new hashes: OWASP's first choice for argon2id at 19 MiB. */
export const argon2Cost = { memoryKiB: 19_456, passes: 2, parallelism: 1, saltBytes: 16, tagBytes: 32 } as const;

const memoryKiBMax = 262_144;
const passesMax = 16;
const parallelismMax = 8;
const version = 19;

type Variant = 'argon2d' | 'argon2i' | 'argon2id';

interface Cost {
  readonly memoryKiB: number;
  readonly passes: number;
  readonly parallelism: number;
}

/** Hashes with the cost of new hashes and returns the PHC string. */
export async function argon2Hash(password: Buffer, salt: Buffer): Promise<string> {
  const tag = await compute('argon2id', password, salt, argon2Cost, argon2Cost.tagBytes);
  const { memoryKiB, passes, parallelism } = argon2Cost;
  return `$argon2id$v=${version}$m=${memoryKiB},t=${passes},p=${parallelism}$${unpadded(salt)}$${unpadded(tag)}`;
}

const phcPattern = /^\$(argon2(?:d|i|id))\$v=19\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})\$([A-Za-z0-9+/]{11,128})\$([A-Za-z0-9+/]{16,256})$/;

/** Whether `password` has this hash; a malformed string or one beyond the bounds matches nothing. */
export async function argon2Verify(phc: string, password: Buffer): Promise<boolean> {
  // slapd 2.5 stores the zero that ends its library's string, and what happened to lie behind it, with values that its policy hashes.
  const parts = phcPattern.exec(phc.split('\0', 1)[0] as string);
  if (parts === null) return false;
  const [, variant, memory, passes, parallelism, salt, tag] = parts as unknown as [string, Variant, string, string, string, string, string];
  const cost: Cost = { memoryKiB: Number(memory), passes: Number(passes), parallelism: Number(parallelism) };
  if (cost.memoryKiB > memoryKiBMax || cost.passes > passesMax || cost.parallelism > parallelismMax) return false;
  if (cost.passes < 1 || cost.parallelism < 1 || cost.memoryKiB < 8 * cost.parallelism) return false;
  const expected = Buffer.from(tag, 'base64');
  const actual = await compute(variant, password, Buffer.from(salt, 'base64'), cost, expected.length);
  return timingSafeEqual(actual, expected);
}

function compute(variant: Variant, message: Buffer, nonce: Buffer, cost: Cost, tagLength: number): Promise<Buffer> {
  const { memoryKiB: memory, passes, parallelism } = cost;
  return new Promise((resolve, reject) => {
    argon2(variant, { message, nonce, memory, passes, parallelism, tagLength }, (error, tag) => {
      if (error === null) resolve(tag);
      else reject(error);
    });
  });
}

function unpadded(bytes: Buffer): string {
  return bytes.toString('base64').replace(/=+$/, '');
}
