/** Searches for pieces of values by an index of them: whatever matches is among the candidates, and the index agrees with the entries. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { createMailSchema, pieceAttributes } from '#directory/schema/mail-schema.ts';
import { type Candidates, planCandidates } from '#directory/server/candidates.ts';
import { compileFilter } from '#directory/server/filter-match.ts';
import { encodeBody } from '#directory/store/entry-body.ts';
import { EntryStore, rootId, type StoredEntry } from '#directory/store/entry-store.ts';
import { rebuildIndex, verifyDatabase } from '#directory/store/integrity.ts';
import { uuidToBytes } from '#directory/store/uuid.ts';
import { databaseFile, entryFunctions } from '#directory/tools/offline.ts';
import { equal, type Filter, filterFromText } from '#protocol/ldap/filter.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { identityDn, startTestDirectory } from './test-directory.ts';

const schema = createMailSchema();
const functions = entryFunctions(schema);
const folders: string[] = [];
let made = 0;

afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

async function freshPath(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-pieces-'));
  folders.push(folder);
  return join(folder, databaseFile);
}

function content(parentId: number, values: readonly string[], type = 'description') {
  made += 1;
  return {
    parentId,
    rdn: `uid=u${made}`,
    rdnNorm: `uid=u${made}`,
    uuid: `00000000-0000-4000-8000-${String(made).padStart(12, '0')}`,
    csn: `20260101000000.${String(made).padStart(6, '0')}Z#000000#000#000000`,
    attributes: [attribute('uid', `u${made}`), ...(values.length === 0 ? [] : [attribute(type, ...values)])],
  };
}

async function withRoot(path: string): Promise<EntryStore> {
  const store = new EntryStore(path, functions);
  await store.write(() => store.add({ ...content(rootId, []), rdn: 'o=mail', rdnNorm: 'o=mail' }));
  return store;
}

async function fill(store: EntryStore, atOnce = 3): Promise<void> {
  for (let next = store.pieces.unfilled; next !== undefined; next = store.pieces.unfilled) {
    const attribute = next;
    await store.write(() => store.fillPieces(attribute, atOnce));
  }
}

function plan(store: EntryStore, filter: Filter): Candidates {
  return planCandidates(store, schema, store.byId(1) as StoredEntry, 'sub', filter);
}

function idsOf(candidates: Candidates): number[] {
  const ids: number[] = [];
  for (let page = candidates.next(0); page.length > 0; page = candidates.next(ids.at(-1) as number)) ids.push(...page);
  return ids;
}

function matching(store: EntryStore, filter: Filter): number[] {
  const matches = compileFilter(schema, filter, () => true);
  return store.idsAfter(0, 100_000).filter((id) => matches((store.byId(id) as StoredEntry).attributes) === true);
}

function problemsOf(path: string): string[] {
  const problems: string[] = [];
  verifyDatabase(path, functions, { problem: (text) => problems.push(text), progress: () => {} });
  return problems;
}

// Few characters, so that pieces meet values: folded, composed, ignored and unprintable ones among them.
const character = fc.constantFrom('a', 'B', 'c', ' ', 'é', 'e\u0301', 'ß', '\u00ad', '日', '\u0001', '.');
const text = fc.string({ unit: character, minLength: 1, maxLength: 12 });
const value = fc.oneof({ weight: 20, arbitrary: text }, { weight: 1, arbitrary: text.map((one) => one.repeat(90)) });
const filters = fc
  .record({ initial: fc.option(text), any: fc.array(text, { maxLength: 2 }), final: fc.option(text) })
  .filter(({ initial, any, final }) => any.length > 0 || initial !== null || final !== null)
  .map(
    ({ initial, any, final }): Filter => ({
      kind: 'substrings',
      attribute: 'description',
      initial: initial === null ? undefined : Buffer.from(initial),
      any: any.map((piece) => Buffer.from(piece)),
      final: final === null ? undefined : Buffer.from(final),
    }),
  );

describe('the index of pieces', () => {
  test('gives every entry that matches, and agrees with the entries after any writes and while it is filled', async () => {
    const write = fc.record({
      kind: fc.constantFrom('add', 'modify', 'remove', 'refused', 'fill', 'reopen'),
      values: fc.array(value, { maxLength: 3 }),
      at: fc.nat({ max: 9 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(write, { maxLength: 20 }), fc.array(filters, { minLength: 1, maxLength: 8 }), async (writes, asked) => {
        const path = await freshPath();
        let store = await withRoot(path);
        try {
          await store.write(() => {
            for (let i = 0; i < 5; i += 1) store.add(content(1, ['abc cab', 'Éß.日']));
            store.keepPieces(new Set(['description']));
          });
          for (const { kind, values, at } of writes) {
            if (kind === 'reopen') {
              store[Symbol.dispose]();
              store = new EntryStore(path, functions);
              continue;
            }
            await store
              .write(() => {
                const ids = store.idsAfter(1, 100);
                const before = store.byId(ids[at % Math.max(1, ids.length)] ?? -1);
                const { rdn, rdnNorm, uuid } = before ?? {};
                const entry = content(1, values);
                if (kind === 'fill') store.fillPieces('description', 2);
                else if (kind === 'add' || before === undefined) store.add(entry);
                else if (kind === 'remove') store.remove(before, entry.csn);
                else
                  store.replace('modify', before, {
                    ...entry,
                    ...({ rdn, rdnNorm, uuid } as { rdn: string; rdnNorm: string; uuid: string }),
                  });
                if (kind === 'refused') throw new Error('refused after it had written');
              })
              .catch(() => {});
          }
          await fill(store);
          for (const filter of asked) {
            const found = idsOf(plan(store, filter));
            expect([...found].sort((a, b) => a - b)).toEqual(found);
            expect(found).toEqual(expect.arrayContaining(matching(store, filter)));
          }
        } finally {
          store[Symbol.dispose]();
        }
        expect(problemsOf(path)).toEqual([]);
      }),
      { numRuns: 60 },
    );
  }, 60_000);

  test('names few entries among thousands, also for parts of an OR', async () => {
    using store = await withRoot(':memory:');
    await store.write(() => {
      for (let i = 0; i < 5000; i += 1) store.add(content(1, [`person ${i} of the house`], i % 2 === 0 ? 'description' : 'title'));
      store.keepPieces(new Set(['description', 'title']));
    });
    expect(plan(store, filterFromText('(description=*42*)')).by).toBe('scan');
    await fill(store, 1000);
    for (const [asked, count] of [
      ['(description=*n 4242 o*)', 1],
      ['(description=person 4242*house)', 1],
      ['(|(description=*n 42 o*)(title=*n 43 o*))', 2],
      ['(&(uid=*)(title=*n 43 o*))', 1],
      ['(description=*nobody*)', 0],
    ] as const) {
      const candidates = plan(store, filterFromText(asked));
      const filter = filterFromText(asked);
      expect([candidates.by, matching(store, filter).length]).toEqual(['index', count]);
      expect(idsOf(plan(store, filter)).length).toBeLessThan(10);
    }
    // Shorter than three characters, and nothing to tell them apart.
    expect(plan(store, filterFromText('(description=*4*)')).by).toBe('scan');
    // An end counts as a character.
    expect(plan(store, filterFromText('(description=*se)')).by).toBe('index');
    // An equality that names one entry needs no more.
    expect(plan(store, { kind: 'and', filters: [equal('uid', 'u1'), filterFromText('(title=*house*)')] }).on).toBe('uid equality');
  });

  test('knows entries that came as rows, of which the highest CSN is remembered when the journal is not told', async () => {
    const path = await freshPath();
    const store = await withRoot(path);
    await store.write(() => store.keepPieces(new Set(['description'])));
    await fill(store);
    await store.write(() => {
      const rows = ['one of many', 'another of many'].map((text) => {
        const { attributes, uuid, ...rest } = content(1, [text]);
        return { ...rest, uuid: uuidToBytes(uuid), body: encodeBody(attributes), keys: ['uid', rest.rdn.slice(4)], tallies: [] };
      });
      expect(rows.every(({ uuid }) => store.claimUuid(uuid))).toBe(true);
      expect(store.addRows(rows, false)).toEqual([]);
    });
    expect(idsOf(plan(store, filterFromText('(description=*r of m*)')))).toEqual([3]);
    expect(store.meta('fillCsn')).toBe(store.byId(3)?.csn);
    store[Symbol.dispose]();
    expect(problemsOf(path)).toEqual([]);
  });

  test('is filled anew after a release that does not know it wrote, and mended by reindex', async () => {
    const path = await freshPath();
    const store = await withRoot(path);
    await store.write(() => {
      store.keepPieces(new Set(['description']));
      for (let i = 0; i < 20; i += 1) store.add(content(1, [`person ${i}`]));
    });
    await fill(store);
    store[Symbol.dispose]();
    const before = new DatabaseSync(path);
    before.exec("DELETE FROM piece WHERE gram % 2 = 0; UPDATE piece SET ids = x'0100' WHERE gram % 3 = 0");
    before.close();
    expect(problemsOf(path)).toEqual([
      expect.stringMatching(/^the substring index of description differs from the entries in \d+ rows; run reindex$/),
    ]);
    // Tools that are not given the schema file of an attribute leave its index to the server.
    rebuildIndex(path, { ...functions, isDefined: (name) => name !== 'description', piecesOf: () => [] }, () => {});
    {
      using unfilled = new EntryStore(path, functions);
      expect(unfilled.pieces.unfilled).toBe('description');
    }
    expect(rebuildIndex(path, functions, () => {})).toBe(21);
    expect(problemsOf(path)).toEqual([]);
    const other = new DatabaseSync(path);
    other.exec("DELETE FROM piece; UPDATE meta SET value = '999' WHERE name = 'lastChangeNumber'");
    other.close();
    using again = new EntryStore(path, functions);
    expect(again.pieces.unfilled).toBe('description');
    await fill(again);
    expect(idsOf(plan(again, filterFromText('(description=*son 7)')))).toEqual([9]);
  });
});

test('a server fills the indexes that its configuration names while it serves, and drops those that it names no more', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-pieces-'));
  folders.push(folder);
  const dataDirectory = join(folder, 'data');
  const stateOf = (): string => {
    using store = new EntryStore(join(dataDirectory, databaseFile), functions);
    return store.pieces.state;
  };
  {
    await using directory = await startTestDirectory({ dataDirectory, substringIndexes: ['mail', 'telephoneNumber'] });
    const admin = await directory.connect(identityDn('admin'));
    await admin.add('cn=isp.example,o=mail', [attribute('objectClass', 'mailDomain'), attribute('cn', 'isp.example')]);
    const alice = ['uid=alice,cn=isp.example,o=mail', 'alice@isp.example'] as const;
    await admin.add(alice[0], [
      attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
      ...[attribute('uid', 'alice'), attribute('cn', 'Alice'), attribute('sn', 'A'), attribute('mail', alice[1])],
    ]);
    const asked = { baseDn: 'o=mail', scope: 'sub', filter: filterFromText('(mail=*ice@isp*)'), attributes: ['mail'] } as const;
    expect((await admin.searchAll(asked)).map(({ dn }) => dn)).toEqual([alice[0]]);
  }
  // However short it ran: what is missing is filled at the next start.
  for (let round = 0; stateOf() !== 'mail=whole telephonenumber=whole'; round += 1) {
    expect(round).toBeLessThan(100);
    await using directory = await startTestDirectory({ dataDirectory, substringIndexes: ['mail', 'telephoneNumber'] });
    await directory.connect(identityDn('admin'));
  }
  expect(problemsOf(join(dataDirectory, databaseFile))).toEqual([]);
  await using directory = await startTestDirectory({ dataDirectory, substringIndexes: [] });
  await directory.connect(identityDn('admin'));
  await directory.stop();
  expect(stateOf()).toBe('');
});

test('what cannot have such an index is refused at the start, by name', () => {
  expect(() => pieceAttributes(schema, ['mail', 'nonsense'])).toThrow('substringIndexes: the schema knows no attribute "nonsense"');
  expect(() => pieceAttributes(schema, ['hostServer2', 'x'])).toThrow('hostServer2');
  expect(() => pieceAttributes(schema, ['member'])).toThrow('substringIndexes: member is not compared by substrings');
  expect(() => pieceAttributes(schema, ['name'])).toThrow('substringIndexes: name has subtypes; name those');
  expect([...pieceAttributes(schema, ['Mail', 'CN'])]).toEqual(['mail', 'cn']);
});
