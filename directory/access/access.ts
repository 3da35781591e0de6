/**
 * Who may do what: the rules in force and the views that connections have under them.
 *
 *   configured rules ─┐
 *                     ├─► compileRules ─► compileView, once per connection and identity ─► decide(privilege, attribute)
 *   default rules ────┘                                                                    └► true, false, or a question to each entry
 *
 * New rules take the place of the old ones as a whole, or, when there is a mistake in them, not at all. A change of rules raises `generation`, by
 * which connections know that their view is of yesterday.
 */
import type { ServiceIdentity } from '#directory/config.ts';
import type { Tree } from '../server/tree.ts';
import { defaultRules } from './default-rules.ts';
import { Groups } from './groups.ts';
import type { Privilege } from './privileges.ts';
import { compileRules, type Rule } from './rules.ts';
import { type Asker, compileView, type View } from './view.ts';

/** `self` is an entry of the tree that is bound. */
export type Rights = ServiceIdentity['rights'] | 'self' | 'anonymous';

/** Who asks: as bound on a connection. */
export interface Requester {
  /** As it is shown; empty for anonymous. */
  readonly dn: string;
  readonly rights: Rights;
  /** entryUUID of the bound entry, with `self`. */
  readonly uuid: string | undefined;
  /** May act on behalf of others, as `admin` always may. */
  readonly isProxy?: boolean;
}

export const anonymous: Requester = { dn: '', rights: 'anonymous', uuid: undefined };

/** By which way a requester came. */
export interface Way {
  /** Empty on a Unix socket. */
  readonly remoteAddress: string;
  /** Strength of TLS in bits, 0 without. */
  readonly tlsSsf: number;
}

/** What a Unix socket counts as: nobody on the network can read along. OpenLDAP's default. */
const localSsf = 71;

/** See the header of this file. */
export class AccessControl {
  readonly #tree: Tree;
  readonly groups: Groups;
  #configured: readonly string[];
  #rules: readonly Rule[];
  #mode: Tree['mode'];
  #generation = 1;

  /** Throws `CONFIG_INVALID` with every mistake in the configured rules. */
  constructor(tree: Tree, configured: readonly string[] = []) {
    this.#tree = tree;
    this.groups = new Groups(tree);
    this.#configured = configured;
    this.#mode = tree.mode;
    this.#rules = compiled(tree, configured);
  }

  get rules(): readonly Rule[] {
    this.#keepUp();
    return this.#rules;
  }

  /** Rises with every change of the rules. */
  get generation(): number {
    this.#keepUp();
    return this.#generation;
  }

  /** Puts other configured rules in force, or throws and leaves things as they are. */
  replace(configured: readonly string[]): void {
    this.#rules = compiled(this.#tree, configured);
    this.#configured = configured;
    this.#mode = this.#tree.mode;
    this.#generation += 1;
  }

  /** What may be meant otherwise: services that the configured rules keep from what they work with. For the log. */
  warnings(): string[] {
    const lacks = (rights: string, privilege: Privilege): boolean => {
      const asker: Asker = { keys: ['-'], rights, uuid: undefined, address: '', tlsSsf: 256, ssf: 256 };
      const view = compileView(this.rules, asker, this.groups);
      return ['entry', 'objectclass'].some((key) => view.decide(privilege, key) !== true);
    };
    const warnings: string[] = [];
    const hint = 'add "by rights=service break" before the clause that stops them';
    if (lacks('replicator', 'read'))
      warnings.push(`the access rules hide entries from replication, which would remove them from replicas; ${hint}`);
    if (lacks('admin', 'manage')) warnings.push(`the access rules keep the right admin from managing all entries; ${hint}`);
    return warnings;
  }

  viewOf(who: Requester, way: Way): View {
    return compileView(this.rules, this.askerOf(who, way), this.groups);
  }

  // A replica that became the master, or the other way: the built-in rules are others then.
  #keepUp(): void {
    if (this.#tree.mode !== this.#mode) this.replace(this.#configured);
  }

  askerOf(who: Requester, way: Way): Asker {
    return {
      keys: who.dn === '' ? [] : this.#tree.parseName(who.dn).keys,
      rights: who.rights === 'self' || who.rights === 'anonymous' ? undefined : who.rights,
      uuid: who.uuid,
      address: way.remoteAddress,
      tlsSsf: way.tlsSsf,
      ssf: Math.max(way.tlsSsf, way.remoteAddress === '' ? localSsf : 0),
    };
  }
}

function compiled(tree: Tree, configured: readonly string[]): readonly Rule[] {
  return compileRules(tree, [
    ...configured.map((text) => ({ text, origin: 'configured' as const })),
    ...defaultRules(tree.suffix.text, tree.mode).map((text) => ({ text, origin: 'built-in' as const })),
  ]);
}

/** Whether changes may be followed (RFC 4533), and the monitor read: by the services, within what the rules let them see. */
export function isService(who: Requester): boolean {
  return who.rights !== 'self' && who.rights !== 'anonymous';
}

/** Most entries of one search without paging; undefined is no limit. Services follow and list the whole tree, accounts see themselves. */
export function sizeLimitOf(who: Requester): number | undefined {
  return isService(who) ? undefined : 100;
}
