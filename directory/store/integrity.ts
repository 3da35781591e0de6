/**
 * Whether a database that no server uses agrees with itself, and making it so again: index and counters follow from the entries, so they can
 * be checked against them and made anew. Entries are read one after the other; memory does not grow with them.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { openDatabase } from './database.ts';
import { decodeBody } from './entry-body.ts';
import { type EntryFunctions, indexKeyMax, rootId } from './entry-store.ts';
import { uuidToText } from './uuid.ts';

/** Entries between two calls of `progress`. */
const progressEvery = 10_000;

/** What the checks tell. */
export interface IntegrityHandlers {
  /** Something that is wrong, in a sentence. */
  problem(text: string): void;
  /** Entries looked at so far. */
  progress(entries: number): void;
}

/** Looks at everything; returns the number of entries. Throws when the file cannot be opened, e.g. because a server runs on it. */
export function verifyDatabase(path: string, functions: EntryFunctions, handlers: IntegrityHandlers): number {
  const database = openDatabase(path);
  try {
    for (const row of database.prepare('PRAGMA integrity_check(20)').all()) {
      if (row.integrity_check !== 'ok') handlers.problem(`the file is damaged: ${String(row.integrity_check)}`);
    }
    const parent = database.prepare('SELECT 1 FROM entry WHERE id = ?');
    const hasKey = database.prepare(
      'SELECT 1 FROM indexed JOIN attribute ON attribute.id = attributeId WHERE attribute.name = ? AND value = ? AND entryId = ?',
    );
    const counted = new Map<string, number>();
    let entries = 0;
    let keysExpected = 0;
    for (const row of database.prepare('SELECT * FROM entry ORDER BY id').iterate()) {
      entries += 1;
      if (entries % progressEvery === 0) handlers.progress(entries);
      const where = `entry ${String(row.id)} (${uuidToText(row.uuid as Uint8Array)}, ${String(row.rdn)})`;
      if (row.parentId !== rootId && parent.get(row.parentId as number) === undefined) handlers.problem(`${where} has no parent`);
      const attributes = attributesOf(row.body as Uint8Array);
      if (attributes === undefined) {
        handlers.problem(`${where} cannot be read`);
        continue;
      }
      for (const name of ['entries', ...functions.talliesOf(attributes)]) counted.set(name, (counted.get(name) ?? 0) + 1);
      for (const key of distinctKeys(functions, attributes)) {
        keysExpected += 1;
        if (hasKey.get(key.attribute, key.value, row.id as number) === undefined) {
          handlers.problem(`${where} is missing in the index of ${key.attribute}; run reindex`);
        }
      }
    }
    const keys = database.prepare('SELECT count(*) AS count FROM indexed').get()?.count as number;
    if (keys > keysExpected) handlers.problem(`the index holds ${keys - keysExpected} keys that no entry has; run reindex`);
    for (const row of database.prepare('SELECT name, count FROM tally').all() as { name: string; count: number }[]) {
      const real = counted.get(row.name) ?? 0;
      counted.delete(row.name);
      if (real !== row.count) handlers.problem(`the counter ${row.name} says ${row.count}, there are ${real}; run reindex`);
    }
    for (const [name, real] of counted) handlers.problem(`the counter ${name} is missing, there are ${real}; run reindex`);
    return entries;
  } finally {
    database.close();
  }
}

/** Makes index and counters anew from the entries, in one transaction; returns the number of entries. */
export function rebuildIndex(path: string, functions: EntryFunctions, progress: (entries: number) => void): number {
  const database = openDatabase(path);
  try {
    database.exec('BEGIN IMMEDIATE; DELETE FROM indexed; DELETE FROM tally');
    const attribute = database.prepare('INSERT OR IGNORE INTO attribute (name) VALUES (?)');
    const key = database.prepare('INSERT INTO indexed (attributeId, value, entryId) SELECT id, ?, ? FROM attribute WHERE name = ?');
    const counted = new Map<string, number>();
    const known = new Set<string>();
    let entries = 0;
    for (const row of database.prepare('SELECT id, body FROM entry ORDER BY id').iterate()) {
      entries += 1;
      if (entries % progressEvery === 0) progress(entries);
      const attributes = attributesOf(row.body as Uint8Array) ?? [];
      for (const name of ['entries', ...functions.talliesOf(attributes)]) counted.set(name, (counted.get(name) ?? 0) + 1);
      for (const one of distinctKeys(functions, attributes)) {
        if (!known.has(one.attribute)) attribute.run(one.attribute);
        known.add(one.attribute);
        key.run(one.value, row.id as number, one.attribute);
      }
    }
    const tally = database.prepare('INSERT INTO tally (name, count) VALUES (?, ?)');
    for (const [name, count] of counted) tally.run(name, count);
    database.exec('COMMIT');
    return entries;
  } finally {
    database.close();
  }
}

/** Gives a restored copy an id of its own: the cookies of the old one name changes that this one may number otherwise. */
export function renewDatabaseId(path: string, databaseId: string): void {
  const database = openDatabase(path);
  try {
    database.prepare("UPDATE meta SET value = ? WHERE name = 'databaseId'").run(databaseId);
  } finally {
    database.close();
  }
}

function attributesOf(body: Uint8Array): Attribute[] | undefined {
  try {
    return decodeBody(Buffer.from(body.buffer, body.byteOffset, body.byteLength));
  } catch {
    return undefined;
  }
}

function distinctKeys(functions: EntryFunctions, attributes: readonly Attribute[]): { attribute: string; value: string }[] {
  const keys = new Map<string, { attribute: string; value: string }>();
  for (const { attribute, value } of functions.keysOf(attributes)) {
    const cut = value.slice(0, indexKeyMax);
    keys.set(`${attribute}=${cut}`, { attribute, value: cut });
  }
  return [...keys.values()];
}
