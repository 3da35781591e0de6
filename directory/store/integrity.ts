/**
 * Whether a database that no server uses agrees with itself, and making it so again: index and counters follow from the entries, so they can
 * be checked against them and made anew. Entries are read one after the other; memory does not grow with them.
 */
import { dirname } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { attributesOf } from './body-of-row.ts';
import { isDamage } from './damage.ts';
import { allIndexes, derivedTables, openDatabase, openDatabaseToRead } from './database.ts';
import type { EntryFunctions } from './entry-functions.ts';
import { rootId } from './entry-store.ts';
import { indexKeyMax, keysBoundary } from './key-index.ts';
import { PieceCheck } from './piece-check.ts';
import { PieceIndex } from './piece-index.ts';
import { Statements } from './statements.ts';
import { uuidToText } from './uuid.ts';
import { uuidBoundary } from './uuid-index.ts';

/** Entries between two calls of `progress`. */
const progressEvery = 100_000;

/** What the checks are told beforehand, and tell. */
export interface IntegrityHandlers {
  /** Whether a log lies beside the file; without a word it may. */
  readonly hasLog?: boolean;
  /** Something that is wrong, in a sentence. */
  problem(text: string): void;
  /** Entries looked at so far. */
  progress(entries: number): void;
  /** All has been looked at; until this returns no server can have the file. */
  beforeClose?(): void;
}

/** Looks at everything, and changes nothing; returns the number of entries. Throws when the file cannot be opened, e.g. because a server runs on it. */
export function verifyDatabase(path: string, functions: EntryFunctions, handlers: IntegrityHandlers): number {
  const database = openDatabaseToRead(path, handlers.hasLog ?? true);
  let entries = 0;
  try {
    for (const row of database.prepare('PRAGMA integrity_check(20)').all()) {
      if (row.integrity_check !== 'ok') handlers.problem(`the file is damaged: ${String(row.integrity_check)}`);
    }
    const parent = database.prepare('SELECT 1 FROM entry WHERE id = ?');
    const hasKey = database.prepare(
      'SELECT 1 FROM indexed JOIN attribute ON attribute.id = attributeId WHERE attribute.name = ? AND value = ? AND entryId = ?',
    );
    const byUuid = database.prepare('SELECT entryId FROM uuid WHERE uuid = ?');
    const boundary = metaNumber(database, uuidBoundary);
    const lastId = metaNumber(database, 'lastEntryId');
    const keysTo = metaNumber(database, keysBoundary, lastId);
    const counted = new Map<string, number>();
    const pieces = new PieceCheck(database, functions, lastId);
    let keysExpected = 0;
    for (const row of database.prepare('SELECT *, ifnull(rdn, rdnNorm) AS name FROM entry ORDER BY id').iterate()) {
      entries += 1;
      if (entries % progressEvery === 0) handlers.progress(entries);
      const where = `entry ${String(row.id)} (${uuidToText(row.uuid as Uint8Array)}, ${String(row.name)})`;
      if ((row.id as number) <= boundary && byUuid.get(row.uuid as Uint8Array)?.entryId !== row.id) {
        handlers.problem(`${where} is not found by its entryUUID; run reindex`);
      }
      if ((row.id as number) > lastId) handlers.problem(`${where} has an id above ${lastId}, the last one given out; run reindex`);
      if (row.parentId !== rootId && parent.get(row.parentId as number) === undefined) handlers.problem(`${where} has no parent`);
      const attributes = attributesOf(row.body as Uint8Array);
      if (attributes === undefined) {
        handlers.problem(`${where} cannot be read`);
        continue;
      }
      pieces.entry(row.id as number, attributes);
      for (const name of functions.unknownIn?.(attributes) ?? [])
        handlers.problem(`${where} uses ${name}, which the schema does not define`);
      for (const name of ['entries', ...functions.talliesOf(attributes)]) counted.set(name, (counted.get(name) ?? 0) + 1);
      for (const key of (row.id as number) <= keysTo ? distinctKeys(functions, attributes) : []) {
        keysExpected += 1;
        if (hasKey.get(key.attribute, key.value, row.id as number) === undefined) {
          handlers.problem(`${where} is missing in the index of ${key.attribute}; run reindex`);
        }
      }
    }
    const uuids = database.prepare('SELECT count(*) AS count FROM uuid').get()?.count as number;
    const uuidsExpected = database.prepare('SELECT count(*) AS count FROM entry WHERE id <= ?').get(boundary)?.count as number;
    if (uuids > uuidsExpected) handlers.problem(`the index holds ${uuids - uuidsExpected} entryUUIDs that no entry has; run reindex`);
    const keys = database.prepare('SELECT count(*) AS count FROM indexed').get()?.count as number;
    if (keys > keysExpected) handlers.problem(`the index holds ${keys - keysExpected} keys that no entry has; run reindex`);
    for (const problem of pieces.problems()) handlers.problem(problem);
    for (const row of database.prepare('SELECT name, count FROM tally').all() as { name: string; count: number }[]) {
      const real = counted.get(row.name) ?? 0;
      counted.delete(row.name);
      if (real !== row.count) handlers.problem(`the counter ${row.name} says ${row.count}, there are ${real}; run reindex`);
    }
    for (const [name, real] of counted) handlers.problem(`the counter ${name} is missing, there are ${real}; run reindex`);
    return entries;
  } catch (error) {
    if (!isDamage(error)) throw error;
    handlers.problem(`the rest cannot be read: ${messageOf(error)}; run reindex, and when that fails put back a backup`);
    return entries;
  } finally {
    handlers.beforeClose?.();
    database.close();
  }
}

/** Makes all indexes and counters anew from the entries, in one transaction; returns the number of entries. */
export function rebuildIndex(path: string, functions: EntryFunctions, progress: (entries: number) => void): number {
  const database = openDatabase(path);
  try {
    const sortIn = dirname(path).replaceAll("'", "''");
    // Keys are sorted before they enter the index: written in the order of the entries each would touch another page.
    database.exec(`PRAGMA temp_store_directory = '${sortIn}'`);
    emptyIndexes(database);
    database.exec(`BEGIN IMMEDIATE; DELETE FROM tally;
      CREATE TEMP TABLE found (attributeId INTEGER NOT NULL, value TEXT NOT NULL, entryId INTEGER NOT NULL);
      INSERT INTO uuid SELECT uuid, id FROM entry ORDER BY uuid`);
    const attribute = database.prepare('INSERT OR IGNORE INTO attribute (name) VALUES (?)');
    const attributeId = database.prepare('SELECT id FROM attribute WHERE name = ?');
    const key = database.prepare('INSERT INTO found (attributeId, value, entryId) VALUES (?, ?, ?)');
    const counted = new Map<string, number>();
    const known = new Map<string, number>();
    let entries = 0;
    let lastId = metaNumber(database, 'lastEntryId');
    for (const row of database.prepare('SELECT id, body FROM entry ORDER BY id').iterate()) {
      entries += 1;
      lastId = Math.max(lastId, row.id as number);
      if (entries % progressEvery === 0) progress(entries);
      const attributes = attributesOf(row.body as Uint8Array) ?? [];
      for (const name of ['entries', ...functions.talliesOf(attributes)]) counted.set(name, (counted.get(name) ?? 0) + 1);
      for (const one of distinctKeys(functions, attributes)) {
        let id = known.get(one.attribute);
        if (id === undefined) {
          attribute.run(one.attribute);
          id = attributeId.get(one.attribute)?.id as number;
          known.set(one.attribute, id);
        }
        key.run(id, one.value, row.id as number);
      }
    }
    database.exec(
      'INSERT INTO indexed SELECT attributeId, value, entryId FROM found ORDER BY attributeId, value, entryId; DROP TABLE found',
    );
    const tally = database.prepare('INSERT INTO tally (name, count) VALUES (?, ?)');
    for (const [name, count] of counted) tally.run(name, count);
    const meta = database.prepare('INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)');
    meta.run(uuidBoundary, String(lastId));
    meta.run(keysBoundary, String(lastId));
    meta.run('lastEntryId', String(lastId));
    for (const [name, value] of Object.entries(rebuiltPieces(database, functions, lastId))) meta.run(name, value);
    database.exec('COMMIT');
    return entries;
  } finally {
    database.close();
  }
}

/**
 * Enters all into the indexes of pieces that there are, and gives the meta values that say so. One of an attribute that the schema at hand does
 * not define is left empty: a server that knows it fills it.
 */
function rebuiltPieces(database: DatabaseSync, functions: EntryFunctions, lastId: number): Record<string, string> {
  const { piecesOf } = functions;
  const state = database.prepare("SELECT value FROM meta WHERE name = 'pieces'").get()?.value as string | undefined;
  if (piecesOf === undefined || state === undefined) return {};
  const pieces = new PieceIndex(new Statements(database), piecesOf);
  pieces.load(state, false);
  for (const name of pieces.names) {
    while (functions.isDefined?.(name) !== false && !pieces.answers(name)) pieces.fill(name, progressEvery);
  }
  return { pieces: pieces.state, piecesAsOf: `${lastId}/${metaNumber(database, 'lastChangeNumber')}` };
}

const makeDerived = `${derivedTables} ${allIndexes.join('; ')};`;

/** Leaves all indexes empty. A damaged one cannot be emptied: it is taken out of the schema, and its pages go with the next VACUUM. */
function emptyIndexes(database: DatabaseSync): void {
  try {
    database.exec(`BEGIN IMMEDIATE; ${makeDerived} DELETE FROM indexed; DELETE FROM uuid; DELETE FROM piece; REINDEX; COMMIT`);
    return;
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK');
    if (!isDamage(error)) throw error;
  }
  database.enableDefensive(false);
  database.exec(`PRAGMA writable_schema = ON; BEGIN IMMEDIATE;
    DELETE FROM sqlite_schema WHERE name IN ('indexed', 'uuid', 'piece') OR type = 'index' AND sql IS NOT NULL; COMMIT;
    PRAGMA writable_schema = RESET; VACUUM`);
  database.exec(`BEGIN IMMEDIATE; ${makeDerived} COMMIT`);
}

function metaNumber(database: DatabaseSync, name: string, otherwise = 0): number {
  return Number(database.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.value ?? otherwise);
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

function distinctKeys(functions: EntryFunctions, attributes: readonly Attribute[]): { attribute: string; value: string }[] {
  const keys = new Map<string, { attribute: string; value: string }>();
  for (const { attribute, value } of functions.keysOf(attributes)) {
    const cut = value.slice(0, indexKeyMax);
    keys.set(`${attribute}=${cut}`, { attribute, value: cut });
  }
  return [...keys.values()];
}
