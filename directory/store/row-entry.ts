/**
 * An entry as a row of the database. Most readers want a part of it, so its attributes and the text of its UUID are made when somebody asks.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { decodeBody } from './entry-body.ts';
import type { StoredEntry } from './entry-store.ts';
import { uuidToText } from './uuid.ts';

/** The columns. */
export interface EntryRow {
  readonly id: number;
  readonly parentId: number;
  readonly rdnNorm: string;
  /** Null where it equals `rdnNorm`. */
  readonly rdn: string | null;
  readonly uuid: Uint8Array;
  readonly csn: string;
  readonly body: Uint8Array;
}

/** Rough size of a row in memory: the objects of the runtime are most of it. */
export function rowBytes(row: EntryRow): number {
  return 550 + row.body.length + (row.rdn?.length ?? 0) + row.rdnNorm.length;
}

/** The same row with its octets in shared memory: as SQLite gives them, each value brings a block of its own. */
export function packedRow(row: EntryRow): EntryRow {
  const { id, parentId, rdnNorm, rdn, csn } = row;
  return { id, parentId, rdnNorm, rdn, uuid: Buffer.from(row.uuid), csn, body: Buffer.from(row.body) };
}

/** See the header of this file. */
export class RowEntry implements StoredEntry {
  readonly id: number;
  readonly parentId: number;
  readonly rdn: string;
  readonly rdnNorm: string;
  readonly csn: string;
  readonly #row: EntryRow;
  #attributes: readonly Attribute[] | undefined;

  constructor(row: EntryRow) {
    this.id = row.id;
    this.parentId = row.parentId;
    this.rdn = row.rdn ?? row.rdnNorm;
    this.rdnNorm = row.rdnNorm;
    this.csn = row.csn;
    this.#row = row;
  }

  get uuid(): string {
    return uuidToText(this.#row.uuid);
  }

  get attributes(): readonly Attribute[] {
    if (this.#attributes === undefined) {
      const { body } = this.#row;
      this.#attributes = decodeBody(Buffer.from(body.buffer, body.byteOffset, body.byteLength));
    }
    return this.#attributes;
  }
}
