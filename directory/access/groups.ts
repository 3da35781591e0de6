/**
 * Who is in a group of the tree. Members are read from the group's entry as it is now and kept until that entry changes.
 */
import type { Tree } from '../server/tree.ts';
import type { WhoTest } from './rules.ts';
import type { Asker } from './view.ts';

type GroupTest = Extract<WhoTest, { kind: 'group' }>;

/** Groups whose members are kept; above it all are forgotten. */
const groupsMax = 1000;

/** See the header of this file. */
export class Groups {
  readonly #tree: Tree;
  readonly #known = new Map<string, { readonly uuid: string; readonly csn: string; readonly members: ReadonlySet<string> }>();

  constructor(tree: Tree) {
    this.#tree = tree;
  }

  /** Whether the requester is a member now. */
  holds(group: GroupTest, asker: Asker): boolean {
    const entry = this.#tree.find(group.name);
    if (entry === undefined) return false;
    const name = `${group.memberKeys.join(' ')} ${group.key}`;
    let known = this.#known.get(name);
    if (known === undefined || known.uuid !== entry.uuid || known.csn !== entry.csn) {
      const members = new Set<string>();
      for (const { type, values } of entry.attributes) {
        const described = this.#tree.schema.description(type)?.type;
        if (described === undefined || !group.memberKeys.includes(described.key)) continue;
        for (const value of values) members.add(this.#keyOf(value.toString('utf8')));
      }
      known = { uuid: entry.uuid, csn: entry.csn, members };
      if (this.#known.size >= groupsMax) this.#known.clear();
      this.#known.set(name, known);
    }
    return known.members.has(asker.keys.join(','));
  }

  // A unique member may end in `#'0101'B`, which is no part of its name (RFC 4517 §3.3.21).
  #keyOf(value: string): string {
    try {
      return this.#tree.keyOf(this.#tree.parseName(value.replace(/#'[01]*'B$/, '')));
    } catch {
      return '';
    }
  }
}
