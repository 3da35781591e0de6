import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
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
    store.setMeta('floorCsn', csn(0));
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
      store.add({ parentId: root.id, rdn: `cn=${i}`, rdnNorm: `cn=${i}`, uuid: uuid(i), csn: csn(i), attributes });
    }
  });
});
afterAll(() => store[Symbol.dispose]());

function csn(i: number): string {
  return `20260101000000.${String(i).padStart(6, '0')}Z#000000#000#000000`;
}

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
  const goOn = (): Promise<boolean> => Promise.resolve(true);

  test('hold every entry that the filter matches, in rising order', async () => {
    await fc.assert(
      fc.asyncProperty(filters, async (filter) => {
        const matches = compileFilter(schema, filter, () => true);
        const all = store.idsAfter(0, 1000);
        const wanted = all.filter((id) => matches((store.byId(id) as StoredEntry).attributes) === true);
        const plan = planCandidates(store, schema, root, 'sub', filter);
        const found: number[] = [];
        expect((await plan.prepare?.(goOn)) ?? true).toBe(true);
        for (let page = plan.next(0); page.length > 0; page = plan.next(found.at(-1) as number)) found.push(...page);
        expect([...found].sort((a, b) => a - b)).toEqual(found);
        expect(found.filter((id) => wanted.includes(id))).toEqual(wanted);
      }),
      { numRuns: 400 },
    );
  });

  test.each([
    ['(uid=alice1)', 'index', 'uid equality'],
    ['(mail=alice@isp.example)', 'index', 'mail equality'],
    ['(&(objectClass=*)(mail=a@b))', 'index', 'mail equality'],
    ['(|(mail=a@b)(mailAlternateAddress=a@b))', 'index', 'mail equality or mailalternateaddress equality'],
    ['(objectClass=mailDomain)', 'index', 'objectclass equality'],
    ['(mail=ali*)', 'index', 'mail substring'],
    ['(mail=ali*x*)', 'index', 'mail substring'],
    ['(mail=*)', 'index', 'mail presence'],
    ['(mailAlternateAddress=*)', 'index', 'mailalternateaddress presence'],
    [`(entryCSN>=${csn(58)})`, 'index', 'entrycsn ordering'],
    [`(entryUUID=${uuid(3)})`, 'index', 'entryuuid equality'],
    [`(&(objectClass=person)(|(entryUUID=${uuid(3)})(nsUniqueId=x)))`, 'index', 'entryuuid equality or nothing'],
    // Of an AND the part with the fewest entries, wherever it stands.
    ['(&(mail=*)(cn=alice)(uid=alice1))', 'index', 'uid equality'],
    [`(&(mail=*)(cn=alice)(entryCSN>=${csn(59)}))`, 'index', 'entrycsn ordering'],
    ['(&(|(mail=*)(uid=*))(cn=*))', 'index', 'mail presence or uid presence'],
    ['(mail=*lic*)', 'values', 'mail substring'],
    ['(&(description=x)(mail=*@isp.example))', 'values', 'mail substring'],
    ['(objectClass=person)', 'scan', undefined],
    ['(|(mail=a@b)(description=x))', 'scan', undefined],
    ['(|(mail=a@b)(mail=*a*))', 'scan', undefined],
    ['(!(mail=a@b))', 'scan', undefined],
    // Changes up to the floor may have left the journal.
    [`(entryCSN>=${csn(0)})`, 'scan', undefined],
  ])('for %s come by %s on %s', (text, by, on) => {
    const plan = planCandidates(store, schema, root, 'sub', filterFromText(text));
    expect([plan.by, plan.on]).toEqual([by, on]);
  });

  test('out of the values of an index are those that hold the piece, also where the index cuts them, and none when nobody waits any more', async () => {
    const wide = new EntryStore(':memory:', { keysOf: (attributes) => indexKeys(schema, attributes), talliesOf: () => [] });
    using _wide = wide;
    const long = 'x'.repeat(200);
    await wide.write(() => {
      for (const [i, mail] of ['anna@a.example', `${long}@b.example`, 'hannah@c.example', 'bob@d.example'].entries()) {
        wide.add({
          parentId: rootId,
          rdn: `cn=${i}`,
          rdnNorm: `cn=${i}`,
          uuid: uuid(i),
          csn: csn(i),
          attributes: [attribute('mail', mail)],
        });
      }
    });
    const base = wide.byId(1) as StoredEntry;
    const plan = planCandidates(wide, schema, base, 'sub', filterFromText('(mail=*nna*)'));
    expect(await plan.prepare?.(goOn)).toBe(true);
    expect(plan.next(0)).toEqual([1, 2, 3]);
    expect(plan.next(2)).toEqual([3]);
    const given = planCandidates(wide, schema, base, 'sub', filterFromText('(mail=*nna*)'));
    expect(await given.prepare?.(() => Promise.resolve(false))).toBe(false);
  });
});

describe('planning', () => {
  test('reads no more for a filter of thousands of parts than for a few, and the rest is looked at entry by entry', async () => {
    using many = new EntryStore(':memory:', { keysOf: (attributes) => indexKeys(schema, attributes), talliesOf: () => [] });
    await many.write(() => {
      for (let i = 0; i < 16_000; i += 1) {
        many.add({
          parentId: rootId,
          rdn: `uid=k${i}`,
          rdnNorm: `uid=k${i}`,
          uuid: uuid(i),
          csn: csn(i),
          attributes: [attribute('uid', `k${i}`)],
        });
      }
    });
    const base = many.byId(1) as StoredEntry;
    const reads = vi.spyOn(many, 'idsWithPrefix');
    const part = filterFromText('(uid=k*)');
    const either: Filter = { kind: 'or', filters: [part, filterFromText('(uid=b*)')] };
    for (const filters of [Array.from({ length: 4000 }, () => part), Array.from({ length: 1000 }, () => either)]) {
      reads.mockClear();
      const plan = planCandidates(many, schema, base, 'sub', { kind: 'and', filters });
      expect(plan.by).toBe('index');
      expect(plan.next(0).length).toBe(256);
      expect(reads.mock.calls.length).toBeLessThan(20);
    }
    reads.mockClear();
    // The index tells of all parts of an OR or of none.
    expect(planCandidates(many, schema, base, 'sub', { kind: 'or', filters: Array.from({ length: 4000 }, () => part) }).by).toBe('scan');
    expect(reads.mock.calls.length).toBeLessThan(20);
  });
});

describe('filters', () => {
  test('prepare a long value once for each rule, however often they ask about it, and anew for the next entry', () => {
    const own = createMailSchema();
    onTestFinished(() => {
      vi.restoreAllMocks();
    });
    const prepared: Buffer[] = [];
    for (const rule of own.matchingRules) {
      const key = rule.key.bind(rule);
      vi.spyOn(rule, 'key').mockImplementation((value) => {
        if (value.length > 1000) prepared.push(value);
        return key(value);
      });
    }
    const parts = Array.from({ length: 500 }, (_, i) => `(description=*n${i}x*)(description=n${i})(!(description=*Long*))`);
    const matches = compileFilter(own, filterFromText(`(|${parts.join('')}(description=* tail))`), () => true);
    const entry = (end: string): Attribute[] => [
      attribute('objectClass', 'person'),
      attribute('description', `Long ${'text '.repeat(400)}${end}`),
    ];
    const [first, second] = [entry('tail'), entry('head')] as const;
    expect([matches(first), matches(second), matches(first)]).toEqual([true, false, true]);
    const looks = (entryOf: readonly Attribute[]): number => prepared.filter((value) => value === entryOf[1]?.values[0]).length;
    // By caseIgnoreMatch and by caseIgnoreSubstringsMatch; the first entry was looked at twice.
    expect([looks(first), looks(second)]).toEqual([4, 2]);
  });

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
