/**
 * Which entries a search has to look at: the planner. It gives ids in rising order, a superset of what matches, out of the index where the
 * filter allows, else from a walk over children or over all entries. The order makes the last id a complete cursor for paged results.
 */
import type { Filter } from '#protocol/ldap/filter.ts';
import type { SearchScope } from '#protocol/ldap/messages.ts';
import { isIndexed } from '../schema/mail-schema.ts';
import type { Schema } from '../schema/schema.ts';
import { type EntryStore, type IndexKey, rootId, type StoredEntry } from '../store/entry-store.ts';

/** Ids are fetched in pages of so many; a page with fewer is the last. */
export const pageSize = 256;
/** A part of an AND that names more entries than this is not taken if another names fewer; parts of an OR are gathered up to here. */
const gatheredMax = 20_000;

/** A plan: pages of ids above a cursor. A page that is not full is the last. */
export interface Candidates {
  /** For explanation and tests. */
  readonly by: 'base' | 'index' | 'children' | 'scan' | 'sorted';
  /** Ids above `afterId`; of a sorted plan, those behind that position. */
  next(afterId: number): readonly number[];
}

/** Plans a search. */
export function planCandidates(store: EntryStore, schema: Schema, base: StoredEntry, scope: SearchScope, filter: Filter): Candidates {
  if (scope === 'base') return fromIds('base', [base.id]);
  const indexed = planFilter(store, schema, filter);
  if (indexed !== undefined) return indexed;
  if (scope === 'one') return { by: 'children', next: (afterId) => store.childIds(base.id, afterId, pageSize) };
  const below = base.parentId === rootId ? undefined : store.subtreeIds(base.id, gatheredMax);
  if (below !== undefined) return fromIds('children', below);
  return { by: 'scan', next: (afterId) => store.idsAfter(afterId, pageSize) };
}

function fromIds(by: Candidates['by'], ids: readonly number[]): Candidates {
  let at = 0;
  return {
    by,
    next(afterId) {
      while (at < ids.length && (ids[at] as number) <= afterId) at += 1;
      return ids.slice(at, at + pageSize);
    },
  };
}

function fromKey(store: EntryStore, key: IndexKey): Candidates {
  return { by: 'index', next: (afterId) => store.idsWithKey(key, afterId, pageSize) };
}

function planFilter(store: EntryStore, schema: Schema, filter: Filter): Candidates | undefined {
  if (filter.kind === 'and') return planAnd(store, schema, filter.filters);
  if (filter.kind === 'or') {
    const ids = gather(store, schema, filter);
    return ids === undefined ? undefined : fromIds('index', ids);
  }
  const key = keyOf(schema, filter);
  if (key !== undefined) return fromKey(store, key);
  const ids = gather(store, schema, filter);
  return ids === undefined ? undefined : fromIds('index', ids);
}

// The part of an AND with the fewest entries; a long one is still better than a scan.
function planAnd(store: EntryStore, schema: Schema, filters: readonly Filter[]): Candidates | undefined {
  let long: Candidates | undefined;
  let shortest: readonly number[] | undefined;
  for (const filter of filters) {
    const key = keyOf(schema, filter);
    const ids = key === undefined ? gather(store, schema, filter) : store.idsWithKey(key, 0, pageSize);
    if (ids === undefined) continue;
    if (key !== undefined && ids.length === pageSize) long = fromKey(store, key);
    else if (shortest === undefined || ids.length < shortest.length) shortest = ids;
    if (shortest !== undefined && shortest.length <= 1) break;
  }
  return shortest === undefined ? long : fromIds('index', shortest);
}

// All ids that a filter can match, in rising order; `undefined` when the index does not tell or there are too many.
function gather(store: EntryStore, schema: Schema, filter: Filter): readonly number[] | undefined {
  if (filter.kind === 'equal') {
    const type = schema.attributeType(filter.attribute);
    // Undefined for every entry (RFC 4511 §4.5.1.7): what a client asks of servers of several makes must not cost a scan here.
    if (type === undefined && schema.description(filter.attribute) === undefined) return [];
    if (type?.key === 'entryuuid') {
      const uuid = type.equality?.key(filter.value);
      const entry = uuid === undefined ? undefined : store.byUuid(uuid);
      return entry === undefined ? [] : [entry.id];
    }
    const key = keyOf(schema, filter);
    if (key === undefined) return undefined;
    const ids = store.idsWithKey(key, 0, gatheredMax + 1);
    return ids.length > gatheredMax ? undefined : ids;
  }
  if (filter.kind === 'substrings' && filter.initial !== undefined) {
    const type = schema.attributeType(filter.attribute);
    const value = type?.substrings?.pieceKey?.(filter.initial)?.trimStart();
    if (type === undefined || value === undefined || value === '' || type.family.size > 1 || !isIndexed(type.key, '')) return undefined;
    return store.idsWithPrefix({ attribute: type.key, value }, gatheredMax);
  }
  if (filter.kind === 'or') {
    const all = new Set<number>();
    for (const part of filter.filters) {
      const ids = gather(store, schema, part);
      if (ids === undefined || all.size + ids.length > gatheredMax) return undefined;
      for (const id of ids) all.add(id);
    }
    return [...all].sort((a, b) => a - b);
  }
  if (filter.kind === 'and') {
    let best: readonly number[] | undefined;
    for (const part of filter.filters) {
      const ids = gather(store, schema, part);
      if (ids !== undefined && (best === undefined || ids.length < best.length)) best = ids;
    }
    return best;
  }
  return undefined;
}

function keyOf(schema: Schema, filter: Filter): IndexKey | undefined {
  if (filter.kind !== 'equal') return undefined;
  const type = schema.attributeType(filter.attribute);
  // Subtypes are indexed under their own names.
  if (type?.equality === undefined || type.family.size > 1) return undefined;
  const value = type.equality.key(filter.value);
  return value !== undefined && isIndexed(type.key, value) ? { attribute: type.key, value } : undefined;
}
