/**
 * The whole tree as LDIF (RFC 2849), parents before children, with what makes an entry the same one again: entryUUID, entryCSN, timestamps and
 * the names of who wrote it. What the server computes is left out. The first entry says as of which change the content is whole (`contextCSN`),
 * so that a slapd filled from it (`slapadd`) goes on following from there.
 */
import { formatLdifEntry } from '#protocol/ldap/ldif.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import type { Tree } from '../server/tree.ts';
import { rootId, type StoredEntry } from '../store/entry-store.ts';

const pageSize = 256;

/**
 * Gives the text entry by entry, of all or of what is at and below a base, without a version line, which slapadd does not take (slapcat
 * writes none either). One page of each level is in memory.
 */
export function* exportLdif(tree: Tree, baseDn?: string): Generator<string, number, void> {
  let count = 0;
  const base = baseDn === undefined ? undefined : tree.require(tree.parseName(baseDn));
  // Of the base's level there is the base only.
  const levels: { parentId: number; page: number[]; last: number; isWhole?: boolean }[] = [
    base === undefined ? { parentId: rootId, page: [], last: 0 } : { parentId: base.parentId, page: [base.id], last: 0, isWhole: true },
  ];
  for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
    if (level.page.length === 0 && level.isWhole !== true) level.page = tree.store.childIds(level.parentId, level.last, pageSize);
    const id = level.page.shift();
    if (id === undefined) {
      levels.pop();
      continue;
    }
    level.last = id;
    const entry = tree.store.byId(id) as StoredEntry;
    const operational = [attribute('entryUUID', entry.uuid), attribute('entryCSN', entry.csn)];
    if (level.parentId === rootId && tree.contextCsn !== '') operational.push(attribute('contextCSN', tree.contextCsn));
    yield formatLdifEntry({ dn: tree.store.dnOf(entry), attributes: [...entry.attributes, ...operational] });
    count += 1;
    if (tree.store.hasChildren(id)) levels.push({ parentId: id, page: [], last: 0 });
  }
  return count;
}
