/**
 * Entries out of the database, by id and by name, and what is remembered of them. It knows nothing of transactions: who changes an entry has it
 * forget that one, and who undoes changes everything.
 */
import type { RawEntry, ShownEntry, StoredEntry } from './entry-store.ts';
import type { NewRow } from './new-rows.ts';
import { PackedCache } from './packed-cache.ts';
import { type EntryRow, packRow, RowEntry } from './row-entry.ts';
import { ShownCache } from './shown-cache.ts';
import type { Statements } from './statements.ts';

/** Entries whose attributes stay decoded: domains and clusters, which every write of an account looks at. */
const decodedMax = 1000;
/** No name that is missing: ids begin at 1. */
const nobody = { parentId: -1, rdnNorm: '' } as const;

/** See the header of this file. */
export class EntryReader {
  readonly #statements: Statements;
  readonly #rows: PackedCache;
  readonly #shown: ShownCache;
  readonly #children: PackedCache;
  readonly #decoded = new Map<number, StoredEntry>();
  /** A name that was just looked for in vain: whoever adds an entry looks twice. */
  #missing: { readonly parentId: number; readonly rdnNorm: string } = nobody;

  /** @param bytes memory for rows, for what answers showed of entries, and for names */
  constructor(statements: Statements, bytes: { readonly rows: number; readonly shown: number; readonly names: number }) {
    this.#statements = statements;
    this.#rows = new PackedCache(bytes.rows);
    this.#shown = new ShownCache(bytes.shown);
    this.#children = new PackedCache(bytes.names);
  }

  /** Memory that what is remembered takes. */
  get bytes(): number {
    return this.#rows.bytes + this.#shown.bytes + this.#children.bytes;
  }

  byId(id: number): StoredEntry | undefined {
    const known = this.#rows.get(id);
    if (known !== undefined) return new RowEntry(id, Buffer.from(known));
    const row = this.#statements.get('SELECT * FROM entry WHERE id = ?', id) as EntryRow | undefined;
    if (row === undefined) return undefined;
    const packed = packRow(row);
    this.#rows.set(id, '', packed);
    return new RowEntry(id, packed);
  }

  // One value for all of them: taking six of each row out of the database costs three times as much.
  rawAfter(afterId: number, limit: number): RawEntry[] {
    const largest = Math.max(1, this.#statements.number(largestBody, afterId, limit) ?? 0);
    const fitting = Math.max(1, Math.min(limit, Math.floor(rawBytesMax / largest)));
    const all = this.#statements.arrays(rawRows, afterId, fitting)[0]?.[0] as Uint8Array | null | undefined;
    return all === null || all === undefined ? [] : rawEntries(Buffer.from(all.buffer, all.byteOffset, all.length));
  }

  /** See `EntryStore`, here and below. */
  byIdOften(id: number): StoredEntry | undefined {
    const known = this.#decoded.get(id);
    if (known !== undefined) return known;
    const entry = this.byId(id);
    if (entry === undefined) return undefined;
    if (this.#decoded.size >= decodedMax) this.#decoded.clear();
    this.#decoded.set(id, entry);
    return entry;
  }

  shown(id: number, by: number, make: (entry: StoredEntry) => Buffer): ShownEntry | undefined {
    const known = this.#shown.get(id, by);
    if (known !== undefined) return known;
    const entry = this.byId(id);
    if (entry === undefined) return undefined;
    const { parentId, rdn } = entry;
    const made = { id, parentId, rdn, octets: make(entry) };
    this.#shown.set(by, made);
    return made;
  }

  childId(parentId: number, rdnNorm: string): number | undefined {
    if (rdnNorm === this.#missing.rdnNorm && parentId === this.#missing.parentId) return undefined;
    const known = this.#children.getNumber(parentId, rdnNorm);
    if (known !== undefined) return known;
    const id = this.#statements.number('SELECT id FROM entry WHERE parentId = ? AND rdnNorm = ?', parentId, rdnNorm);
    if (id !== undefined) this.#children.setNumbers(parentId, rdnNorm, [id]);
    else this.#missing = { parentId, rdnNorm };
    return id;
  }

  /** An entry is so from now on. Whoever hears of a change asks for it next. */
  keep(id: number, { parentId, rdnNorm, rdn, uuid, csn, body }: Omit<NewRow, 'keys' | 'tallies'>): void {
    this.#rows.set(id, '', packRow({ id, parentId, rdnNorm, rdn: rdn === rdnNorm ? null : rdn, uuid, csn, body }));
    this.#children.setNumbers(parentId, rdnNorm, [id]);
  }

  /** Entries have come, or have other names now. */
  wasAdded(): void {
    this.#missing = nobody;
  }

  /** An entry is about to change. */
  forget(before: Pick<StoredEntry, 'id' | 'parentId' | 'rdnNorm'>): void {
    this.#rows.delete(before.id);
    this.#shown.delete(before.id);
    this.#decoded.delete(before.id);
    this.#children.delete(before.parentId, before.rdnNorm);
  }

  clear(): void {
    this.#missing = nobody;
    this.#rows.clear();
    this.#shown.clear();
    this.#decoded.clear();
    this.#children.clear();
  }
}

/** Bodies that are read together, octets; one that is larger is read alone. */
const rawBytesMax = 8_388_608;
const largestBody = 'SELECT max(size) FROM (SELECT octet_length(body) AS size FROM entry WHERE id > ? ORDER BY id LIMIT ?)';
const rawRows = `SELECT CAST(group_concat(row, '') AS BLOB) FROM (
  SELECT printf('%d,%d,%d,%d,%d,', id, parentId, octet_length(csn), octet_length(coalesce(rdn, rdnNorm)), octet_length(body))
    || uuid || csn || coalesce(rdn, rdnNorm) || body AS row
  FROM entry WHERE id > ? ORDER BY id LIMIT ?)`;

function rawEntries(octets: Buffer): RawEntry[] {
  const entries: RawEntry[] = [];
  let at = 0;
  const number = (): number => {
    let value = 0;
    for (let octet = octets[at] as number; octet !== 0x2c; octet = octets[at] as number) {
      value = value * 10 + octet - 0x30;
      at += 1;
    }
    at += 1;
    return value;
  };
  while (at < octets.length) {
    const [id, parentId] = [number(), number()];
    const [csnLength, rdnLength, bodyLength] = [number(), number(), number()];
    const csnStart = at + 16;
    const rdnStart = csnStart + csnLength;
    const bodyStart = rdnStart + rdnLength;
    entries.push({ id, parentId, octets, uuidStart: at, csnStart, rdnStart, bodyStart, end: bodyStart + bodyLength });
    at = bodyStart + bodyLength;
  }
  return entries;
}
