/** A search on a data directory that no server uses, as whoever holds its files: no access rules, no limits. */
import type { Filter } from '#protocol/ldap/filter.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { pageSize, planCandidates } from '../server/candidates.ts';
import { compileFilter } from '../server/filter-match.ts';
import { isInScope, mentionsOperational } from '../server/search.ts';
import { compileSelection } from '../server/selection.ts';
import type { Tree } from '../server/tree.ts';

/** What is at and below a base and matches, with the attributes asked for. */
export async function* searchOffline(
  tree: Tree,
  baseDn: string,
  filter: Filter,
  requested: readonly string[],
): AsyncGenerator<{ readonly dn: string; readonly attributes: readonly Attribute[] }, void, void> {
  const base = tree.require(tree.parseName(baseDn));
  const matches = compileFilter(tree.schema, filter, () => true);
  const selection = compileSelection(tree.schema, requested, false, () => true);
  const needsOperational = selection.wantsOperational || mentionsOperational(tree, filter);
  const candidates = planCandidates(tree.store, tree.schema, base, 'sub', filter);
  // Nobody else waits for a turn, and nobody goes away.
  await candidates.prepare?.(() => Promise.resolve(true));
  let last = 0;
  for (let page = candidates.next(0); page.length > 0; page = candidates.next(last)) {
    for (const id of page) {
      last = id;
      const entry = tree.store.byId(id);
      if (entry === undefined || !isInScope(tree, { scope: 'sub' }, base, entry)) continue;
      const attributes = tree.attributesOf(entry, needsOperational);
      if (matches(attributes) === true) yield { dn: tree.store.dnOf(entry), attributes: selection.select(attributes) };
    }
    if (page.length < pageSize) return;
  }
}
