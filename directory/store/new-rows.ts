/** Entries that are new, written as rows by statements for many. */
import type { SQLInputValue } from 'node:sqlite';
import type { Statements } from './statements.ts';

/** A new entry as its row, with what follows from its attributes. */
export interface NewRow {
  readonly parentId: number;
  readonly rdnNorm: string;
  readonly rdn: string;
  /** 16 octets. */
  readonly uuid: Uint8Array;
  readonly csn: string;
  /** See entry-body.ts. */
  readonly body: Uint8Array;
  /** Index keys, attribute and value in turn. */
  readonly keys: readonly string[];
  /** Counters beside `entries`. */
  readonly tallies: readonly string[];
}

/** Inserts them under ids from `firstId`, but those whose name is taken; gives how many were inserted. */
export function insertRows(statements: Statements, rows: readonly NewRow[], firstId: number): number {
  let added = 0;
  for (let at = 0, count = rowsAtOnce; at < rows.length; at += count) {
    while (count > rows.length - at) count /= 2;
    const values: SQLInputValue[] = [];
    for (let one = at; one < at + count; one += 1) {
      const { parentId, rdnNorm, rdn, uuid, csn, body } = rows[one] as NewRow;
      values.push(firstId + one, parentId, rdnNorm, rdn === rdnNorm ? null : rdn, uuid, csn, body);
    }
    added += statements.changes(insertNewRows(count), values);
  }
  return added;
}

/** New rows of one statement: each call costs as much as several rows do. */
const rowsAtOnce = 16;
const insertsOfRows = new Map<number, string>();

function insertNewRows(count: number): string {
  let text = insertsOfRows.get(count);
  if (text === undefined) {
    text = `INSERT OR IGNORE INTO entry (id, parentId, rdnNorm, rdn, uuid, csn, body) VALUES ${Array(count).fill('(?, ?, ?, ?, ?, ?, ?)').join(', ')}`;
    insertsOfRows.set(count, text);
  }
  return text;
}
