/**
 * Which entries a search has to look at: the planner. It gives ids in rising order, a superset of what matches, out of the index where the
 * filter allows, else from a walk over children or over all entries. The order makes the last id a complete cursor for paged results.
 */
import type { Filter } from '#protocol/ldap/filter.ts';
import type { SearchScope } from '#protocol/ldap/messages.ts';
import { orderedTimes } from '../schema/entry-times.ts';
import { isIndexed } from '../schema/mail-schema.ts';
import type { AttributeType, Schema } from '../schema/schema.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import { type EntryStore, rootId, type StoredEntry } from '../store/entry-store.ts';
import { type IndexKey, indexKeyMax } from '../store/key-index.ts';
import type { Pieces } from '../store/piece-index.ts';
import { type TimeColumn, timeNumber } from '../store/time-index.ts';

/** Ids are fetched in pages of so many; a page with fewer is the last. */
export const pageSize = 256;
/** A part of an AND that names more entries than this is not taken if another names fewer; parts of an OR are gathered up to here. */
const gatheredMax = 20_000;
/** Ids that planning reads in all; others wait meanwhile. A part that comes after that is one that the index tells nothing of. */
const plannedIdsMax = 100_000;
/** What a look-up costs beside what it gives, in ids; one by pieces compares lists. */
const lookUpCost = 20;
const piecesCost = 2_000;

/** A plan: pages of ids above a cursor. A page that is not full is the last. */
export interface Candidates {
  /** For explanation and tests. */
  readonly by: 'base' | 'index' | 'values' | 'children' | 'scan' | 'sorted';
  /** Which part of the filter the index answers, e.g. `mail equality`. */
  readonly on?: string;
  /**
   * To be awaited before the first `next` where it is there: reads the values of an index in pieces, with `pause` between them. False when
   * `pause` says that nobody waits any more.
   */
  prepare?(pause: () => Promise<boolean>): Promise<boolean>;
  /** Ids above `afterId`; of a sorted plan, those behind that position. */
  next(afterId: number): readonly number[];
}

/** What the index tells of a part of a filter. */
interface Found {
  readonly ids: readonly number[];
  readonly on: string;
}

/** What planning may still read. */
class Budget {
  #left = plannedIdsMax;

  /** The most that a part may give which is worth no more than `limit`. */
  most(limit: number): number {
    return Math.min(limit, this.#left);
  }

  /** Nothing is left. */
  get isSpent(): boolean {
    return this.#left <= 0;
  }

  /** Counts a look-up that could have given `most`, and passes on what it gave. */
  spent<T extends { readonly length: number }>(ids: T | undefined, most: number, cost = lookUpCost): T | undefined {
    this.#left -= cost + (ids?.length ?? most);
    return ids;
  }
}

/** Plans a search. */
export function planCandidates(store: EntryStore, schema: Schema, base: StoredEntry, scope: SearchScope, filter: Filter): Candidates {
  if (scope === 'base') return fromIds('base', [base.id]);
  const indexed = planFilter(store, schema, filter, new Budget());
  if (indexed !== undefined) {
    const isLong = indexed.next(0).length === pageSize;
    return (isLong ? planTimes(store, schema, filter, () => indexed) : undefined) ?? indexed;
  }
  // Few entries below the base are looked at sooner than the values of all.
  const below = scope === 'one' || base.parentId === rootId ? undefined : store.subtreeIds(base.id, gatheredMax);
  if (below !== undefined) return fromIds('children', below);
  const otherwise = (): Candidates =>
    planValues(store, schema, filter) ??
    (scope === 'one'
      ? { by: 'children', next: (afterId) => store.childIds(base.id, afterId, pageSize) }
      : { by: 'scan', next: (afterId) => store.idsAfter(afterId, pageSize) });
  return planTimes(store, schema, filter, otherwise) ?? otherwise();
}

function fromIds(by: Candidates['by'], ids: readonly number[], on?: string): Candidates {
  let at = 0;
  return {
    by,
    ...(on === undefined ? {} : { on }),
    next(afterId) {
      while (at < ids.length && (ids[at] as number) <= afterId) at += 1;
      return ids.slice(at, at + pageSize);
    },
  };
}

function fromKey(store: EntryStore, key: IndexKey): Candidates {
  return { by: 'index', on: `${key.attribute} equality`, next: (afterId) => store.idsWithKey(key, afterId, pageSize) };
}

function planFilter(store: EntryStore, schema: Schema, filter: Filter, budget: Budget): Candidates | undefined {
  if (filter.kind === 'and') return planAnd(store, schema, filter.filters, budget);
  const key = keyOf(schema, filter);
  if (key !== undefined) return fromKey(store, key);
  const found = gather(store, schema, filter, gatheredMax, budget);
  return found === undefined ? undefined : fromIds('index', found.ids, found.on);
}

// The part of an AND with the fewest entries; a long one is still better than a scan. Equalities tell first, for next to nothing; of the others
// no more is gathered than the best of them has.
function planAnd(store: EntryStore, schema: Schema, filters: readonly Filter[], budget: Budget): Candidates | undefined {
  let long: Candidates | undefined;
  let shortest: Found | undefined;
  const others: Filter[] = [];
  for (const filter of filters) {
    const key = keyOf(schema, filter);
    if (key === undefined) {
      others.push(filter);
      continue;
    }
    if (budget.isSpent) break;
    const ids = store.idsWithKey(key, 0, pageSize);
    budget.spent(ids, pageSize);
    if (ids.length === pageSize) long = fromKey(store, key);
    else if (shortest === undefined || ids.length < shortest.ids.length) shortest = { ids, on: `${key.attribute} equality` };
    if (shortest !== undefined && shortest.ids.length <= 1) break;
  }
  if (shortest === undefined || shortest.ids.length > 1)
    shortest = gatherTimes(store, schema, others, shortest === undefined ? gatheredMax : shortest.ids.length - 1, budget) ?? shortest;
  for (const filter of others) {
    if (budget.isSpent || (shortest !== undefined && shortest.ids.length <= 1)) break;
    if (timeBoundOf(schema, filter) !== undefined) continue;
    const found = gather(store, schema, filter, shortest === undefined ? gatheredMax : shortest.ids.length - 1, budget);
    if (found !== undefined && (shortest === undefined || found.ids.length < shortest.ids.length)) shortest = found;
  }
  return shortest === undefined ? long : fromIds('index', shortest.ids, shortest.on);
}

// All ids that a filter can match, in rising order; `undefined` when the index does not tell, there are more than `limit`, or nothing is left to
// spend on finding out.
function gather(store: EntryStore, schema: Schema, filter: Filter, limit: number, budget: Budget): Found | undefined {
  if (budget.isSpent) return undefined;
  const most = budget.most(limit);
  const found = (ids: readonly number[] | undefined, on: string): Found | undefined =>
    budget.spent(ids, most) === undefined || ids === undefined || ids.length > most ? undefined : { ids, on };
  switch (filter.kind) {
    case 'equal':
    case 'present':
    case 'substrings':
    case 'greaterOrEqual':
    case 'lessOrEqual': {
      const type = schema.attributeType(filter.attribute);
      // Undefined for every entry (RFC 4511 §4.5.1.7): what a client asks of servers of several makes must not cost a scan here.
      if (type === undefined) return schema.description(filter.attribute) === undefined ? { ids: [], on: 'nothing' } : undefined;
      if (filter.kind === 'equal') return gatherEqual(store, type, filter.value, most, budget);
      if (filter.kind === 'greaterOrEqual' || filter.kind === 'lessOrEqual') return gatherTimes(store, schema, [filter], most, budget);
      if (filter.kind === 'substrings' && (filter.any.length > 0 || filter.final !== undefined)) {
        const ids = store.pieces.answers(type.key)
          ? budget.spent(store.pieces.idsWith(type.key, piecesOf(type, filter), most), most, piecesCost)
          : undefined;
        if (ids !== undefined) return { ids, on: `${type.key} pieces` };
      }
      if (type.family.size > 1 || type.key === 'objectclass' || !isIndexed(type.key, '')) return undefined;
      if (filter.kind === 'present') return found(store.idsWithPrefix({ attribute: type.key, value: '' }, most), `${type.key} presence`);
      if (filter.kind !== 'substrings' || filter.initial === undefined) return undefined;
      const value = type.substrings?.pieceKey?.(filter.initial)?.trimStart() ?? '';
      return value === '' ? undefined : found(store.idsWithPrefix({ attribute: type.key, value }, most), `${type.key} substring`);
    }
    case 'or': {
      const all = new Set<number>();
      const on: string[] = [];
      for (const part of filter.filters) {
        const one = gather(store, schema, part, limit, budget);
        if (one === undefined || all.size + one.ids.length > limit) return undefined;
        for (const id of one.ids) all.add(id);
        on.push(one.on);
      }
      return { ids: [...all].sort((a, b) => a - b), on: on.join(' or ') };
    }
    case 'and': {
      let best = gatherTimes(store, schema, filter.filters, most, budget);
      for (const part of filter.filters) {
        if (best?.ids.length === 0 || budget.isSpent) break;
        if (timeBoundOf(schema, part) !== undefined) continue;
        const one = gather(store, schema, part, best === undefined ? limit : best.ids.length - 1, budget);
        if (one !== undefined) best = one;
      }
      return best;
    }
    default:
      return undefined;
  }
}

function piecesOf(type: AttributeType, filter: Filter & { kind: 'substrings' }): Pieces {
  const keyOfPiece = (piece: Buffer | undefined): string => (piece === undefined ? '' : (type.substrings?.pieceKey?.(piece) ?? ''));
  return {
    initial: keyOfPiece(filter.initial).trimStart(),
    any: filter.any.map((piece) => keyOfPiece(piece)),
    final: keyOfPiece(filter.final).trimEnd(),
  };
}

function gatherEqual(store: EntryStore, type: AttributeType, value: Buffer, limit: number, budget: Budget): Found | undefined {
  if (type.key === 'entryuuid') {
    const uuid = type.equality?.key(value);
    const entry = uuid === undefined ? undefined : store.byUuid(uuid);
    budget.spent([], 0);
    return { ids: entry === undefined ? [] : [entry.id], on: 'entryuuid equality' };
  }
  const key = indexKeyOf(type, value);
  if (key === undefined) return undefined;
  const ids = store.idsWithKey(key, 0, limit + 1);
  budget.spent(ids, limit);
  return ids.length > limit ? undefined : { ids, on: `${key.attribute} equality` };
}

/** A filter that bounds a time or a CSN. */
interface TimeBound {
  readonly type: AttributeType;
  readonly which: TimeColumn;
  readonly isFrom: boolean;
  readonly text: string;
}

/** From when to when; a bound that is not there is empty. */
interface TimeRange {
  readonly on: string;
  from: string;
  to: string;
}

function timeBoundOf(schema: Schema, filter: Filter): TimeBound | undefined {
  if (filter.kind !== 'greaterOrEqual' && filter.kind !== 'lessOrEqual') return undefined;
  const type = schema.attributeType(filter.attribute);
  const which = type?.key === 'entrycsn' ? 'csn' : orderedTimes[type?.key ?? ''];
  if (type === undefined || which === undefined) return undefined;
  // Other spellings of a CSN have another place among the texts.
  const csn = filter.value.toString('latin1');
  const text = which === 'csn' ? (csnPattern.test(csn) ? csn : undefined) : type.ordering?.key(filter.value);
  return text === undefined ? undefined : { type, which, isFrom: filter.kind === 'greaterOrEqual', text };
}

// Entries of a time, out of the bounds that an AND sets to it, or of the one bound that is a filter by itself.
function gatherTimes(store: EntryStore, schema: Schema, filters: readonly Filter[], limit: number, budget: Budget): Found | undefined {
  const ranges = new Map<TimeColumn, TimeRange>();
  for (const filter of filters) {
    const bound = timeBoundOf(schema, filter);
    if (bound === undefined) continue;
    const range = ranges.get(bound.which) ?? { on: `${bound.type.key} ordering`, from: '', to: '' };
    if (bound.isFrom && bound.text > range.from) range.from = bound.text;
    if (!bound.isFrom && (range.to === '' || bound.text < range.to)) range.to = bound.text;
    ranges.set(bound.which, range);
  }
  let best: Found | undefined;
  for (const [which, { on, from, to }] of ranges) {
    if (budget.isSpent) break;
    const most = budget.most(best === undefined ? limit : best.ids.length - 1);
    const numbers = { from: from === '' ? 0 : timeNumber(from), to: to === '' ? Number.MAX_SAFE_INTEGER : timeNumber(to) };
    let ids: number[] | undefined;
    if (which === 'csn' && isInJournal(store, from)) ids = store.idsChangedWithin(from, to === '' ? undefined : to, most);
    else if (store.times?.isCurrent() === true) ids = store.times.idsWithin(which, numbers, most);
    if (budget.spent(ids, most) !== undefined && ids !== undefined) best = { ids, on };
  }
  return best;
}

// The journal is in order of CSNs, and holds every change above the floor. Entries of a replica's first fill are not in it, and some may have
// been changed after the moment that the fill is whole as of.
function isInJournal(store: EntryStore, csn: string): boolean {
  const floor = store.meta('floorCsn');
  return floor !== undefined && csn > floor && csn > (store.meta('fillCsn') ?? '');
}

// The first who asks for what was changed since a time waits until the order of times is known; the search is planned again then.
function planTimes(store: EntryStore, schema: Schema, filter: Filter, otherwise: () => Candidates): Candidates | undefined {
  const { times } = store;
  if (times === undefined || !times.isPossible || times.isCurrent() || !restsOnTimes(store, schema, filter, new Budget())) return undefined;
  let plan: Candidates | undefined;
  return {
    by: 'values',
    on: 'times',
    async prepare(pause) {
      if (!(await times.learn(pause))) return false;
      plan = planFilter(store, schema, filter, new Budget()) ?? otherwise();
      return (await plan.prepare?.(pause)) ?? true;
    },
    next: (afterId) => plan?.next(afterId) ?? [],
  };
}

function restsOnTimes(store: EntryStore, schema: Schema, filter: Filter, budget: Budget): boolean {
  switch (filter.kind) {
    case 'greaterOrEqual':
    case 'lessOrEqual': {
      const bound = timeBoundOf(schema, filter);
      return bound !== undefined && !(bound.which === 'csn' && bound.isFrom && isInJournal(store, bound.text));
    }
    case 'and':
      return filter.filters.some((part) => restsOnTimes(store, schema, part, budget));
    case 'or':
      return filter.filters.every(
        (part) => restsOnTimes(store, schema, part, budget) || gather(store, schema, part, gatheredMax, budget) !== undefined,
      );
    default:
      return false;
  }
}

// Pieces in the middle or at the end of a value: no order helps, but the values of one attribute in the index are read some twenty times
// faster than whole entries. Of an AND the first such part will do.
function planValues(store: EntryStore, schema: Schema, filter: Filter): Candidates | undefined {
  if (filter.kind === 'and') {
    for (const part of filter.filters) {
      const plan = planValues(store, schema, part);
      if (plan !== undefined) return plan;
    }
    return undefined;
  }
  if (filter.kind !== 'substrings') return undefined;
  const type = schema.attributeType(filter.attribute);
  if (type === undefined || type.family.size > 1 || type.key === 'objectclass' || !isIndexed(type.key, '')) return undefined;
  const { pieceKey } = type.substrings ?? {};
  const pieces = [filter.initial, ...filter.any, filter.final].flatMap((piece) =>
    piece === undefined ? [] : (pieceKey?.(piece)?.trim() ?? ''),
  );
  const longest = pieces.reduce((a, b) => (b.length > a.length ? b : a), '');
  if (longest === '') return undefined;
  let plan: Candidates | undefined;
  return {
    by: 'values',
    on: `${type.key} substring`,
    async prepare(pause) {
      const ids = new Set<number>();
      for (const page of store.idsHolding(type.key, longest)) {
        for (const id of page) ids.add(id);
        if (!(await pause())) return false;
      }
      plan = fromIds(
        'values',
        [...ids].sort((a, b) => a - b),
      );
      return true;
    },
    next: (afterId) => plan?.next(afterId) ?? [],
  };
}

/** The key that answers an equality by itself: whichever entries have it match, and no others. */
export function exactKeyOf(schema: Schema, filter: Filter): IndexKey | undefined {
  const key = keyOf(schema, filter);
  return key !== undefined && key.value.length < indexKeyMax ? key : undefined;
}

function keyOf(schema: Schema, filter: Filter): IndexKey | undefined {
  const type = filter.kind === 'equal' ? schema.attributeType(filter.attribute) : undefined;
  return type === undefined || filter.kind !== 'equal' ? undefined : indexKeyOf(type, filter.value);
}

function indexKeyOf(type: AttributeType, asserted: Buffer): IndexKey | undefined {
  // Subtypes are indexed under their own names.
  if (type.equality === undefined || type.family.size > 1) return undefined;
  const value = type.equality.key(asserted);
  return value !== undefined && isIndexed(type.key, value) ? { attribute: type.key, value } : undefined;
}
