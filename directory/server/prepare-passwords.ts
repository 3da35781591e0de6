/**
 * `userPassword` values in clear become hashes before they reach a transaction; hashing takes its time on other threads. Values that are
 * hashed already (`{SCHEME}…`) are stored as given.
 */
import { isHashed, type PasswordHasher } from '#common/passwords/password-hasher.ts';
import { Secret } from '#common/secret.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';

/** Whether there is anything to hash. */
export function hasClearPassword(attributes: readonly Attribute[]): boolean {
  return attributes.some((one) => isPassword(one) && one.values.some((value) => !isHashed(value.toString('utf8'))));
}

/** The same attributes with passwords hashed. */
export async function withHashedPasswords(hasher: PasswordHasher, attributes: readonly Attribute[]): Promise<Attribute[]> {
  return Promise.all(
    attributes.map(async (one) => {
      if (!isPassword(one)) return one;
      const values: Buffer[] = [];
      for (const value of one.values) {
        const text = value.toString('utf8');
        if (isHashed(text)) values.push(value);
        else values.push(...(await hasher.storedValues(new Secret(text))).map((made) => Buffer.from(made)));
      }
      return { type: one.type, values };
    }),
  );
}

function isPassword(one: Attribute): boolean {
  const folded = one.type.toLowerCase();
  return folded === 'userpassword' || folded === '2.5.4.35';
}
