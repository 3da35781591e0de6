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

/** New rows of one statement: each call costs as much as several rows do, and each value that is handed over half as much. */
const rowsAtOnce = 32;

/** Inserts them under ids from `firstId`, but those whose name is taken; gives how many were inserted. */
export function insertRows(statements: Statements, rows: readonly NewRow[], firstId: number): number {
  let added = 0;
  for (let at = 0, count = rowsAtOnce; at < rows.length; at += count) {
    while (count > rows.length - at) count /= 2;
    const [parentId, areAlike] = parentOf(rows, at, at + count);
    const values: SQLInputValue[] = areAlike ? [firstId + at, parentId] : [firstId + at];
    for (let one = at; one < at + count; one += 1) {
      const row = rows[one] as NewRow;
      if (areAlike) values.push(row.rdnNorm, row.uuid, row.csn, row.body);
      else values.push(row.parentId, row.rdnNorm, row.rdn === row.rdnNorm ? null : row.rdn, row.uuid, row.csn, row.body);
    }
    added += statements.changes(areAlike ? insertAlike(count) : insertAny(count), values);
  }
  return added;
}

// Accounts of one domain, written as they are compared, are nearly all there is.
function parentOf(rows: readonly NewRow[], from: number, end: number): readonly [parentId: number, areAlike: boolean] {
  const { parentId } = rows[from] as NewRow;
  for (let at = from; at < end; at += 1) {
    const row = rows[at] as NewRow;
    if (row.parentId !== parentId || row.rdn !== row.rdnNorm) return [parentId, false];
  }
  return [parentId, true];
}

const intoEntry = 'INSERT OR IGNORE INTO entry (id, parentId, rdnNorm, rdn, uuid, csn, body) VALUES';
const anyTexts = new Map<number, string>();
const alikeTexts = new Map<number, string>();

/** Rows of any kind: the first id, then six values of each. */
function insertAny(count: number): string {
  return kept(anyTexts, count, (at) => `(?1 + ${at}, ?, ?, ?, ?, ?, ?)`);
}

/** Rows below one parent, whose RDNs are their keys: the first id, the parent, then four values of each. */
function insertAlike(count: number): string {
  return kept(alikeTexts, count, (at) => `(?1 + ${at}, ?2, ?, NULL, ?, ?, ?)`);
}

function kept(texts: Map<number, string>, count: number, row: (at: number) => string): string {
  let text = texts.get(count);
  if (text === undefined) {
    text = `${intoEntry} ${Array.from({ length: count }, (_, at) => row(at)).join(', ')}`;
    texts.set(count, text);
  }
  return text;
}
