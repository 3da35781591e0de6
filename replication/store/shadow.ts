/**
 * What one replica is known to hold: of every entry its name and a digest of each attribute, so that a change is written without reading
 * the replica first.
 *
 *   entryUUID ──► (parent, RDN, [attribute, digest] …)          parents are numbered: renaming one renames what is below it
 *
 * It is told what the replica has acknowledged, and stored before the checkpoint that covers it. It may be behind the replica by what came
 * after its last storing: entries of which the catch-up that follows names every one, and which are read there. So it is believed only
 * once a catch-up is over, and only together with the checkpoint it was stored for. Lost or damaged, it is begun anew: that costs a read
 * for each entry's first change and nothing else. Hence no flushes either (synchronous=NORMAL). A write that it led astray is refused by
 * the replica, whose entry then is read; what somebody changed at the replica by hand is the comparison's to find.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { lengthContentStart, readLength } from '#protocol/ldap/ber.ts';
import { uuidToBytes } from '#protocol/ldap/controls.ts';
import { joinDn, normalizeAttributeType, splitDn } from '#protocol/ldap/dn.ts';
import { type EncodedImages, ImageWalker } from '#protocol/ldap/image-batch.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { digestBytes, isDigestOf, writeDigest, writeDigestOf } from '#replication/content-digest.ts';
import type { KnownEntry } from '#replication/decide.ts';

const schemaVersion = 1;
const tables = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
  CREATE TABLE attribute (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
  CREATE TABLE parent (id INTEGER PRIMARY KEY, dn TEXT NOT NULL);
  CREATE INDEX parentDn ON parent (dn);
  CREATE TABLE entry (id INTEGER PRIMARY KEY, uuid BLOB NOT NULL UNIQUE, parentId INTEGER NOT NULL, rdn TEXT NOT NULL, content BLOB NOT NULL);
  PRAGMA user_version = ${schemaVersion};
`;
/** Of one attribute of an entry: its number and its digest. */
const itemBytes = 2 + digestBytes;
const attributesMax = 65_535;
/** Parents kept in memory by name; at the limit all are forgotten and looked up again. */
const parentsMax = 4096;
/** Attributes of an entry whose types are expected where they were in the last one. */
const usualMax = 64;
/** Writes that are stored together at most. */
const unstoredMax = 16_384;
/** Memory for pages of the file. */
const pagesKb = 4096;

/** A file of this room in the service's state directory; `kind`, e.g. `shadow`, tells it from the replica's others. */
export function stateFile(directory: string, replica: string, kind: string): string {
  return `${directory}/${replica.replace(/[^A-Za-z0-9._-]/g, '_')}.${kind}.sqlite`;
}

/** To what the shadow belongs: a master's state at the replica. */
export interface ShadowState {
  readonly master: string;
  readonly scope: string;
  readonly cookie: Buffer;
}

type Statements = Readonly<
  Record<'find' | 'put' | 'remove' | 'parent' | 'parentByDn' | 'addParent' | 'addAttribute' | 'setMeta', StatementSync>
>;

/** See the header of this file. */
export class Shadow implements Disposable {
  readonly #log: Pick<Logger, 'warn'>;
  readonly #attributeIds = new Map<string, number>();
  readonly #attributeNames = new Map<number, string>();
  readonly #parentIds = new Map<string, number>();
  readonly #parentDns = new Map<number, string>();
  /** Of the entry that was put last from octets. */
  #lastParent: { readonly octets: Buffer; readonly id: number } | undefined;
  readonly #statements: Statements;
  /** Types of attributes by their place in the entry that was put last. */
  readonly #usual: { readonly octets: Buffer; readonly id: number }[] = [];
  /** Where the entry that is put from octets is made ready: SQLite copies what it is given. */
  readonly #uuid = Buffer.alloc(16);
  #room: Buffer = Buffer.alloc(64 * itemBytes);
  #content: Buffer = this.#room;
  /** `undefined` once it has failed: nothing is known any more. */
  #database: DatabaseSync | undefined;
  #key: Buffer;
  #unstored = 0;
  #isWriting = false;

  private constructor(database: DatabaseSync, newKey: Buffer, log: Pick<Logger, 'warn'>) {
    this.#database = database;
    this.#log = log;
    this.#statements = {
      find: database.prepare('SELECT parentId, rdn, content FROM entry WHERE uuid = ?'),
      put: database.prepare('INSERT OR REPLACE INTO entry (uuid, parentId, rdn, content) VALUES (?, ?, ?, ?)'),
      remove: database.prepare('DELETE FROM entry WHERE uuid = ?'),
      parent: database.prepare('SELECT dn FROM parent WHERE id = ?'),
      parentByDn: database.prepare('SELECT id FROM parent WHERE dn = ?'),
      addParent: database.prepare('INSERT INTO parent (dn) VALUES (?)'),
      addAttribute: database.prepare('INSERT INTO attribute (id, name) VALUES (?, ?)'),
      setMeta: database.prepare('INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)'),
    };
    const key = this.#meta('key');
    this.#key = key ?? newKey;
    if (key === undefined) this.#statements.setMeta.run('key', newKey);
    for (const { id, name } of database.prepare('SELECT id, name FROM attribute').all()) this.#nameAttribute(Number(id), String(name));
  }

  /**
   * Opens it, creating it where there is none; `undefined`, and a line in the log, where that cannot be. A file that is damaged or of
   * another version is emptied by `remove` and made anew.
   *
   * @param path the file, or `:memory:`
   * @param newKey eight bytes of chance for a new one
   */
  static async open(
    path: string,
    newKey: Buffer,
    log: Pick<Logger, 'warn'>,
    remove: (path: string) => Promise<void>,
  ): Promise<Shadow | undefined> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return new Shadow(openDatabase(path), newKey, log);
      } catch (error) {
        if (attempt === 0 && isUnusable(error)) {
          log.warn(
            {},
            `${path}, what the replica is known to hold, is damaged or of another version (${messageOf(error)}): it is begun anew`,
          );
          for (const suffix of ['', '-wal', '-shm']) await remove(`${path}${suffix}`);
          continue;
        }
        log.warn(
          {},
          `${path} cannot be opened (${messageOf(error)}): the replica is read before every change until the service starts again`,
        );
        return undefined;
      }
    }
  }

  /** Whether it holds what belongs to that checkpoint; if not it is emptied. */
  resume(state: ShadowState | undefined): boolean {
    const isOurs = this.#try(() => {
      if (state === undefined) return false;
      const stored = [this.#meta('cookie'), this.#meta('cookieBefore')];
      const owner = this.#meta('owner')?.toString('utf8');
      return owner === ownerOf(state) && stored.some((cookie) => cookie?.equals(state.cookie) === true);
    });
    if (isOurs !== true) this.clear();
    return isOurs === true;
  }

  /** What the replica holds of that entry, as far as is known. */
  find(uuid: string): KnownEntry | undefined {
    return this.#try(() => {
      const row = this.#statements.find.get(uuidToBytes(uuid));
      if (row === undefined) return undefined;
      const { buffer, byteOffset, byteLength } = row.content as Uint8Array<ArrayBuffer>;
      const parent = this.#parentDn(Number(row.parentId));
      if (parent === undefined) return undefined;
      return new StoredEntry(joinDn(String(row.rdn), parent), Buffer.from(buffer, byteOffset, byteLength), this.#attributeNames, this.#key);
    });
  }

  /** The replica has acknowledged this state of an entry. */
  put(uuid: string, dn: string, attributes: readonly Attribute[]): void {
    this.#write(() => {
      const { rdn, parent } = splitDn(dn) ?? { rdn: '', parent: '' };
      const content = Buffer.allocUnsafe(attributes.length * itemBytes);
      for (const [i, attribute] of attributes.entries()) {
        const id = this.#attributeId(normalizeAttributeType(attribute.type));
        if (id === undefined) {
          this.#statements.remove.run(uuidToBytes(uuid));
          return;
        }
        content.writeUInt16BE(id, i * itemBytes);
        writeDigest(content, i * itemBytes + 2, attribute, this.#key);
      }
      this.#statements.put.run(uuidToBytes(uuid), this.#parentId(parent), rdn, content);
    });
  }

  /** The same of entries that are encoded, all but those at the places `without`. */
  putAll(block: EncodedImages, without: ReadonlySet<number>): void {
    this.#write(() => {
      const walker = new ImageWalker(block);
      for (let index = 0; walker.next(); index += 1) if (!without.has(index)) this.#putOctets(walker);
    });
    this.#unstored += block.count;
  }

  /** The entry is gone, or what the replica holds of it is not known any more. */
  forget(uuid: string): void {
    this.#write(() => this.#statements.remove.run(uuidToBytes(uuid)));
  }

  /** A comparison found that entries are not as they should be: they are read before their next change. */
  doubt({ differences, isCut }: { readonly differences: Iterable<{ readonly uuid: string }>; readonly isCut: boolean }): void {
    if (isCut) this.clear();
    else for (const { uuid } of differences) this.forget(uuid);
  }

  /** An entry got another name at the replica, and what is below it with it. */
  renamed(from: string, to: string): void {
    this.#write(() => {
      // Accounts have nothing below them: that costs no more than this look.
      if (this.#statements.parentByDn.get(from) === undefined) return;
      this.#database?.prepare('UPDATE parent SET dn = ? WHERE dn = ?').run(to, from);
      const below = `,${from}`;
      this.#database
        ?.prepare('UPDATE parent SET dn = substr(dn, 1, length(dn) - length(?1)) || ?2 WHERE substr(dn, -length(?1)) = ?1')
        .run(below, `,${to}`);
      this.#forgetParents();
    });
  }

  /** Stores what was told; call it before the checkpoint with that cookie is stored. */
  store(state: ShadowState): void {
    this.#write(() => {
      const before = this.#meta('cookie');
      this.#statements.setMeta.run('owner', Buffer.from(ownerOf(state)));
      if (before !== undefined) this.#statements.setMeta.run('cookieBefore', before);
      this.#statements.setMeta.run('cookie', state.cookie);
    });
    this.#commit();
  }

  /** Forgets everything, durably. */
  clear(): void {
    this.#write(() => this.#database?.exec("DELETE FROM entry; DELETE FROM parent; DELETE FROM meta WHERE name <> 'key'"));
    this.#commit();
    this.#forgetParents();
  }

  [Symbol.dispose](): void {
    this.#database?.close();
    this.#database = undefined;
  }

  #meta(name: string): Buffer | undefined {
    const value = this.#database?.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.value;
    return value === undefined ? undefined : Buffer.from(value as Uint8Array);
  }

  #putOctets({ octets, places }: ImageWalker): void {
    const { uuidStart, dnTextStart, attributesStart, end } = places;
    const content = this.#contentOf(octets, attributesStart, end);
    octets.copy(this.#uuid, 0, uuidStart, uuidStart + 16);
    if (content === undefined) {
      this.#statements.remove.run(this.#uuid);
      return;
    }
    const comma = firstComma(octets, dnTextStart, attributesStart);
    const below = this.#lastParent;
    // Most entries lie below the same as the one before.
    if (comma !== undefined && below !== undefined && isSame(below.octets, octets, comma + 1, attributesStart)) {
      this.#statements.put.run(this.#uuid, below.id, octets.toString('utf8', dnTextStart, comma), content);
      return;
    }
    const { rdn, parent } = splitDn(octets.toString('utf8', dnTextStart, attributesStart)) ?? { rdn: '', parent: '' };
    const id = this.#parentId(parent);
    if (comma !== undefined) this.#lastParent = { octets: Buffer.from(octets.subarray(comma + 1, attributesStart)), id };
    this.#statements.put.run(this.#uuid, id, rdn, content);
  }

  // Of a list that is known to be well-formed; `undefined` when there are too many kinds of attributes. Good until the next call.
  #contentOf(octets: Buffer, start: number, end: number): Buffer | undefined {
    let count = 0;
    readLength(octets, start + 1, end);
    for (let at = lengthContentStart(); at < end; count += 1) {
      const length = readLength(octets, at + 1, end);
      const typeAt = lengthContentStart();
      const next = typeAt + length;
      const typeLength = readLength(octets, typeAt + 1, next);
      const typeStart = lengthContentStart();
      const setAt = typeStart + typeLength;
      const id = this.#idOfOctets(octets, typeStart, setAt, count);
      if (id === undefined) return undefined;
      readLength(octets, setAt + 1, next);
      if (this.#room.length < (count + 1) * itemBytes) this.#room = Buffer.concat([this.#room, Buffer.alloc(this.#room.length)]);
      this.#room.writeUInt16BE(id, count * itemBytes);
      writeDigestOf(this.#room, count * itemBytes + 2, octets, lengthContentStart(), next, this.#key);
      at = next;
    }
    const length = count * itemBytes;
    if (this.#content.length !== length || this.#content.buffer !== this.#room.buffer) this.#content = this.#room.subarray(0, length);
    return this.#content;
  }

  // Most entries have their attributes in the order of the one before.
  #idOfOctets(octets: Buffer, start: number, end: number, position: number): number | undefined {
    const usual = this.#usual[position];
    if (usual !== undefined && isSame(usual.octets, octets, start, end)) return usual.id;
    const id = this.#attributeId(normalizeAttributeType(octets.toString('latin1', start, end)));
    if (id !== undefined && position < usualMax) this.#usual[position] = { octets: Buffer.from(octets.subarray(start, end)), id };
    return id;
  }

  #attributeId(name: string): number | undefined {
    const known = this.#attributeIds.get(name);
    if (known !== undefined) return known;
    const id = this.#attributeIds.size + 1;
    if (id > attributesMax) return undefined;
    this.#statements.addAttribute.run(id, name);
    this.#nameAttribute(id, name);
    return id;
  }

  #nameAttribute(id: number, name: string): void {
    this.#attributeIds.set(name, id);
    this.#attributeNames.set(id, name);
  }

  #parentId(dn: string): number {
    const known = this.#parentIds.get(dn);
    if (known !== undefined) return known;
    const id = Number(this.#statements.parentByDn.get(dn)?.id ?? this.#statements.addParent.run(dn).lastInsertRowid);
    if (this.#parentIds.size >= parentsMax) this.#forgetParents();
    this.#parentIds.set(dn, id);
    return id;
  }

  #parentDn(id: number): string | undefined {
    const known = this.#parentDns.get(id);
    if (known !== undefined) return known;
    const dn = this.#statements.parent.get(id)?.dn;
    if (typeof dn !== 'string') return undefined;
    if (this.#parentDns.size >= parentsMax) this.#forgetParents();
    this.#parentDns.set(id, dn);
    return dn;
  }

  #forgetParents(): void {
    this.#lastParent = undefined;
    this.#parentIds.clear();
    this.#parentDns.clear();
  }

  #write(write: () => unknown): void {
    this.#try(() => {
      if (!this.#isWriting) this.#database?.exec('BEGIN');
      this.#isWriting = true;
      write();
    });
    this.#unstored += 1;
    if (this.#unstored >= unstoredMax) this.#commit();
  }

  #commit(): void {
    this.#try(() => {
      if (this.#isWriting) this.#database?.exec('COMMIT');
      this.#isWriting = false;
    });
    this.#unstored = 0;
  }

  #try<T>(use: () => T): T | undefined {
    if (this.#database === undefined) return undefined;
    try {
      return use();
    } catch (error) {
      this.#log.warn({}, `what the replica holds cannot be kept in mind any more (${messageOf(error)}): it is read before every change`);
      // Closing takes back what was not stored: the file stays behind the checkpoint and is not believed at the next start.
      const database = this.#database;
      this.#database = undefined;
      database.close();
      return undefined;
    }
  }
}

/** An entry as its digests tell it. */
class StoredEntry implements KnownEntry {
  readonly dn: string;
  readonly #digests = new Map<string, number>();
  readonly #content: Buffer;
  readonly #key: Buffer;

  constructor(dn: string, content: Buffer, names: ReadonlyMap<number, string>, key: Buffer) {
    this.dn = dn;
    this.#content = content;
    this.#key = key;
    for (let at = 0; at < content.length; at += itemBytes) this.#digests.set(names.get(content.readUInt16BE(at)) ?? '', at + 2);
  }

  get types(): Iterable<string> {
    return this.#digests.keys();
  }

  holds(attribute: Attribute, type: string): boolean {
    const at = this.#digests.get(type);
    if (at === undefined) return false;
    return isDigestOf(this.#content, at, attribute, this.#key);
  }
}

// Between an RDN and its parent; `undefined` where there is none, or a space beside it.
function firstComma(octets: Buffer, start: number, end: number): number | undefined {
  for (let at = start; at < end; at += 1) {
    if (octets[at] === 0x5c) at += 1;
    else if (octets[at] === 0x2c) return octets[at - 1] === 0x20 || octets[at + 1] === 0x20 ? undefined : at;
  }
  return undefined;
}

function isSame(one: Buffer, octets: Buffer, start: number, end: number): boolean {
  if (one.length !== end - start) return false;
  for (let i = 0; i < one.length; i += 1) if (one[i] !== octets[start + i]) return false;
  return true;
}

function ownerOf({ master, scope }: ShadowState): string {
  return JSON.stringify([master, scope]);
}

function openDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path);
  try {
    database.exec(
      'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 8192',
    );
    database.exec(`PRAGMA cache_size = -${pagesKb}`);
    const version = database.prepare('PRAGMA user_version').get()?.user_version;
    if (version === 0) database.exec(`BEGIN EXCLUSIVE; ${tables} COMMIT`);
    else if (version !== schemaVersion) throw new UnusableFile(`version ${String(version)} instead of ${schemaVersion}`);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

class UnusableFile extends Error {}

// SQLITE_CORRUPT and SQLITE_NOTADB; a file that another process holds, or may not be read, is left as it is.
function isUnusable(error: unknown): boolean {
  if (error instanceof UnusableFile) return true;
  const code = error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : 0;
  return code === 11 || code === 26;
}
