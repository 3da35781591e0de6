import { describe, expect, test } from 'vitest';
import { createPasswordHasher, isHashed } from '#common/passwords/password-hasher.ts';
import { unknownSchemeOf } from '#common/passwords/schemes.ts';
import { Secret } from '#common/secret.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { foreignHashes, foreignPassword } from './foreign-hashes.ts';

// Made by openssl passwd, slappasswd and Python's hashlib: none of them by the code under test.
const foreign: readonly (readonly [stored: string, password: string])[] = [
  ['{SSHA}jvTmovr2PCXiBBdGbdcMyRqJkN0cjz9d', 'secret'],
  ['{SSHA512}aCu7JRc+kLsuEmFs1zTY+AiP7DSGnjjG+dH28Dp+E5usqoAixeTPihKqZmkWal4mUfp63tqvCAkFV1LKTDFH6XNhbHRzYWx0', 'secret'],
  ['{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=', 'secret'],
  ['{PBKDF2-SHA512}1000$c2FsdHNhbHQ$sm09rUzS3..3.cqsWziIoWFO8bEknKwJwGEvyD1ra4PcWJt5OiWFlM/BVv8ybJe4XW8qMpq33ecFrOaibNGiHA', 'secret'],
  ['{ARGON2}$argon2i$v=19$m=4096,t=3,p=1$aRghhrx6zUqTfNYrlLUS3Q$veMF/I+AfDQf3ydPnPfkOPMBzqb/XBGyI5YyHeHv9IQ', 'secret'],
  ['{ARGON2}$argon2i$v=19$m=4096,t=3,p=1$aRghhrx6zUqTfNYrlLUS3Q$veMF/I+AfDQf3ydPnPfkOPMBzqb/XBGyI5YyHeHv9IQ\0x', 'secret'],
  ['{CRYPT}$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5', 'Hello world!'],
  ['{CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1', 'Hello world!'],
  ['{CRYPT}$5$ab$5ydlOaPxAq0VpamGFK.BZgHF7HlR0erJsH.F7VB19f0', 'x'],
  [
    '{CRYPT}$6$abcdefghijklmnop$hBCGcxV70M8wSMOTC9yCR/2DwXXhMYZm7P5j/9ht94Mj/VAQURUPYUrZYX1o7L3zn8OKYsTHvKcKCinbG5cTz1',
    'a somewhat longer password that goes on over the block length of sixty four bytes',
  ],
  ['{CLEARTEXT}secret', 'secret'],
  ['secret', 'secret'],
];

describe('the password hasher', () => {
  const hasher = createPasswordHasher(seededRandom(1));

  test.each(foreignHashes)('takes what %s makes: %s', async (_madeBy, stored) => {
    const [right, wrong] = await Promise.all(
      [foreignPassword, 'gehaim 1'].map((given) => hasher.verifyPassword([stored], new Secret(given))),
    );
    expect([right, wrong]).toEqual([true, false]);
    const bent = stored.replace(/[A-Za-z0-9+/.](?=.{8}$)/, (letter) => (letter === 'A' ? 'B' : 'A'));
    expect(await hasher.verifyPassword([bent], new Secret(foreignPassword)), bent).toBe(false);
  });

  test('lets the event loop turn while bcrypt and SHA-crypt are computed', async () => {
    let turns = 0;
    let over = false;
    const turn = (): void => {
      turns += 1;
      if (!over) setImmediate(turn);
    };
    turn();
    const stored = '{CRYPT}$2b$10$sbtvbcqS8X8MSrlr1fpmROkaxrEa.4EHnYaOEbz8U.isWhhXnUhwy';
    expect(await hasher.verifyPassword([stored], new Secret(foreignPassword))).toBe(true);
    over = true;
    // On this thread it would be one turn.
    expect(turns).toBeGreaterThan(20);
  });

  test.each(foreign)('accepts the right password and no other for %s', async (stored, password) => {
    expect(await hasher.verifyPassword([stored], new Secret(password))).toBe(true);
    expect(await hasher.verifyPassword([stored], new Secret(`${password}x`))).toBe(false);
    expect(await hasher.verifyPassword([stored], new Secret(''))).toBe(false);
  });

  test('verifies what it made, and salts it', async () => {
    const first = await hasher.hashPassword(new Secret('pässwort'));
    const second = await hasher.hashPassword(new Secret('pässwort'));
    expect(first).toMatch(/^\{ARGON2\}\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    expect(first).not.toBe(second);
    expect(await hasher.verifyPassword(['{SHA}x', first], new Secret('pässwort'))).toBe(true);
    expect(await hasher.verifyPassword([first], new Secret('passwort'))).toBe(false);
  });

  test.each([
    '{FOO}secret',
    '{SSHA}',
    '{SSHA}!!!',
    '{PBKDF2-SHA512}99999999$c2FsdA$aaaaaaaaaaaaaaaaaaaaaaaaaaaa',
    '{PBKDF2-SHA512}x$y$z',
    '{ARGON2}$argon2id$v=19$m=99999999,t=2,p=1$aRghhrx6zUqTfNYrlLUS3Q$veMF/I+AfDQf3ydPnPfkOPMBzqb/XBGyI5YyHeHv9IQ',
    '{CRYPT}$6$rounds=999999999$salt$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1',
    '{CRYPT}ab1234567890.',
    '{CRYPT}$2b$31$sbtvbcqS8X8MSrlr1fpmROkaxrEa.4EHnYaOEbz8U.isWhhXnUhwy',
    '{CRYPT}$2x$06$sbtvbcqS8X8MSrlr1fpmROkaxrEa.4EHnYaOEbz8U.isWhhXnUhwy',
    '{CRYPT}$2b$06$short',
    '{BCRYPT}secret',
    '{MD5}',
    '{SMD5}GOn9dGpx/tmj31ORJ2hF5g==',
  ])('matches nothing against %s', async (stored) => {
    expect(await hasher.verifyPassword([stored], new Secret('secret'))).toBe(false);
    expect(await hasher.verifyPassword([stored], new Secret(stored))).toBe(false);
  });

  test('answers AUTH_BUSY once its queue is full, and works on afterwards', async () => {
    const small = createPasswordHasher(seededRandom(2), { runningMax: 1, waitingMax: 1 });
    const results = await Promise.allSettled([1, 2, 3].map(() => small.hashPassword(new Secret('a'))));
    expect(results.map((result) => (result.status === 'rejected' ? (result.reason as { code: string }).code : 'hashed'))).toEqual([
      'hashed',
      'hashed',
      'AUTH_BUSY',
    ]);
    expect(await small.verifyPassword(['a'], new Secret('a'))).toBe(true);
  });

  test.each([
    ['{FOO}secret', '{FOO}'],
    ['{crypt}$y$j9T$salt$hash', '{CRYPT}$y$'],
    ['{CRYPT}$1$salt$hash', '{CRYPT}$1$'],
    ['{CRYPT}ab1234567890.', '{CRYPT}'],
    ['{CRYPT}$6$salt$hash', undefined],
    ['{BCRYPT}$2b$06$short', undefined],
    ['{SSHA}abc', undefined],
    ['{ARGON2}x', undefined],
    ['{CLEARTEXT}x', undefined],
    ['secret', undefined],
  ])('tells an operator what of %s is not known: %s', (stored, unknown) => {
    expect(unknownSchemeOf(stored)).toBe(unknown);
  });

  test('tells a hashed value from one in clear', () => {
    expect(isHashed('{SSHA}abc')).toBe(true);
    expect(isHashed('{}abc')).toBe(false);
    expect(isHashed('secret{SSHA}')).toBe(false);
  });
});

describe('SCRAM keys beside a hash', () => {
  test('are made where they are wanted, of the same password', async () => {
    expect(await createPasswordHasher(seededRandom(5)).storedValues(new Secret('pencil'))).toHaveLength(1);
    const both = createPasswordHasher(seededRandom(5), { scramIterations: 4096 });
    const [hash, keys] = await both.storedValues(new Secret('pencil'));
    expect(hash).toMatch(/^\{ARGON2\}/);
    expect(keys).toMatch(/^\{SCRAM-SHA-256\}4096:/);
    for (const stored of [hash, keys] as string[]) {
      expect(await both.verifyPassword([stored], new Secret('pencil'))).toBe(true);
      expect(await both.verifyPassword([stored], new Secret('pen'))).toBe(false);
    }
  });
});
