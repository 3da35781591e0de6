/**
 * Named referrals (RFC 3296): an entry of class `referral` says where a part of the tree is. Whoever asks for it, or for what is below it, is sent
 * there; a search that comes by one is told so beside its entries. With the ManageDsaIT control such an entry is one like any other.
 */
import { controlOids, findControl } from '#protocol/ldap/controls.ts';
import { formatDn } from '#protocol/ldap/dn.ts';
import { type Control, type SearchRequest, textsOf } from '#protocol/ldap/messages.ts';
import { allows, type View } from '../access/view.ts';
import { referralTally } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { StoredEntry } from '../store/entry-store.ts';
import { isDisclosed, targetOf } from './guard.ts';
import type { Operation } from './operation.ts';
import type { EntryName, Tree } from './tree.ts';

/** Referrals that one search tells. */
const referralsMax = 1000;

/** Whether entries of class referral are looked at for what they say. A tree without any pays nothing more than this question. */
export function obeysReferrals(tree: Tree, controls: readonly Control[]): boolean {
  return tree.store.tally(referralTally) > 0 && findControl(controls, controlOids.manageDsaIt) === undefined;
}

/** Sends the requester on when the name is at or below a referral (§5.3). `scope` goes into the URL of a search's base. */
export function checkReferral(
  tree: Tree,
  { view, controls }: { readonly view: View; readonly controls: readonly Control[] },
  name: EntryName,
  scope?: SearchRequest['scope'],
): void {
  if (!obeysReferrals(tree, controls)) return;
  const { entry, nearest } = tree.locate(name);
  for (let at = entry ?? nearest; at !== undefined; at = tree.store.byId(at.parentId)) {
    if (!isReferral(at) || !isDisclosed(view, targetOf(tree, at))) continue;
    const dn = tree.store.dnOf(at);
    const levels = name.keys.length - tree.parseName(dn).keys.length;
    const below = levels === 0 ? '' : formatDn(name.dn.slice(0, levels));
    const urls = textsOf(at.attributes, 'ref').map((url) => urlOf(url, dn, below, scope));
    throw new Refusal('referral', `${dn} is elsewhere`, { matchedDn: dn, referrals: urls });
  }
}

/** The referrals within a search; each is told once and is no entry of its own. */
export function referralsIn(tree: Tree, request: SearchRequest, base: StoredEntry): Map<number, StoredEntry> {
  const found = new Map<number, StoredEntry>();
  if (request.scope === 'base') return found;
  for (const id of tree.store.idsWithKey({ attribute: 'objectclass', value: 'referral' }, 0, referralsMax)) {
    const entry = tree.store.byId(id);
    if (entry === undefined || entry.id === base.id) continue;
    if (request.scope === 'one' ? entry.parentId === base.id : tree.store.isWithin(entry, base.id)) found.set(id, entry);
  }
  return found;
}

/** Tells where the rest of a search is to be looked for (§5.4). */
export function sendReferences(
  tree: Tree,
  request: SearchRequest,
  operation: Operation,
  referrals: ReadonlyMap<number, StoredEntry>,
): void {
  const mayRead = operation.view.decide('read', 'entry');
  for (const entry of referrals.values()) {
    if (!allows(mayRead, targetOf(tree, entry))) continue;
    const dn = tree.store.dnOf(entry);
    const scope = request.scope === 'one' ? 'base' : 'sub';
    const urls = textsOf(entry.attributes, 'ref').map((url) => urlOf(url, dn, '', scope));
    operation.send({ type: 'searchResultReference', urls });
  }
}

function isReferral(entry: StoredEntry): boolean {
  return textsOf(entry.attributes, 'objectClass').some((name) => name.toLowerCase() === 'referral');
}

// A URL without a name stands for the same name over there; what is below the referral goes in front of it. Other parts of the URL go (§2.1).
function urlOf(ref: string, referralDn: string, below: string, scope: SearchRequest['scope'] | undefined): string {
  const parts = /^(ldaps?:\/\/[^/?]*)(?:\/([^?]*))?/i.exec(ref);
  if (parts === null) return ref;
  const there = decoded(parts[2] ?? '');
  const dn = [below, there === '' ? referralDn : there].filter((part) => part !== '').join(',');
  return `${parts[1]}/${encodedDn(dn)}${scope === undefined ? '' : `??${scope}`}`;
}

/** A name as it stands in an LDAP URL (RFC 4516). */
export function encodedDn(dn: string): string {
  return encodeURIComponent(dn).replace(/%(2C|3D|40|2B)/g, (hex) => decodeURIComponent(hex));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
