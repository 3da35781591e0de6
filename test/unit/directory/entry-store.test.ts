import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createMailSchema, indexKeys, tallies } from '#directory/schema/mail-schema.ts';
import { encodeBody } from '#directory/store/entry-body.ts';
import { EntryStore, rootId, type StoredEntry } from '#directory/store/entry-store.ts';
import { verifyDatabase } from '#directory/store/integrity.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';

const schema = createMailSchema();
const functions = {
  keysOf: (attributes: readonly Attribute[]) => indexKeys(schema, attributes),
  talliesOf: (attributes: readonly Attribute[]) => tallies(schema, attributes),
};

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-store-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function open(name = 'directory.sqlite'): EntryStore {
  return new EntryStore(join(folder, name), functions);
}

let serial = 0;
function uuid(): string {
  serial += 1;
  return `00000000-0000-4000-8000-${String(serial).padStart(12, '0')}`;
}

function addEntry(store: EntryStore, parentId: number, rdn: string, attributes: readonly Attribute[] = []): StoredEntry {
  return store.add({ parentId, rdn, rdnNorm: rdn.toLowerCase(), uuid: uuid(), csn: `csn-${serial}`, attributes });
}

describe('the entry store', () => {
  test('gives the rows of all entries as they are stored, few at a time where they are large', async () => {
    using store = open();
    const added = await store.write(() => {
      const root = addEntry(store, rootId, 'o=mail');
      const octets = { type: 'jpegPhoto', values: [Buffer.from([0, 255, 44, 0, 13])] };
      const large = { type: 'description', values: [Buffer.alloc(5_000_000, 'x')] };
      return [
        root,
        addEntry(store, root.id, 'uid=Straße', [attribute('uid', 'Straße'), octets]),
        ...['a', 'b', 'c'].map((uid) => addEntry(store, root.id, `uid=${uid}`, [attribute('uid', uid), large])),
        addEntry(store, root.id, 'uid=d'),
        addEntry(store, root.id, 'uid=e'),
      ];
    });
    const shown: unknown[] = [];
    const pages: number[] = [];
    for (let page = store.rawAfter(0, 4); page.length > 0; page = store.rawAfter(page.at(-1)?.id as number, 4)) {
      pages.push(page.length);
      for (const { id, parentId, octets, uuidStart, csnStart, rdnStart, bodyStart, end } of page) {
        const text = (from: number, to: number): string => octets.toString('utf8', from, to);
        const digest = octets.subarray(bodyStart, end).equals(encodeBody(store.byId(id)?.attributes ?? []));
        shown.push([
          id,
          parentId,
          octets.toString('hex', uuidStart, csnStart),
          text(csnStart, rdnStart),
          text(rdnStart, bodyStart),
          digest,
        ]);
      }
    }
    expect(pages).toEqual([1, 1, 1, 1, 1, 2]);
    expect(shown).toEqual(added.map((one) => [one.id, one.parentId, one.uuid.replaceAll('-', ''), one.csn, one.rdn, true]));
  });

  test('keeps entries, indexes, journal and meta values over a reopening', async () => {
    const store = open();
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    const binary = Buffer.from([0, 255, 10, 13]);
    const added = await store.write(() => {
      store.setMeta('contextCsn', 'x');
      return addEntry(store, root.id, 'uid=alice', [attribute('uid', 'alice'), { type: 'jpegPhoto', values: [binary] }]);
    });
    store[Symbol.dispose]();
    using again = open();
    const entry = again.byUuid(added.uuid);
    expect({ ...entry, uuid: entry?.uuid, attributes: entry?.attributes }).toEqual(added);
    expect(again.idsWithKey({ attribute: 'uid', value: 'alice' }, 0, 10)).toEqual([added.id]);
    expect(again.journalAfter(0, 10).map((record) => record.op)).toEqual(['add', 'add']);
    expect(again.meta('contextCsn')).toBe('x');
    expect(again.tally('entries')).toBe(2);
  });

  test('puts all writes of one turn into one commit, and each later turn into its own', async () => {
    using store = open();
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    const before = store.commits;
    await Promise.all(Array.from({ length: 100 }, (_, i) => store.write(() => addEntry(store, root.id, `cn=${i}`))));
    expect(store.commits - before).toBe(1);
    await store.write(() => addEntry(store, root.id, 'cn=later'));
    expect(store.commits - before).toBe(2);
  });

  test('undoes a refused write alone, whatever its neighbours do', async () => {
    using store = open();
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    const results = await Promise.allSettled([
      store.write(() => addEntry(store, root.id, 'cn=a', [attribute('cn', 'a')])),
      store.write(() => {
        addEntry(store, root.id, 'cn=b', [attribute('cn', 'b')]);
        store.setMeta('contextCsn', 'wrong');
        throw new Error('refused');
      }),
      store.write(() => addEntry(store, root.id, 'cn=c', [attribute('cn', 'c')])),
    ]);
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(store.child(root.id, 'cn=b')).toBeUndefined();
    expect(store.idsWithKey({ attribute: 'cn', value: 'b' }, 0, 10)).toEqual([]);
    expect(store.meta('contextCsn')).toBeUndefined();
    expect(store.child(root.id, 'cn=c')).toBeDefined();
    expect(store.tally('entries')).toBe(3);
  });

  test('lets the writes of one transaction see the index keys of those before them, whichever way they look', async () => {
    using store = open();
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    const key = (value: string) => ({ attribute: 'cn', value });
    const seen = await Promise.all([
      store.write(() => addEntry(store, root.id, 'cn=one', [attribute('cn', 'one')]).id),
      store.write(() => store.hasKeyOf(['mail', 'cn'], 'one')),
      store.write(() => store.hasKeyOf(['mail', 'cn'], 'two')),
      store.write(() => store.idsWithKey(key('one'), 0, 10)),
      store.write(() => addEntry(store, root.id, 'cn=once', [attribute('cn', 'once')]).id),
      store.write(() => store.idsWithPrefix(key('on'), 10)),
      store.write(() => [...store.idsHolding('cn', 'nce')].flat()),
      store.write(() => {
        const third = addEntry(store, root.id, 'cn=oncemore', [attribute('cn', 'oncemore')]);
        store.remove(third, 'csn-removed');
        return store.idsWithPrefix(key('oncemore'), 10);
      }),
      store.write(() => store.journalAfter(0, 100).map((record) => record.op)),
    ]);
    const [one, , , , once] = seen;
    expect(seen.slice(1, 8)).toEqual([true, false, [one], once, [one, once], [once], []]);
    expect(seen[8]).toEqual(['add', 'add', 'add', 'add', 'delete']);
    expect(store.commits).toBe(2);
  });

  test('keeps keys, records and UUIDs of a refused write’s neighbours, however many there are', async () => {
    const path = join(folder, 'directory.sqlite');
    {
      using store = open();
      const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
      const isRefused = (i: number): boolean => i === 7 || i === 1499;
      const added = await Promise.allSettled(
        Array.from({ length: 1500 }, (_, i) =>
          store.write(() => {
            const entry = addEntry(store, root.id, `cn=${i}`, [
              attribute('cn', `${i}`),
              attribute('uid', `u${i}`),
              attribute('mail', `${i}@x`),
            ]);
            if (isRefused(i)) throw new Error('refused');
            return entry;
          }),
        ),
      );
      expect(added.flatMap((one, i) => (one.status === 'rejected' ? [i] : []))).toEqual([7, 1499]);
      for (const [i, one] of added.entries()) {
        const ids = one.status === 'fulfilled' ? [one.value.id] : [];
        for (const key of [`cn ${i}`, `uid u${i}`, `mail ${i}@x`]) {
          const [name = '', value = ''] = key.split(' ');
          expect(store.idsWithKey({ attribute: name, value }, 0, 10)).toEqual(ids);
        }
        if (one.status === 'fulfilled') expect(store.byUuid(one.value.uuid)?.id).toBe(one.value.id);
      }
      const records = store.journalAfter(0, 2000);
      expect(records.map((record) => record.changeNumber)).toEqual(Array.from({ length: 1499 }, (_, i) => i + 1));
    }
    const problems: string[] = [];
    expect(verifyDatabase(path, functions, { problem: (text) => problems.push(text), progress: () => {} })).toBe(1499);
    expect(problems).toEqual([]);
  });

  test('answers a write only when a crash right after would keep it', async () => {
    const store = open();
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    await Promise.all(Array.from({ length: 50 }, (_, i) => store.write(() => addEntry(store, root.id, `cn=${i}`))));
    // Not yet committed: begun after the copy's state was answered.
    const late = store.write(() => addEntry(store, root.id, 'cn=late'));
    // What the files hold at this moment is what a kill -9 leaves.
    await mkdir(join(folder, 'crashed'));
    for (const end of ['', '-wal'])
      await copyFile(join(folder, `directory.sqlite${end}`), join(folder, 'crashed', `directory.sqlite${end}`));
    await late;
    store[Symbol.dispose]();
    using crashed = open('crashed/directory.sqlite');
    const children = crashed.childIds(crashed.child(rootId, 'o=mail')?.id ?? 0, 0, 100);
    expect(children.length).toBeGreaterThanOrEqual(50);
    expect(crashed.journalAfter(0, 100).length).toBe(children.length + 1);
  });

  test('renames a container by writing one row, and every name below follows', async () => {
    using store = open();
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    const domain = await store.write(() => addEntry(store, root.id, 'cn=old.example'));
    await store.write(() => {
      for (let i = 0; i < 500; i += 1) addEntry(store, domain.id, `uid=u${i}`);
    });
    const child = store.child(domain.id, 'uid=u7') as StoredEntry;
    expect(store.dnOf(child)).toBe('uid=u7,cn=old.example,o=mail');
    const changesBefore = store.lastChangeNumber();
    await store.write(() => store.replace('rename', domain, { ...domain, rdn: 'cn=new.example', rdnNorm: 'cn=new.example' }));
    expect(store.lastChangeNumber() - changesBefore).toBe(1);
    expect(store.dnOf(child)).toBe('uid=u7,cn=new.example,o=mail');
    expect(store.isWithin(child, domain.id)).toBe(true);
    expect(store.subtreeIds(domain.id, 1000)?.length).toBe(501);
  });

  test('refuses a second server on the same file', () => {
    using _store = open();
    expect(() => open()).toThrow(/another directory server uses this data directory/);
  });

  test('keeps counters and index in step with what is changed and removed', async () => {
    using store = open();
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    const account = (host: string): Attribute[] => [
      attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
      attribute('hostServer', host),
    ];
    const entry = await store.write(() => addEntry(store, root.id, 'uid=a', account('west')));
    expect([store.tally('accounts'), store.tally('hostServer=west')]).toEqual([1, 1]);
    const moved = await store.write(() => store.replace('modify', entry, { ...entry, attributes: account('east') }));
    expect([store.tally('accounts'), store.tally('hostServer=west'), store.tally('hostServer=east')]).toEqual([1, 0, 1]);
    expect(store.idsWithKey({ attribute: 'hostserver', value: 'west' }, 0, 9)).toEqual([]);
    await store.write(() => store.remove(moved, 'csn'));
    expect([store.tally('accounts'), store.tally('hostServer=east'), store.tally('entries')]).toEqual([0, 0, 1]);
  });

  test('forgets what an undone write had read of its own changes', async () => {
    using store = open();
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    const alice = await store.write(() => addEntry(store, root.id, 'uid=alice', [attribute('uid', 'alice')]));
    const key = (value: string) => ({ attribute: 'uid', value });
    expect([store.idsWithKey(key('alice'), 0, 10), store.byId(alice.id)?.rdn]).toEqual([[alice.id], 'uid=alice']);
    const refused = store.write(() => {
      store.replace('rename', alice, { ...alice, rdn: 'uid=bob', rdnNorm: 'uid=bob', attributes: [attribute('uid', 'bob')] });
      expect(store.byId(alice.id)?.rdn).toBe('uid=bob');
      expect(store.childId(root.id, 'uid=alice')).toBeUndefined();
      expect(store.idsWithKey(key('bob'), 0, 10)).toEqual([alice.id]);
      throw new Error('refused');
    });
    await expect(refused).rejects.toThrow('refused');
    expect(store.byId(alice.id)?.rdn).toBe('uid=alice');
    expect([store.childId(root.id, 'uid=alice'), store.childId(root.id, 'uid=bob')]).toEqual([alice.id, undefined]);
    expect([store.idsWithKey(key('alice'), 0, 10), store.idsWithKey(key('bob'), 0, 10)]).toEqual([[alice.id], []]);
  });

  test('says what its caches take, and takes no more than it may', async () => {
    const cacheBytes = 1_048_576;
    using store = new EntryStore(join(folder, 'directory.sqlite'), functions, cacheBytes);
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    await store.write(() => {
      for (let i = 0; i < 5000; i += 1)
        addEntry(store, root.id, `uid=user${i}`, [attribute('uid', `user${i}`), attribute('cn', 'x'.repeat(100))]);
    });
    const empty = store.cachedBytes;
    for (let i = 0; i < 5000; i += 1) {
      const [id = 0] = store.idsWithKey({ attribute: 'uid', value: `user${i}` }, 0, 10);
      const shown = store.shown(id, 1, (entry) => Buffer.from(`shown of ${entry.rdn}`));
      expect(shown?.octets.toString()).toBe(`shown of uid=user${i}`);
      expect(store.childId(root.id, `uid=user${i}`)).toBe(id);
    }
    expect(store.cachedBytes).toBeGreaterThan(Math.max(empty, cacheBytes / 4));
    // The last quarter is for pages of the file.
    expect(store.cachedBytes).toBeLessThanOrEqual((cacheBytes * 3) / 4);
  });

  test('answers the same with a cache that holds next to nothing', async () => {
    using store = new EntryStore(join(folder, 'small.sqlite'), functions, 2000);
    const root = await store.write(() => addEntry(store, rootId, 'o=mail'));
    const names = Array.from({ length: 50 }, (_, i) => `uid=u${i}`);
    await store.write(() => names.map((name) => addEntry(store, root.id, name, [attribute('uid', name)])));
    const found = (): unknown[] =>
      names.map((name) => store.idsWithKey({ attribute: 'uid', value: name }, 0, 10).map((id) => store.byId(id)?.rdn));
    expect(found()).toEqual(names.map((name) => [name]));
    expect(found()).toEqual(names.map((name) => [name]));
  });
});
