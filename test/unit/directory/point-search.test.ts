import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { unlimited, type View } from '#directory/access/view.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import type { Refusal } from '#directory/schema/refusal.ts';
import type { Operation } from '#directory/server/operation.ts';
import { PointSearch } from '#directory/server/point-search.ts';
import { search } from '#directory/server/search.ts';
import { Tree } from '#directory/server/tree.ts';
import { EntryStore, rootId, type StoredEntry } from '#directory/store/entry-store.ts';
import { entryFunctions } from '#directory/tools/offline.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import { type Attribute, attribute, type LdapResponse, type SearchRequest, type SearchResultEntry } from '#protocol/ldap/messages.ts';
import { FakeClock } from '#test/fakes/clock.ts';

const clock = new FakeClock();
let store: EntryStore;
let tree: Tree;
let points: PointSearch;

function account(uid: string, ...more: Attribute[]): readonly Attribute[] {
  return [
    attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
    attribute('uid', uid),
    attribute('cn', `Account ${uid}`),
    attribute('sn', uid),
    attribute('mail', `${uid}@isp.example`),
    attribute('hostServer', 'west.isp.example'),
    ...more,
  ];
}

function add(parentId: number, rdn: string, attributes: readonly Attribute[]): void {
  const number = String(store.tally('entries') + 1).padStart(12, '0');
  store.add({ parentId, rdn, rdnNorm: rdn.toLowerCase(), uuid: `00000000-0000-4000-8000-${number}`, csn: `c${number}`, attributes });
}

beforeAll(async () => {
  store = new EntryStore(':memory:', entryFunctions());
  tree = new Tree({ store, schema: createMailSchema(), suffix: 'o=mail', clock, mode: 'master' });
  points = new PointSearch(tree);
  await store.write(() => {
    add(rootId, 'o=mail', [attribute('objectClass', 'organization'), attribute('o', 'mail')]);
    add(1, 'cn=isp.example', [attribute('objectClass', 'mailDomain'), attribute('cn', 'isp.example')]);
    for (const uid of ['ann', 'ben', 'żółw']) add(2, `uid=${uid}`, account(uid));
    // Two who share a name, one with an option and one with a long value.
    add(2, 'uid=cyd', [...account('cyd'), attribute('cn;lang-fr', 'Compte'), attribute('mailAlternateAddress', 'x@isp.example')]);
    add(2, 'uid=dan', account('dan', attribute('displayName', 'y'.repeat(300)), attribute('mailAlternateAddress', 'x@isp.example')));
  });
});
afterAll(() => store[Symbol.dispose]());

interface Asked {
  readonly filter: Filter;
  readonly attributes: readonly string[];
  readonly baseDn?: string;
  readonly scope?: SearchRequest['scope'];
  readonly sizeLimit?: number;
  readonly view?: View;
}

const equal = (name: string, value: string): Filter => ({ kind: 'equal', attribute: name, value: Buffer.from(value) });

function prepare(asked: Asked): { request: SearchRequest; operation: Operation; sent: string[] } {
  const sent: string[] = [];
  const request: SearchRequest = {
    type: 'searchRequest',
    baseDn: asked.baseDn ?? 'o=mail',
    scope: asked.scope ?? 'sub',
    derefAliases: 'never',
    sizeLimit: asked.sizeLimit ?? 0,
    timeLimitSeconds: 0,
    typesOnly: false,
    filter: asked.filter,
    attributes: asked.attributes,
  };
  const operation = {
    id: 7,
    who: { dn: 'cn=admin', rights: 'admin' },
    view: asked.view ?? unlimited,
    controls: [],
    isAborted: false,
    send: (operation: LdapResponse | SearchResultEntry) => sent.push(encodeMessage({ id: 7, operation, controls: [] }).toString('hex')),
    writable: () => undefined,
  } as unknown as Operation;
  return { request, operation, sent };
}

/** What the one and the other answer; of the first `undefined` when it leaves the search to the other. */
async function bothWays(asked: Asked): Promise<{ point: readonly string[] | undefined; whole: readonly string[] }> {
  const [one, other] = [prepare(asked), prepare(asked)];
  const isAnswered = points.answer(one.request, one.operation);
  await search(tree, clock, other.request, other.operation);
  return { point: isAnswered ? one.sent : undefined, whole: other.sent };
}

async function expectSame(asked: Asked, entries: number): Promise<void> {
  // The second time from what the first one left.
  for (let time = 0; time < 2; time += 1) {
    const { point, whole } = await bothWays(asked);
    expect(point).toEqual(whole);
    expect(point?.length).toBe(entries + 1);
  }
}

describe('a search that one key of the index answers', () => {
  test('gets the octets that every search gets', async () => {
    for (const attributes of [['hostServer'], ['HOSTSERVER'], ['mail', 'uid'], ['hostServer', 'description']]) {
      await expectSame({ filter: equal('mail', 'Ann@ISP.example'), attributes }, 1);
      await expectSame({ filter: equal('uid', 'ben'), attributes, baseDn: 'cn=isp.example,o=mail', scope: 'one' }, 1);
      await expectSame({ filter: equal('uid', 'ben'), attributes, scope: 'one' }, 0);
      await expectSame({ filter: equal('uid', 'żółw'), attributes }, 1);
      await expectSame({ filter: equal('mail', 'nobody@isp.example'), attributes }, 0);
      await expectSame({ filter: equal('mailAlternateAddress', 'x@isp.example'), attributes }, 2);
    }
  });

  test('sees what was changed, renamed and removed since', async () => {
    const asked = { filter: equal('mail', 'ben@isp.example'), attributes: ['hostServer'] };
    await expectSame(asked, 1);
    const before = store.child(2, 'uid=ben') as StoredEntry;
    await store.write(() =>
      store.replace('rename', before, {
        parentId: 2,
        uuid: before.uuid,
        rdn: 'uid=benny',
        rdnNorm: 'uid=benny',
        csn: 'd',
        attributes: before.attributes.map((one) => (one.type === 'hostServer' ? attribute('hostServer', 'east.isp.example') : one)),
      }),
    );
    const { point } = await bothWays(asked);
    expect(Buffer.from(point?.[0] ?? '', 'hex').toString('latin1')).toMatch(/uid=benny,cn=isp\.example,o=mail.*east\.isp\.example/s);
    await expectSame(asked, 1);
    await store.write(() => store.remove(store.child(2, 'uid=benny') as StoredEntry, 'e'));
    await expectSame(asked, 0);
  });

  test('is left to the whole search when anything depends on more than the key', async () => {
    const of = async (asked: Partial<Asked>) => (await bothWays({ filter: equal('uid', 'ann'), attributes: ['uid'], ...asked })).point;
    expect(await of({ attributes: [] })).toBeUndefined();
    expect(await of({ attributes: ['*'] })).toBeUndefined();
    // cn has subtypes with options here; names and the like are asked for by their superior.
    expect(await of({ attributes: ['name'] })).toBeUndefined();
    expect(await of({ attributes: ['entryUUID'] })).toBeUndefined();
    expect(await of({ attributes: ['cn;lang-fr'] })).toBeUndefined();
    expect(await of({ filter: { kind: 'present', attribute: 'uid' } })).toBeUndefined();
    expect(await of({ filter: { kind: 'not', filter: equal('uid', 'ann') } })).toBeUndefined();
    // Longer than what the index keeps of a value.
    expect(await of({ filter: equal('displayName', 'y'.repeat(300)) })).toBeUndefined();
    expect(await of({ filter: equal('sn', 'ann') })).toBeUndefined();
    expect(await of({ scope: 'base', baseDn: 'uid=ann,cn=isp.example,o=mail' })).toBeUndefined();
    const shy: View = { decide: (_privilege, key) => (key === 'uid' ? () => true : true) };
    expect(await of({ view: shy })).toBeUndefined();
    expect(await of({ view: shy, filter: equal('mail', 'ann@isp.example'), attributes: ['hostServer'] })).toBeDefined();
    const one = prepare({ filter: equal('mailAlternateAddress', 'x@isp.example'), attributes: ['uid'], sizeLimit: 1 });
    expect(points.answer(one.request, one.operation)).toBe(false);
    const lost = prepare({ filter: equal('uid', 'ann'), attributes: ['uid'], baseDn: 'o=elsewhere' });
    expect(points.answer(lost.request, lost.operation)).toBe(false);
    expect([...one.sent, ...lost.sent]).toEqual([]);
  });
});

describe('a search for one entry by its name', () => {
  const byName = { filter: { kind: 'present', attribute: 'objectClass' }, scope: 'base' } as const;

  test('gets the octets that every search gets', async () => {
    for (const attributes of [['1.1'], ['hostServer'], ['mail', 'uid'], ['hostServer', 'description']]) {
      for (const baseDn of ['o=mail', 'cn=isp.example,o=mail', 'UID=Ann, cn=isp.example,o=mail', 'uid=żółw,cn=isp.example,o=mail'])
        await expectSame({ ...byName, attributes, baseDn }, 1);
    }
  });

  test('is told of the nearest entry above a name that nobody has', async () => {
    for (const baseDn of ['uid=nobody,cn=isp.example,o=mail', 'uid=nobody,cn=nowhere,o=mail', 'cn=a,uid=ann,cn=isp.example,o=mail']) {
      const asked = { ...byName, attributes: ['1.1'], baseDn };
      const [one, other] = [prepare(asked), prepare(asked)];
      expect(points.answer(one.request, one.operation)).toBe(true);
      const refusal = await search(tree, clock, other.request, other.operation).catch((error: unknown) => error as Refusal);
      const { resultCode, matchedDn, message } = refusal as Refusal;
      other.operation.send({ type: 'searchResultDone', resultCode, matchedDn, diagnosticMessage: message });
      expect(one.sent).toEqual(other.sent);
    }
  });

  test('is left to the whole search when anything depends on more than the name', () => {
    const shy: View = { decide: (privilege) => (privilege === 'disclose' ? () => true : true) };
    const ann = { ...byName, attributes: ['uid'], baseDn: 'uid=ann,cn=isp.example,o=mail' };
    const cases: readonly Asked[] = [
      { ...ann, baseDn: '' },
      { ...ann, baseDn: 'cn=monitor' },
      { ...ann, attributes: [] },
      { ...ann, attributes: ['1.1', 'uid'] },
      { ...ann, filter: { kind: 'present', attribute: 'uid' } },
      { ...ann, view: shy },
    ];
    for (const asked of cases) {
      const { request, operation, sent } = prepare(asked);
      expect(points.answer(request, operation)).toBe(false);
      expect(sent).toEqual([]);
    }
  });
});
