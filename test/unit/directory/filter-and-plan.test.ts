import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createMailSchema, indexKeys } from '#directory/schema/mail-schema.ts';
import { planCandidates } from '#directory/server/candidates.ts';
import { compileFilter } from '#directory/server/filter-match.ts';
import { EntryStore, rootId, type StoredEntry } from '#directory/store/entry-store.ts';
import { type Filter, filterFromText } from '#protocol/ldap/filter.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';

const schema = createMailSchema();
const store = new EntryStore(':memory:', { keysOf: (attributes) => indexKeys(schema, attributes), talliesOf: () => [] });
let root: StoredEntry;
const words = ['alice', 'Alicia', 'bob', 'b', 'al ice', 'ÉMILE', '42', ''];

beforeAll(async () => {
  await store.write(() => {
    root = store.add({ parentId: rootId, rdn: 'o=mail', rdnNorm: 'o=mail', uuid: uuid(0), csn: 'c', attributes: [attribute('o', 'mail')] });
    for (let i = 1; i <= 60; i += 1) {
      const pick = (salt: number): string => words[(i * salt) % (words.length - 1)] as string;
      const attributes: Attribute[] = [
        attribute('objectClass', i % 7 === 0 ? 'mailDomain' : 'inetOrgPerson'),
        attribute('cn', pick(1), `${pick(3)} ${i}`),
        attribute('uid', `${pick(5)}${i % 9}`),
        ...(i % 3 === 0 ? [attribute('mail', `${pick(2)}@isp.example`)] : []),
        ...(i % 4 === 0 ? [attribute('mailQuota', String(i * 10 - 200))] : []),
      ];
      store.add({ parentId: root.id, rdn: `cn=${i}`, rdnNorm: `cn=${i}`, uuid: uuid(i), csn: 'c', attributes });
    }
  });
});
afterAll(() => store[Symbol.dispose]());

function uuid(i: number): string {
  return `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`;
}

const value = fc.constantFrom(...words, ...words.map((word) => `${word}3`), 'alice 1', 'b@isp.example').map((text) => Buffer.from(text));
const name = fc.constantFrom('cn', 'uid', 'mail', 'objectClass', 'mailQuota', 'nosuch', 'sn', 'name');
const leaf: fc.Arbitrary<Filter> = fc.oneof(
  fc.record({ kind: fc.constantFrom('equal', 'greaterOrEqual', 'lessOrEqual', 'approx'), attribute: name, value }) as fc.Arbitrary<Filter>,
  fc.record({ kind: fc.constant('present'), attribute: name }) as fc.Arbitrary<Filter>,
  fc.record({
    kind: fc.constant('equal'),
    attribute: fc.constant('objectClass'),
    value: fc.constantFrom('mailDomain', 'person', 'top').map((text) => Buffer.from(text)),
  }) as fc.Arbitrary<Filter>,
  fc.record({
    kind: fc.constant('substrings'),
    attribute: name,
    initial: fc.option(value, { nil: undefined }),
    any: fc.array(value, { maxLength: 2 }),
    final: fc.option(value, { nil: undefined }),
  }) as fc.Arbitrary<Filter>,
);
const filters = fc.letrec<{ tree: Filter }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 3 },
    leaf,
    fc.record({ kind: fc.constantFrom('and', 'or'), filters: fc.array(tie('tree'), { maxLength: 3 }) }) as fc.Arbitrary<Filter>,
    fc.record({ kind: fc.constant('not'), filter: tie('tree') }) as fc.Arbitrary<Filter>,
  ),
})).tree;

describe('candidates from the index', () => {
  test('hold every entry that the filter matches, in rising order', () => {
    fc.assert(
      fc.property(filters, (filter) => {
        const matches = compileFilter(schema, filter, () => true);
        const all = store.idsAfter(0, 1000);
        const wanted = all.filter((id) => matches((store.byId(id) as StoredEntry).attributes) === true);
        const plan = planCandidates(store, schema, root, 'sub', filter);
        const found: number[] = [];
        for (let page = plan.next(0); page.length > 0; page = plan.next(found.at(-1) as number)) found.push(...page);
        expect([...found].sort((a, b) => a - b)).toEqual(found);
        expect(found.filter((id) => wanted.includes(id))).toEqual(wanted);
      }),
      { numRuns: 400 },
    );
  });

  test.each([
    ['(uid=alice1)', 'index'],
    ['(mail=alice@isp.example)', 'index'],
    ['(&(objectClass=*)(mail=a@b))', 'index'],
    ['(|(mail=a@b)(mailAlternateAddress=a@b))', 'index'],
    ['(objectClass=mailDomain)', 'index'],
    ['(mail=ali*)', 'index'],
    [`(entryUUID=${uuid(3)})`, 'index'],
    [`(&(objectClass=person)(|(entryUUID=${uuid(3)})(nsUniqueId=x)))`, 'index'],
    ['(objectClass=person)', 'scan'],
    ['(|(mail=a@b)(description=x))', 'scan'],
    ['(!(mail=a@b))', 'scan'],
    ['(mail=*ali)', 'scan'],
  ])('for %s come by %s', (text, by) => {
    expect(planCandidates(store, schema, root, 'sub', filterFromText(text)).by).toBe(by);
  });
});

describe('filters', () => {
  const entry = [
    attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
    attribute('cn', 'Émile  Zola', 'star*'),
    attribute('uid', 'emile'),
    attribute('mail', 'Emile@ISP.example'),
    attribute('mailQuota', '-5'),
    attribute('telephoneNumber', '+49 30-123'),
    attribute('createTimestamp', '20260101120000Z'),
    attribute('userPassword', '{SSHA}x'),
    attribute('entryDN', 'uid=emile,cn=isp.example+ou=People,o=mail'),
  ];
  test.each([
    ['(cn=émile zola)', true],
    ['(cn=ÉMILE ZOLA )', true],
    ['(cn=emile)', false],
    ['(cn=star\\2a)', true],
    ['(cn=émile*zola)', true],
    ['(cn=*le z*)', true],
    ['(cn=le*)', false],
    ['(mail=emile@isp.EXAMPLE)', true],
    ['(objectClass=top)', true],
    ['(objectClass=person)', true],
    ['(objectClass=mailDomain)', false],
    ['(objectClass=nonsense)', undefined],
    ['(name=emile)', false],
    ['(name=star\\2a)', true],
    ['(mailQuota<=-4)', true],
    ['(mailQuota>=-4)', false],
    ['(mailQuota<=-40)', false],
    ['(mailQuota<=x)', undefined],
    ['(telephoneNumber=+493 0123)', true],
    ['(createTimestamp>=20260101115959Z)', true],
    ['(createTimestamp<=20260101120000+0100)', false],
    ['(nosuch=x)', undefined],
    ['(!(nosuch=x))', undefined],
    ['(|(nosuch=x)(uid=emile))', true],
    ['(&)', true],
    ['(|)', false],
    ['(uid:caseExactMatch:=emile)', true],
    ['(uid:caseExactMatch:=Emile)', false],
    ['(ou:dn:=people)', true],
    ['(ou:dn:caseExactMatch:=people)', false],
    ['(ou:=people)', false],
    ['(:dn:caseIgnoreMatch:=MAIL)', true],
    ['(userPassword=*)', undefined],
    ['(!(userPassword=*))', undefined],
  ])('%s is %s', (text, expected) => {
    expect(compileFilter(schema, filterFromText(text), (key) => key !== 'userpassword')(entry)).toBe(expected);
  });
});
