/**
 * The values `userPassword` may hold: `{SCHEME}data` (RFC 2307 §5.3 and what directories made of it), or the password in clear.
 *
 * MD5 is verified because migrated directories hold it; nothing here makes it. An unknown scheme matches nothing: taking `{FOO}bar` for a password in clear would make the hash itself a password.
 */
import { createHash, pbkdf2, timingSafeEqual } from 'node:crypto';
import { argon2Verify } from './argon2.ts';
import { cryptVerify } from './crypt-thread.ts';
import { matchesScramKeys, parseScramKeys, type ScramKeys } from './scram-keys.ts';

/** More PBKDF2 rounds than this match nothing: a login would cost seconds. */
const pbkdf2RoundsMax = 1_000_000;

const digestSchemes: Readonly<Record<string, string>> = {
  MD5: 'md5',
  SMD5: 'md5',
  SHA: 'sha1',
  SSHA: 'sha1',
  SHA256: 'sha256',
  SSHA256: 'sha256',
  SHA384: 'sha384',
  SSHA384: 'sha384',
  SHA512: 'sha512',
  SSHA512: 'sha512',
};

const pbkdf2Schemes: Readonly<Record<string, string>> = {
  PBKDF2: 'sha1',
  'PBKDF2-SHA1': 'sha1',
  'PBKDF2-SHA256': 'sha256',
  'PBKDF2-SHA512': 'sha512',
  PBKDF2_SHA256: 'sha256',
};

/** The same strings, as OpenLDAP and as Dovecot name them. */
const argon2Schemes: readonly string[] = ['ARGON2', 'ARGON2I', 'ARGON2ID'];
const cryptSchemes: readonly string[] = ['CRYPT', 'BCRYPT', 'BLF-CRYPT', 'SHA256-CRYPT', 'SHA512-CRYPT'];

const clearSchemes: readonly string[] = ['CLEARTEXT', 'PLAIN'];

/** SCRAM keys (RFC 5803), which verify a password as well. */
export const scramScheme = 'SCRAM-SHA-256';

const schemePattern = /^\{([A-Za-z0-9][A-Za-z0-9_/.-]{0,30})\}(.*)$/s;

/** Splits `{SCHEME}data`; `undefined` for a password in clear. The scheme is in upper case. */
export function schemeOf(stored: string): { scheme: string; data: string } | undefined {
  const parts = schemePattern.exec(stored);
  return parts === null ? undefined : { scheme: (parts[1] as string).toUpperCase(), data: parts[2] as string };
}

/** Whether `password` matches one stored value. */
export async function verifyStored(stored: string, password: Buffer): Promise<boolean> {
  const parts = schemeOf(stored);
  if (parts === undefined) return equal(Buffer.from(stored), password);
  const { scheme, data } = parts;
  const digest = digestSchemes[scheme];
  if (digest !== undefined) return verifyDigest(digest, scheme === 'SMD5' || scheme.startsWith('SS'), data, password);
  const prf = pbkdf2Schemes[scheme];
  if (prf !== undefined) return verifyPbkdf2(prf, data, password);
  if (argon2Schemes.includes(scheme)) return argon2Verify(data, password);
  if (cryptSchemes.includes(scheme)) return cryptVerify(data, password);
  if (scheme === scramScheme) {
    const keys = parseScramKeys(data);
    return keys !== undefined && matchesScramKeys(keys, password.toString('utf8'));
  }
  if (clearSchemes.includes(scheme)) return equal(Buffer.from(data), password);
  return false;
}

/**
 * What of a stored value is of no kind that is verified here, such as `{CRYPT}$y$` (yescrypt) or `{FOO}`: for the operator, who sees a right
 * password refused. Never more than the scheme and the kind. `undefined` for a value that can be tried.
 */
export function unknownSchemeOf(stored: string): string | undefined {
  const parts = schemeOf(stored);
  if (parts === undefined) return undefined;
  const { scheme, data } = parts;
  if (cryptSchemes.includes(scheme)) {
    if (/^\$(?:2[aby]|5|6)\$/.test(data)) return undefined;
    return `{${scheme}}${/^\$[a-z0-9]{1,8}\$/i.exec(data)?.[0] ?? ''}`;
  }
  const isKnown =
    scheme in digestSchemes ||
    scheme in pbkdf2Schemes ||
    argon2Schemes.includes(scheme) ||
    clearSchemes.includes(scheme) ||
    scheme === scramScheme;
  return isKnown ? undefined : `{${scheme}}`;
}

/** The first SCRAM keys among stored values. */
export function scramKeysOf(stored: readonly string[]): ScramKeys | undefined {
  for (const value of stored) {
    const parts = schemeOf(value);
    const keys = parts?.scheme === scramScheme ? parseScramKeys(parts.data) : undefined;
    if (keys !== undefined) return keys;
  }
  return undefined;
}

function verifyDigest(algorithm: string, salted: boolean, data: string, password: Buffer): boolean {
  const bytes = Buffer.from(data, 'base64');
  const given = createHash(algorithm).update(password);
  const size = createHash(algorithm).digest().length;
  if (salted ? bytes.length <= size : bytes.length !== size) return false;
  return equal(given.update(bytes.subarray(size)).digest(), bytes.subarray(0, size));
}

// OpenLDAP's pw-pbkdf2 writes `rounds$salt$hash`, base64 with `.` for `+` and no padding; 389-DS writes one base64 block of
// rounds (4 octets, network order), salt (64) and hash (256).
function verifyPbkdf2(algorithm: string, data: string, password: Buffer): Promise<boolean> {
  const fields = data.split('$');
  let rounds: number;
  let salt: Buffer;
  let expected: Buffer;
  if (fields.length === 3) {
    rounds = /^\d{1,9}$/.test(fields[0] as string) ? Number(fields[0]) : 0;
    [salt, expected] = fields.slice(1).map((field) => Buffer.from(field.replaceAll('.', '+'), 'base64')) as [Buffer, Buffer];
  } else {
    const block = Buffer.from(data, 'base64');
    if (block.length !== 324) return Promise.resolve(false);
    rounds = block.readUInt32BE(0);
    salt = block.subarray(4, 68);
    expected = block.subarray(68);
  }
  if (rounds < 1 || rounds > pbkdf2RoundsMax || salt.length === 0 || expected.length < 16) return Promise.resolve(false);
  return new Promise((resolve, reject) => {
    pbkdf2(password, salt, rounds, expected.length, algorithm, (error, key) => {
      if (error === null) resolve(equal(key, expected));
      else reject(error);
    });
  });
}

function equal(a: Buffer, b: Buffer): boolean {
  // Hashing first makes the comparison's time independent of the lengths.
  return timingSafeEqual(createHash('sha256').update(a).digest(), createHash('sha256').update(b).digest());
}
