import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeBody, encodeBody } from '#directory/store/entry-body.ts';
import { attribute } from '#protocol/ldap/messages.ts';

const types = fc.oneof(
  fc.constantFrom('objectClass', 'mail', 'modifiersName', 'jpegPhoto', 'cn;lang-de'),
  fc.string({ minLength: 1, maxLength: 200 }),
);
const own = fc.array(
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  { minLength: 1, maxLength: 5 },
);
const common = fc.constantFrom('inetOrgPerson', 'inetOrgPerson mailAccount', 'mailAccount inetOrgPerson', 'active');
const values = fc.oneof(
  own,
  common.map((list) => list.split(' ').map((value) => Buffer.from(value))),
);

test('an entry comes out of its octets as it went in, whatever its attributes', () => {
  fc.assert(
    fc.property(fc.array(fc.record({ type: types, values }), { maxLength: 80 }), (attributes) => {
      expect(decodeBody(encodeBody(attributes))).toEqual(attributes);
    }),
    { numRuns: 200 },
  );
});

test('values that an entry holds twice are stored once', () => {
  const name = 'cn=a-long-name-of-an-administrator,ou=services,o=mail';
  const entry = [attribute('creatorsName', name), attribute('modifiersName', name)];
  expect(encodeBody(entry).length).toBeLessThan(name.length + 10);
  expect(decodeBody(encodeBody(entry))).toEqual(entry);
});
