/**
 * Which entries were created or changed since or until a time: an order kept in memory, twelve octets for each id, and nothing of it in the
 * database.
 *
 *   the first who asks ──► all entries are read once, in pieces ──► three columns by entry id ◄── the journal: entries changed since
 *
 * A write pays nothing: who asks next reads the entries that the journal names since the last one asked. Looking through a column of a million takes
 * some milliseconds, where reading the entries takes seconds. What the columns give is a superset, as times are kept in seconds; the caller
 * looks at each entry. They may be used while no transaction is open only, as everything that reads.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { attributesOf } from './body-of-row.ts';
import type { Journal } from './journal.ts';
import type { Statements } from './statements.ts';

/** Ids that the columns hold at most: 240 MB. Above it such searches read the entries. */
const idsMax = 20_000_000;
/** Entries and changes that are read in one piece. */
const pieceMax = 1000;

/** When an entry was created and last changed, as `timeNumber` gives it; 0 where it does not say. */
export interface EntryTimes {
  readonly created: number;
  readonly changed: number;
}

/** The columns: times that an entry tells of itself, and that of its CSN. */
export type TimeColumn = keyof EntryTimes | 'csn';

/** What the index reads, and how. */
export interface TimeSource {
  readonly statements: Statements;
  readonly journal: Journal;
  timesOf(attributes: readonly Attribute[]): EntryTimes;
  /** An entry as it is now. */
  entryOf(id: number): { readonly csn: string; readonly attributes: readonly Attribute[] } | undefined;
  lastId(): number;
  /** Change number up to which the journal was trimmed; `undefined` while it does not hold every change. */
  journalFrom(): number | undefined;
}

/** See the header of this file. */
export class TimeIndex {
  readonly #source: TimeSource;
  #columns: Record<TimeColumn, Uint32Array> = columnsOf(0);
  /** Entries up to this id were read, as of change `#asOf` or later. */
  #readTo = 0;
  #isWhole = false;
  #asOf = 0;

  constructor(source: TimeSource) {
    this.#source = source;
  }

  get bytes(): number {
    return this.#columns.created.byteLength * 3;
  }

  /** Whether it can be learnt at all. */
  get isPossible(): boolean {
    return this.#source.journalFrom() !== undefined && this.#source.lastId() < idsMax;
  }

  /** Whether it answers for the entries as they are now, after a short look into the journal if need be. */
  isCurrent(): boolean {
    if (!this.#isWhole || !this.isPossible || this.#isOvertaken()) return false;
    if (this.#source.journal.last - this.#asOf > pieceMax) return false;
    this.#readChanges();
    return true;
  }

  /** Reads what is missing, with `pause` between the pieces; false when that says that nobody waits any more. What was read is kept. */
  async learn(pause: () => Promise<boolean>): Promise<boolean> {
    while (this.isPossible && !this.isCurrent()) {
      if (this.#isWhole && !this.#isOvertaken()) this.#readChanges();
      else this.#readEntries();
      if (!(await pause())) return false;
    }
    return true;
  }

  /** Ids of entries whose time is in `range`, both ends of it too, in rising order; `undefined` when there are more than `limit`. Only when it is current. */
  idsWithin(which: TimeColumn, range: { readonly from: number; readonly to: number }, limit: number): number[] | undefined {
    const column = this.#columns[which];
    const ids: number[] = [];
    const { to } = range;
    const from = Math.max(range.from, 1);
    for (let id = 1; id < column.length; id += 1) {
      const time = column[id] as number;
      if (time < from || time > to) continue;
      if (ids.length === limit) return undefined;
      ids.push(id);
    }
    return ids;
  }

  // The journal no longer tells what was changed since.
  #isOvertaken(): boolean {
    return (this.#isWhole || this.#readTo > 0) && this.#asOf < (this.#source.journalFrom() ?? 0);
  }

  #readEntries(): void {
    const { statements, journal } = this.#source;
    if (this.#readTo === 0 || this.#isOvertaken()) {
      this.#readTo = 0;
      this.#asOf = journal.last;
      this.#columns = columnsOf(0);
    }
    const rows = statements.all('SELECT id, csn, body FROM entry WHERE id > ? ORDER BY id LIMIT ?', this.#readTo, pieceMax);
    for (const row of rows) {
      this.#readTo = row.id as number;
      const attributes = attributesOf(row.body as Uint8Array);
      this.#set(this.#readTo, attributes === undefined ? undefined : { csn: row.csn as string, attributes });
    }
    this.#isWhole = rows.length < pieceMax;
  }

  #readChanges(): void {
    const { journal } = this.#source;
    const records = journal.after(this.#asOf, pieceMax);
    for (const { entryId } of records) this.#set(entryId, this.#source.entryOf(entryId));
    this.#asOf = records.length < pieceMax ? journal.last : (records.at(-1)?.changeNumber ?? journal.last);
  }

  #set(id: number, entry: ReturnType<TimeSource['entryOf']>): void {
    if (id >= this.#columns.created.length) {
      const room = Math.min(idsMax, Math.ceil(Math.max(id, this.#source.lastId()) * 1.25) + 64);
      const before = this.#columns;
      this.#columns = columnsOf(room);
      for (const name of names) this.#columns[name].set(before[name]);
    }
    const times = entry === undefined ? undefined : this.#source.timesOf(entry.attributes);
    this.#columns.created[id] = times?.created ?? 0;
    this.#columns.changed[id] = times?.changed ?? 0;
    this.#columns.csn[id] = entry === undefined ? 0 : timeNumber(entry.csn);
  }
}

const names = ['created', 'changed', 'csn'] as const;

function columnsOf(room: number): Record<TimeColumn, Uint32Array> {
  return { created: new Uint32Array(room), changed: new Uint32Array(room), csn: new Uint32Array(room) };
}

const first = 1970;
const most = 0xffff_ffff;

/**
 * A time as `YYYYMMDDHHMMSS…` as a number in the same order, in seconds of months that all have 31 days; what is before 1970 or after 2100 counts as
 * the first or the last second.
 */
export function timeNumber(text: string): number {
  const at = (from: number, to: number): number => Number(text.slice(from, to));
  const days = ((at(0, 4) - first) * 12 + at(4, 6) - 1) * 31 + at(6, 8) - 1;
  const seconds = days * 86_400 + at(8, 10) * 3600 + at(10, 12) * 60 + at(12, 14);
  return Number.isNaN(seconds) ? most : Math.min(most, Math.max(1, seconds));
}
