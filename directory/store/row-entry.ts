/**
 * An entry as a row of the database. Most readers want a part of it, so its attributes and the text of its UUID are made when somebody asks.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { decodeBody } from './entry-body.ts';
import type { ReadEntry } from './entry-store.ts';
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
  /** What was shown of it last, see `ReadEntry.shown`. It goes with the row, when that changes. */
  shown?: { readonly by: object; readonly octets: Buffer } | undefined;
}

/** Longest octets that are kept with a row; their room is counted in from the start. */
const shownBytesMax = 256;

/** Rough size of a row in memory: the objects of the runtime are most of it. */
export function rowBytes(row: EntryRow): number {
  return 550 + shownBytesMax + row.body.length + (row.rdn?.length ?? 0) + row.rdnNorm.length;
}

/** The same row with its octets in shared memory: as SQLite gives them, each value brings a block of its own. */
export function packedRow(row: EntryRow): EntryRow {
  const { id, parentId, rdnNorm, rdn, csn } = row;
  return { id, parentId, rdnNorm, rdn, uuid: Buffer.from(row.uuid), csn, body: Buffer.from(row.body), shown: undefined };
}

/** See the header of this file. */
export class RowEntry implements ReadEntry {
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

  shown(by: object, make: () => Buffer): Buffer {
    const known = this.#row.shown;
    if (known?.by === by) return known.octets;
    const octets = make();
    if (octets.length <= shownBytesMax) this.#row.shown = { by, octets };
    return octets;
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
