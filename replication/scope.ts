/**
 * What of the master a replica is given: all, or less (a region's accounts, no password hashes).
 *
 * `filter` chooses accounts; every other entry goes along, because accounts stand below them. Attributes outside the scope are neither
 * asked for at the master nor looked at in the replica: what the replica has there is its own.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import { normalizeAttributeType } from '#protocol/ldap/dn.ts';
import { type Filter, or, parseFilter, present } from '#protocol/ldap/filter.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { type EntryImage, keptOperational, replicatedSelection } from '#replication/decide.ts';

/** Options of a replica that say so. */
export interface ScopeOptions {
  readonly filter?: string | undefined;
  readonly attributes?: readonly string[] | undefined;
  readonly excludeAttributes?: readonly string[] | undefined;
}

/** Entries are named by these and of some class: never left out. */
const always = ['objectClass', 'uid', 'cn', 'o', 'ou', 'dc'];

/** See the header of this file. */
export class Scope {
  /** Entries of the master that the replica shall have. */
  readonly filter: Filter;
  /** Attributes to ask for. */
  readonly selection: readonly string[];
  /** Differs when what the replica shall have differs; '' for all. */
  readonly key: string;
  /** Attributes that are replicated, or those that are not; both `undefined` for all. */
  readonly covered: { readonly only: readonly string[] | undefined; readonly without: readonly string[] | undefined };
  readonly #only: ReadonlySet<string> | undefined;
  readonly #without: ReadonlySet<string>;

  /** Throws `CONFIG_INVALID` for a filter that is none. `accountClass` is the object class that `filter` chooses from. */
  constructor(options: ScopeOptions = {}, accountClass = 'mailAccount') {
    const { filter, attributes, excludeAttributes = [] } = options;
    if (filter === undefined) this.filter = present('objectClass');
    else {
      const accounts = parsed(`(&(objectClass=${accountClass})${filter})`, filter);
      this.filter = or(parsed(`(!(objectClass=${accountClass}))`, filter), accounts);
    }
    const listed = attributes === undefined ? undefined : [...always, ...keptOperational, ...attributes];
    this.selection = listed ?? replicatedSelection;
    this.#only = listed === undefined ? undefined : keysOf(listed);
    const kept = keysOf([...always, ...keptOperational]);
    this.#without = new Set([...keysOf(excludeAttributes)].filter((key) => !kept.has(key)));
    this.covered = { only: listed, without: this.#without.size === 0 ? undefined : [...this.#without] };
    const isWhole = filter === undefined && attributes === undefined && this.#without.size === 0;
    this.key = isWhole
      ? ''
      : JSON.stringify([filter, this.#only === undefined ? undefined : [...this.#only].sort(), [...this.#without].sort()]);
  }

  /** Without the attributes outside the scope. */
  trim<T extends EntryImage>(entry: T): T {
    return this.#only === undefined && this.#without.size === 0
      ? entry
      : { ...entry, attributes: entry.attributes.filter((one) => this.#holds(one)), attributesBer: undefined };
  }

  #holds({ type }: Attribute): boolean {
    const key = normalizeAttributeType(type);
    return !this.#without.has(key) && (this.#only === undefined || this.#only.has(key));
  }
}

/** Everything. */
export const wholeScope = new Scope();

function keysOf(types: readonly string[]): ReadonlySet<string> {
  return new Set(types.map((type) => normalizeAttributeType(type)));
}

function parsed(text: string, given: string): Filter {
  const outcome = parseFilter(text);
  if ('filter' in outcome) return outcome.filter;
  throw new PlatformError('CONFIG_INVALID', `"${given}" is no LDAP filter (RFC 4515); expected e.g. (mailRegion=eu)`);
}
