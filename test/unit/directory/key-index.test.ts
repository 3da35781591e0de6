/** Keys that wait over transactions are found, undone and taken up again as those in the table are. */
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { EntryStore, rootId, type StoredEntry } from '#directory/store/entry-store.ts';
import { rebuildIndex, verifyDatabase } from '#directory/store/integrity.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';

const functions = {
  keysOf: (attributes: readonly Attribute[]) =>
    attributes.flatMap(({ type, values }) => values.map((value) => ({ attribute: type, value: value.toString() }))),
  talliesOf: () => [],
};
/** More than a lot of keys. */
const many = 1500;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-keys-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

let serial = 0;

function content(values: readonly string[]) {
  serial += 1;
  const uuid = `00000000-0000-4000-8000-${String(serial).padStart(12, '0')}`;
  const attributes = [attribute('host', 'east'), ...(values.length === 0 ? [] : [attribute('mail', ...new Set(values))])];
  return { parentId: rootId, rdn: `cn=${serial}`, rdnNorm: `cn=${serial}`, uuid, csn: `csn-${serial}`, attributes };
}

/** A store, what its entries must be, and its file. */
class Run {
  file: string;
  store: EntryStore;
  readonly entries = new Map<number, readonly string[]>();

  constructor() {
    serial += 1;
    this.file = join(folder, `${serial}.sqlite`);
    this.store = new EntryStore(this.file, functions);
  }

  add(values: readonly string[]): Promise<void> {
    return this.store
      .write(() => this.store.add(content(values)).id)
      .then((id) => {
        this.entries.set(id, values);
      });
  }

  #pick(at: number): number | undefined {
    const ids = [...this.entries.keys()];
    // Old ones and new ones.
    return ids.length === 0
      ? undefined
      : ids[at % 2 === 0 ? Math.floor(at / 2) % ids.length : ids.length - 1 - (Math.floor(at / 2) % ids.length)];
  }

  replace(at: number, values: readonly string[]): Promise<void> {
    const id = this.#pick(at);
    if (id === undefined) return Promise.resolve();
    this.entries.set(id, values);
    return this.store.write(() => {
      const before = this.store.byId(id) as StoredEntry;
      const { rdn, rdnNorm, uuid } = before;
      this.store.replace('modify', before, { ...content(values), rdn, rdnNorm, uuid });
    });
  }

  remove(at: number): Promise<void> {
    const id = this.#pick(at);
    if (id === undefined) return Promise.resolve();
    this.entries.delete(id);
    return this.store.write(() => this.store.remove(this.store.byId(id) as StoredEntry, 'csn-removed'));
  }

  /** Writes, and is refused then: its neighbours run again. */
  refused(values: readonly string[]): Promise<void> {
    const write = this.store.write(() => {
      this.store.add(content(values));
      throw new Error('refused');
    });
    return expect(write).rejects.toThrow('refused');
  }

  reopen(): void {
    this.store[Symbol.dispose]();
    this.verify();
    this.store = new EntryStore(this.file, functions);
  }

  /** Goes on with what a kill -9 leaves now. */
  async crash(): Promise<void> {
    serial += 1;
    await mkdir(join(folder, `${serial}`));
    const left = join(folder, `${serial}`, 'left.sqlite');
    for (const end of ['', '-wal']) await copyFile(`${this.file}${end}`, `${left}${end}`);
    this.store[Symbol.dispose]();
    this.file = left;
    this.store = new EntryStore(left, functions);
  }

  verify(): void {
    const problems: string[] = [];
    const count = verifyDatabase(this.file, functions, { problem: (text) => problems.push(text), progress: () => {} });
    expect([problems, count]).toEqual([[], this.entries.size]);
  }

  check(asked: readonly string[]): void {
    const { store } = this;
    const idsWhere = (holds: (value: string) => boolean): number[] =>
      [...this.entries].flatMap(([id, values]) => (values.some(holds) ? [id] : [])).sort((a, b) => a - b);
    const all = [...this.entries.keys()].sort((a, b) => a - b);
    expect(store.idsWithKey({ attribute: 'host', value: 'east' }, 0, all.length + 1)).toEqual(all);
    const middle = all[Math.floor(all.length / 2)] ?? 0;
    expect(store.idsWithKey({ attribute: 'host', value: 'east' }, middle, 3)).toEqual(all.filter((id) => id > middle).slice(0, 3));
    for (const value of asked) {
      const same = idsWhere((one) => one === value);
      expect(store.idsWithKey({ attribute: 'mail', value }, 0, same.length + 1)).toEqual(same);
      expect(store.hasKeyOf(['uid', 'mail'], value)).toBe(same.length > 0);
      const starting = idsWhere((one) => one.startsWith(value));
      expect(store.idsWithPrefix({ attribute: 'mail', value }, starting.length)).toEqual(starting);
      if (starting.length > 0) expect(store.idsWithPrefix({ attribute: 'mail', value }, starting.length - 1)).toBeUndefined();
      const holding = new Set([...store.idsHolding('mail', value)].flat());
      expect([...holding].sort((a, b) => a - b)).toEqual(idsWhere((one) => one.includes(value)));
    }
  }
}

const value = fc.string({ unit: fc.constantFrom('a', 'b', 'é'), minLength: 1, maxLength: 3 });
const values = fc.array(value, { maxLength: 3 });
const step = fc.record({
  kind: fc.constantFrom('add', 'add', 'many', 'replace', 'remove', 'refused', 'reopen', 'crash', 'nothing'),
  values,
  at: fc.nat({ max: 9 }),
  /** Whether the next one goes into the same transaction. */
  isJoined: fc.boolean(),
});

test('finds what it would find if every key were written at once, whatever is done, undone, closed and killed', {
  timeout: 120_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 14 }),
      fc.array(value, { minLength: 1, maxLength: 4 }),
      async (steps, asked) => {
        const run = new Run();
        let open: Promise<void>[] = [];
        for (const { kind, values, at, isJoined } of steps) {
          if (kind === 'add') open.push(run.add(values));
          else if (kind === 'many') for (let one = 0; one < many; one += 1) open.push(run.add(values.map((text) => `${text}${one % 7}`)));
          else if (kind === 'refused') open.push(run.refused(values));
          if (isJoined && (kind === 'add' || kind === 'many' || kind === 'refused')) continue;
          await Promise.all(open);
          open = [];
          if (kind === 'replace') await run.replace(at, values);
          else if (kind === 'remove') await run.remove(at);
          else if (kind === 'reopen') run.reopen();
          else if (kind === 'crash') await run.crash();
          run.check(asked);
        }
        await Promise.all(open);
        run.check(asked);
        run.store[Symbol.dispose]();
        run.verify();
        rebuildIndex(run.file, functions, () => {});
        run.verify();
      },
    ),
    { numRuns: 25 },
  );
});

test('writes a full lot with one transaction, and what an older entry is given with its own', async () => {
  const run = new Run();
  const inTable = async (): Promise<number> => {
    await run.crash();
    const before = run.entries.size;
    run.store[Symbol.dispose]();
    const { DatabaseSync } = await import('node:sqlite');
    using database = new DatabaseSync(run.file);
    const count = database.prepare('SELECT count(*) AS count FROM indexed').get()?.count as number;
    database.close();
    run.store = new EntryStore(run.file, functions);
    expect(run.entries.size).toBe(before);
    return count;
  };
  await run.add(['a']);
  expect(await inTable()).toBe(0);
  for (let one = 0; one < 2100; one += 1) await run.add([`b${one}`]);
  const lot = await inTable();
  expect(lot).toBeGreaterThan(4000);
  expect(lot).toBeLessThan(4202);
  await run.replace(0, ['a', 'c']);
  expect(await inTable()).toBe(4203);
  run.check(['a', 'b1', 'c']);
});

test('verifies without a write: neither an older file, nor the log of a server that was killed, nor the file of one that runs', async () => {
  const run = new Run();
  await run.add(['a']);
  const { DatabaseSync } = await import('node:sqlite');
  run.store[Symbol.dispose]();
  using old = new DatabaseSync(run.file);
  old.exec('PRAGMA user_version = 2');
  old.close();
  const before = await readFile(run.file);
  run.verify();
  expect(await readFile(run.file)).toEqual(before);

  run.store = new EntryStore(run.file, functions);
  expect(() => run.verify()).toThrow(/another directory server uses this data directory/);
  await run.add(['b']);
  const left = join(folder, 'left.sqlite');
  for (const end of ['', '-wal']) await copyFile(`${run.file}${end}`, `${left}${end}`);
  run.store[Symbol.dispose]();
  const [file, log] = [await readFile(left), await readFile(`${left}-wal`)];
  expect(log.length).toBeGreaterThan(0);
  run.file = left;
  run.verify();
  expect([await readFile(left), await readFile(`${left}-wal`)]).toEqual([file, log]);
  run.store = new EntryStore(left, functions);
  run.check(['a', 'b']);
  run.store[Symbol.dispose]();
});

test('makes no database of an empty file that is to be verified', async () => {
  const file = join(folder, 'empty.sqlite');
  await writeFile(file, '');
  expect(() => verifyDatabase(file, functions, { problem: () => {}, progress: () => {} })).toThrow(/has version 0/);
  expect(await readFile(file)).toHaveLength(0);
});
