/** Searches for what was created or changed since a time: every entry that matches is among the candidates, whatever was written meanwhile. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { trimJournal } from '#directory/changelog/journal-care.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { type Candidates, planCandidates } from '#directory/server/candidates.ts';
import { compileFilter } from '#directory/server/filter-match.ts';
import { Tree } from '#directory/server/tree.ts';
import { EntryStore, rootId, type StoredEntry } from '#directory/store/entry-store.ts';
import { entryFunctions } from '#directory/tools/offline.ts';
import { searchOffline } from '#directory/tools/search.ts';
import { filterFromText } from '#protocol/ldap/filter.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';
import { FakeClock } from '#test/fakes/clock.ts';

const schema = createMailSchema();
const goOn = (): Promise<boolean> => Promise.resolve(true);
let made = 0;

function nextCsn(): string {
  made += 1;
  return `20260101000000.${String(made).padStart(6, '0')}Z#000000#000#000000`;
}

function content(parentId: number, uid: string, created: string, changed: string, ...more: Attribute[]) {
  made += 1;
  return {
    parentId,
    rdn: `uid=${uid}`,
    rdnNorm: `uid=${uid}`,
    uuid: `00000000-0000-4000-8000-${String(made).padStart(12, '0')}`,
    csn: nextCsn(),
    attributes: [attribute('uid', uid), attribute('createTimestamp', created), attribute('modifyTimestamp', changed), ...more],
  };
}

async function filled(count: number): Promise<EntryStore> {
  const store = new EntryStore(':memory:', entryFunctions(schema));
  await store.write(() => {
    const root = { ...content(rootId, 'x', '20260101000000Z', '20260101000000Z'), rdn: 'o=mail', rdnNorm: 'o=mail' };
    store.add(root);
    for (let i = 0; i < count; i += 1) store.add(content(1, `u${i}`, '20260101000000Z', '20260102000000Z'));
    store.setMeta('floorCsn', nextCsn());
  });
  return store;
}

function plan(store: EntryStore, text: string): Candidates {
  return planCandidates(store, schema, store.byId(1) as StoredEntry, 'sub', filterFromText(text));
}

async function idsOf(candidates: Candidates): Promise<number[]> {
  expect((await candidates.prepare?.(goOn)) ?? true).toBe(true);
  const ids: number[] = [];
  for (let page = candidates.next(0); page.length > 0; page = candidates.next(ids.at(-1) as number)) ids.push(...page);
  return ids;
}

function matching(store: EntryStore, text: string): number[] {
  const matches = compileFilter(schema, filterFromText(text), () => true);
  return store.idsAfter(0, 100_000).filter((id) => matches((store.byId(id) as StoredEntry).attributes) === true);
}

const time = fc.constantFrom(
  ...['19600101000000Z', '20260101000000Z', '20260228235959Z', '20260301000000Z', '20260301000000.5Z', '20260301000001Z'],
  ...['20260301010000+0100', '2026030100Z', '20261231235960Z', '21500101000000Z', '99991231235959Z'],
);

describe('the order of times', () => {
  test('gives every entry that was created or changed since, after any writes', async () => {
    const writes = fc.array(
      fc.record({ kind: fc.constantFrom('add', 'modify', 'remove', 'refused'), created: time, changed: time, at: fc.nat({ max: 9 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(writes, time), { minLength: 1, maxLength: 4 }), async (rounds) => {
        using store = await filled(3);
        for (const [round, since] of rounds) {
          for (const { kind, created, changed, at } of round) {
            await store
              .write(() => {
                const ids = store.idsAfter(1, 100);
                const id = ids[at % Math.max(1, ids.length)];
                const before = id === undefined ? undefined : store.byId(id);
                const entry = content(1, `n${made}`, created, changed);
                if (kind === 'add' || before === undefined) store.add(entry);
                else if (kind === 'remove') store.remove(before, nextCsn());
                else store.replace('modify', before, { ...entry, rdn: before.rdn, rdnNorm: before.rdnNorm, uuid: before.uuid });
                if (kind === 'refused') throw new Error('refused after it had written');
              })
              .catch(() => {});
          }
          for (const text of [
            `(modifyTimestamp>=${since})`,
            `(createTimestamp>=${since})`,
            `(|(modifyTimestamp>=${since})(createTimestamp>=${since}))`,
            `(&(uid=*)(modifyTimestamp>=${since}))`,
            `(modifyTimestamp<=${since})`,
            `(|(createTimestamp<=${since})(uid=u1))`,
            `(&(createTimestamp>=20260228235959Z)(modifyTimestamp<=${since})(modifyTimestamp>=20260101000000Z))`,
          ]) {
            const found = await idsOf(plan(store, text));
            expect([...found].sort((a, b) => a - b)).toEqual(found);
            expect(found).toEqual(expect.arrayContaining(matching(store, text)));
          }
          expect(store.settled()).toBeUndefined();
        }
      }),
      { numRuns: 60 },
    );
  });

  test('is learnt by the first who asks, in pieces, and goes on where one left who did not wait', async () => {
    using store = await filled(2500);
    await store.write(() => store.add(content(1, 'late', '20260201000000Z', '20260201000000Z')));
    const text = '(modifyTimestamp>=20260115000000Z)';
    const impatient = plan(store, text);
    expect([impatient.by, impatient.on]).toEqual(['values', 'times']);
    expect(await impatient.prepare?.(() => Promise.resolve(false))).toBe(false);
    let pauses = 0;
    const patient = plan(store, text);
    await patient.prepare?.(() => {
      pauses += 1;
      return goOn();
    });
    expect(pauses).toBe(2);
    expect(patient.next(0)).toEqual([2502]);
    // From then on it is at hand, and what is written is found without reading all anew.
    await store.write(() => store.add(content(1, 'later', '20260202000000Z', '20260202000000Z')));
    const known = plan(store, text);
    expect([known.by, known.on, known.next(0)]).toEqual(['index', 'modifytimestamp ordering', [2502, 2503]]);
    expect(store.times?.bytes).toBeGreaterThan(0);
  });

  test('is learnt anew when the journal was trimmed beyond what it knew', async () => {
    using store = await filled(3);
    const tree = new Tree({ store, schema, suffix: 'o=mail', clock: new FakeClock(), mode: 'master' });
    const text = '(modifyTimestamp>=20260115000000Z)';
    expect(await idsOf(plan(store, text))).toEqual([]);
    await store.write(() => {
      for (let i = 0; i < 5; i += 1) store.add(content(1, `late${i}`, '20260201000000Z', '20260201000000Z'));
    });
    await trimJournal(tree, 1);
    expect(plan(store, text).by).toBe('values');
    expect(await idsOf(plan(store, text))).toEqual([5, 6, 7, 8, 9]);
    expect(plan(store, text).by).toBe('index');
  });

  test('is not asked for on a replica that is not filled, whose journal does not hold every change yet', async () => {
    using store = new EntryStore(':memory:', entryFunctions(schema));
    await store.write(() =>
      store.add({ ...content(rootId, 'x', '20260101000000Z', '20260101000000Z'), rdn: 'o=mail', rdnNorm: 'o=mail' }, false),
    );
    expect(plan(store, '(modifyTimestamp>=20260101000000Z)').by).toBe('scan');
  });
});

test('what was changed since a CSN holds the change with that very CSN', async () => {
  using store = await filled(3);
  const added = await store.write(() => store.add(content(1, 'late', '20260201000000Z', '20260201000000Z')));
  const exact = plan(store, `(entryCSN>=${added.csn})`);
  expect([exact.by, exact.next(0)]).toEqual(['index', [added.id]]);
  // What is no CSN has no place in their order.
  expect(plan(store, '(entryCSN>=2026)').by).toBe('scan');
});

describe('changes up to a CSN, or between two', () => {
  test('are found by the order of times, seconds being looked at entry by entry', async () => {
    using store = await filled(300);
    await store.write(() => {
      for (let i = 0; i < 5; i += 1) {
        const csn = `2027010100000${i}.000000Z#000000#000#000000`;
        store.add({ ...content(1, `late${i}`, '20260101000000Z', '20260101000000Z'), csn });
      }
    });
    const csn = (second: number): string => `2027010100000${second}.000000Z#000000#000#000000`;
    const between = `(&(entryCSN>=${csn(1)})(entryCSN<=${csn(2)}))`;
    const until = `(&(uid=late*)(entryCSN<=${csn(1)}))`;
    expect((await idsOf(plan(store, `(entryCSN<=${csn(0)})`))).length).toBe(302);
    expect(plan(store, between).on).toBe('entrycsn ordering');
    expect(await idsOf(plan(store, between))).toEqual([303, 304]);
    expect(await idsOf(plan(store, until))).toEqual(expect.arrayContaining([302, 303]));
  });

  test('are looked for in the entries themselves where a first fill brought later ones than it is whole as of', async () => {
    using store = new EntryStore(':memory:', entryFunctions(schema));
    const cookie = '20270101000000.000000Z#000000#000#000000';
    const later = '20270101000001.000000Z#000000#000#000000';
    await store.write(() => {
      store.add({ ...content(rootId, 'x', '20260101000000Z', '20260101000000Z'), rdn: 'o=mail', rdnNorm: 'o=mail' }, false);
      store.add({ ...content(1, 'moved', '20260101000000Z', '20270101000001Z'), csn: later }, false);
      store.setMeta('floorCsn', cookie);
    });
    expect(await idsOf(plan(store, `(entryCSN>=${cookie})`))).toEqual([2]);
    expect(await idsOf(plan(store, `(entryCSN>=${later})`))).toEqual([2]);
    const evenLater = '20270101000002.000000Z#000000#000#000000';
    await store.write(() => store.add({ ...content(1, 'new', '20270101000002Z', '20270101000002Z'), csn: evenLater }));
    expect(await idsOf(plan(store, `(entryCSN>=${evenLater})`))).toEqual([3]);
  });

  test('are preferred to a long list of an equality', async () => {
    using store = await filled(0);
    await store.write(() => {
      for (let i = 0; i < 600; i += 1)
        store.add(content(1, `u${i}`, '20260101000000Z', '20260102000000Z', attribute('hostServer', 'east')));
      store.add(content(1, 'late', '20260201000000Z', '20260201000000Z', attribute('hostServer', 'east')));
    });
    expect(await idsOf(plan(store, '(&(hostServer=east)(modifyTimestamp>=20260115000000Z))'))).toEqual([602]);
  });
});

test('a search on files finds what has to be prepared: pieces of values, and what was changed since', async () => {
  using store = await filled(3);
  await store.write(() => store.add(content(1, 'late', '20260201000000Z', '20260201000000Z', attribute('mail', 'late@isp.example'))));
  const tree = new Tree({ store, schema, suffix: 'o=mail', clock: new FakeClock(), mode: 'master' });
  for (const text of ['(mail=*@isp*)', '(modifyTimestamp>=20260115000000Z)']) {
    const found: string[] = [];
    for await (const { dn } of searchOffline(tree, 'o=mail', filterFromText(text), ['uid'])) found.push(dn);
    expect(found).toEqual(['uid=late,o=mail']);
  }
});
