/**
 * An entry as a row of the database, packed into one piece of octets, as the cache keeps it too. Most readers want a part of it, so its attributes
 * and the text of its UUID are made when somebody asks.
 *
 *   parent id (8 octets), lengths of both names and of the CSN (4, 4, 2), UUID (16), normalised RDN, RDN (none where it is the same), CSN, body
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

const uuidAt = 18;
const textsAt = 34;

/** A row in one piece. */
export function packRow(row: EntryRow): Buffer {
  const normBytes = Buffer.byteLength(row.rdnNorm);
  const rdnBytes = row.rdn === null ? 0 : Buffer.byteLength(row.rdn);
  const packed = Buffer.allocUnsafe(textsAt + normBytes + rdnBytes + row.csn.length + row.body.length);
  packed.writeDoubleLE(row.parentId, 0);
  packed.writeUInt32LE(normBytes, 8);
  packed.writeUInt32LE(rdnBytes, 12);
  packed.writeUInt16LE(row.csn.length, 16);
  packed.set(row.uuid, uuidAt);
  let at = textsAt;
  at += packed.write(row.rdnNorm, at);
  if (row.rdn !== null) at += packed.write(row.rdn, at);
  at += packed.write(row.csn, at, 'latin1');
  packed.set(row.body, at);
  return packed;
}

/** See the header of this file. Names and CSN are there from the start, because writes copy all but UUID and attributes by a spread. */
export class RowEntry implements StoredEntry {
  readonly id: number;
  readonly parentId: number;
  readonly rdn: string;
  readonly rdnNorm: string;
  readonly csn: string;
  readonly #packed: Buffer;
  readonly #bodyAt: number;
  #attributes: readonly Attribute[] | undefined;

  /** @param packed of `packRow`; it must stay as it is */
  constructor(id: number, packed: Buffer) {
    const normEnd = textsAt + packed.readUInt32LE(8);
    const rdnEnd = normEnd + packed.readUInt32LE(12);
    this.id = id;
    this.parentId = packed.readDoubleLE(0);
    this.rdnNorm = packed.toString('utf8', textsAt, normEnd);
    this.rdn = rdnEnd === normEnd ? this.rdnNorm : packed.toString('utf8', normEnd, rdnEnd);
    this.#bodyAt = rdnEnd + packed.readUInt16LE(16);
    this.csn = packed.toString('latin1', rdnEnd, this.#bodyAt);
    this.#packed = packed;
  }

  get uuid(): string {
    return uuidToText(this.#packed.subarray(uuidAt, textsAt));
  }

  get attributes(): readonly Attribute[] {
    this.#attributes ??= decodeBody(this.#packed.subarray(this.#bodyAt));
    return this.#attributes;
  }
}
