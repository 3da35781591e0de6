/**
 * Where operations meet access control: entries as the rules see them, and what is answered when something may not be. Whoever may not even know
 * that an entry is there gets noSuchObject, with the nearest entry above that it may know of; everybody else gets insufficientAccessRights.
 */
import { printable } from '#common/account-name.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import type { Privilege } from '../access/privileges.ts';
import { allows, type Target, type View } from '../access/view.ts';
import { Refusal } from '../schema/refusal.ts';
import type { StoredEntry } from '../store/entry-store.ts';
import type { EntryName, Located, Tree } from './tree.ts';

/** A stored entry as a target. Its name is made when a rule asks for it. */
export class EntryTarget implements Target {
  readonly #tree: Tree;
  readonly #entry: StoredEntry;
  #keys: readonly string[] | undefined;

  constructor(tree: Tree, entry: StoredEntry) {
    this.#tree = tree;
    this.#entry = entry;
  }

  get uuid(): string {
    return this.#entry.uuid;
  }

  keys(): readonly string[] {
    this.#keys ??= this.#tree.parseName(this.#tree.store.dnOf(this.#entry)).keys;
    return this.#keys;
  }

  attributes(withOperational: boolean): readonly Attribute[] {
    return this.#tree.attributesOf(this.#entry, withOperational);
  }
}

/** An entry as it would be. */
export function draftTarget(keys: readonly string[], attributes: readonly Attribute[], uuid?: string): Target {
  return { uuid, keys: () => keys, attributes: () => attributes };
}

/** The target of an entry; undefined of none. */
export function targetOf(tree: Tree, entry: StoredEntry): Target {
  return new EntryTarget(tree, entry);
}

/** Whether a requester may know that the entry is there. */
export function isDisclosed(view: View, target: Target): boolean {
  return allows(view.decide('disclose', 'entry'), target);
}

/** What a client is told of a name that nobody has. */
export function noEntry(name: EntryName): string {
  return `there is no entry "${printable(name.text)}"`;
}

/** The entry of that name, if the requester may know of it; else a refusal with noSuchObject that tells no more than it may know. */
export function requireEntry(tree: Tree, view: View, name: EntryName): StoredEntry {
  return disclosed(tree, view, name, tree.locate(name));
}

/** The same of one that many entries stand below, see `childOften`. */
export function requireParentEntry(tree: Tree, view: View, name: EntryName): StoredEntry {
  return disclosed(tree, view, name, tree.locateOften(name));
}

function disclosed(tree: Tree, view: View, name: EntryName, { entry, nearest }: Located): StoredEntry {
  if (entry !== undefined && isDisclosed(view, targetOf(tree, entry))) return entry;
  let above = entry === undefined ? nearest : tree.store.byId(entry.parentId);
  while (above !== undefined && !isDisclosed(view, targetOf(tree, above))) above = tree.store.byId(above.parentId);
  throw new Refusal('noSuchObject', noEntry(name), {
    matchedDn: above === undefined ? '' : tree.store.dnOf(above),
  });
}

/** Refuses what the rules do not allow. `attributeKey` may be `entry` or `children`; `what` names it for the answer. */
export function demand(view: View, target: Target, privilege: Privilege, attributeKey: string, what: string): void {
  if (!allows(view.decide(privilege, attributeKey), target))
    throw new Refusal('insufficientAccessRights', `no ${privilege} access to ${what}`);
}

/** Add and delete of values. */
export function demandWrite(view: View, target: Target, attributeKey: string, what: string): void {
  demand(view, target, 'add', attributeKey, what);
  demand(view, target, 'delete', attributeKey, what);
}
