/**
 * The tree as LDAP sees it: names resolved to entries, entries with their operational attributes, and the state of the whole
 * (`contextCSN`). Store and schema meet here; the operations beside this file work on it.
 */
import { printable } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { type Dn, dnLevelsMax, dnTextMax, formatRdn, parseDn, parseRdn, splitDn } from '#protocol/ldap/dn.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { CsnSource } from '../changelog/csn.ts';
import { rdnKey } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Schema } from '../schema/schema.ts';
import { type EntryStore, rootId, type StoredEntry } from '../store/entry-store.ts';

/** DN of the subschema entry. */
export const subschemaDn = 'cn=Subschema';

/** Parsed names that are remembered, and the longest of them. */
const namesMax = 1000;
const nameTextMax = 200;

/** A name that was parsed: as given, and the keys of its levels from the entry up. */
export interface EntryName {
  readonly text: string;
  readonly dn: Dn;
  readonly keys: readonly string[];
  /** The same of the level above, where it was at hand. */
  readonly above?: EntryName;
}

/** What is found of a name: its entry, and the nearest one above that there is. */
export interface Located {
  readonly entry: StoredEntry | undefined;
  readonly nearest: StoredEntry | undefined;
}

/** See the header of this file. */
export class Tree {
  readonly store: EntryStore;
  readonly schema: Schema;
  readonly suffix: EntryName;
  readonly csns: CsnSource;
  /** What the configuration says; a promotion changes `mode`, not this. */
  readonly configuredMode: 'master' | 'replica';
  readonly #suffixKey: string;
  readonly #names = new Map<string, EntryName>();

  constructor(options: { store: EntryStore; schema: Schema; suffix: string; clock: Clock; mode: 'master' | 'replica' }) {
    this.store = options.store;
    this.schema = options.schema;
    this.configuredMode = options.mode;
    this.suffix = this.parseName(options.suffix);
    this.#suffixKey = this.keyOf(this.suffix);
    this.csns = new CsnSource(options.clock, 0, this.contextCsn);
  }

  /** What this server is: as configured, until a promotion made it something else (authority.ts). */
  get mode(): 'master' | 'replica' {
    const role = this.store.meta('role');
    return role === 'master' || role === 'replica' ? role : this.configuredMode;
  }

  /** Whether the content is whole: always on a master, on a replica once replication has filled it. */
  get isFilled(): boolean {
    return this.store.meta('floorCsn') !== undefined;
  }

  /** CSN up to which this tree is complete; empty before the first change. */
  get contextCsn(): string {
    return this.store.meta('contextCsn') ?? '';
  }

  /** Whether everything up to that CSN is here. One that was superseded unawares has CSNs of its own until it is equal to the new master. */
  holds(csn: string): boolean {
    return this.contextCsn >= csn && (this.store.meta('supersededAt') ?? '') === '';
  }

  /**
   * Moves `contextCsn` up to `csn`; inside a write. On a replica changes do not come in the order of their CSNs, so there only the
   * replicator says how far the content is whole.
   */
  raiseContextCsn(csn: string): void {
    if (this.mode === 'master' && csn > this.contextCsn) this.store.setMeta('contextCsn', csn);
  }

  /**
   * Sets `contextCsn` as the replicator says; inside a write. The first time on a replica, its content is whole as of then: from there on
   * the journal knows every change, deletes included.
   */
  setContextCsn(csn: string): void {
    this.store.setMeta('contextCsn', csn);
    if (this.mode === 'replica') this.store.setMeta('supersededAt', '');
    if (this.store.meta('floorCsn') === undefined) this.store.setMeta('floorCsn', csn);
  }

  /** Parses a DN or refuses with invalidDNSyntax. */
  parseName(text: string): EntryName {
    const known = this.#names.get(text);
    if (known !== undefined) return known;
    const dn = parseDn(text);
    if (dn === undefined) throw new Refusal('invalidDNSyntax', `"${printable(text)}" is not a distinguished name (RFC 4514)`);
    const name = { text, dn, keys: dn.map((rdn) => rdnKey(this.schema, rdn)) };
    this.#remember(name);
    return name;
  }

  /** The same for the name of an entry that is about to be: it will hardly be asked again, but what is above it will. */
  parseNewName(text: string): EntryName {
    const split = text.length <= dnTextMax ? splitDn(text) : undefined;
    const known = split === undefined || split.parent === '' ? undefined : this.#names.get(split.parent);
    if (split === undefined || split.parent === '' || (known !== undefined && known.dn.length >= dnLevelsMax)) return this.parseName(text);
    const rdn = parseRdn(split.rdn);
    if (known !== undefined && rdn !== undefined) {
      return { text, dn: [rdn, ...known.dn], keys: [rdnKey(this.schema, rdn), ...known.keys], above: known };
    }
    const name = this.parseName(text);
    const above = { text: split.parent, dn: name.dn.slice(1), keys: name.keys.slice(1) };
    this.#remember(above);
    return { ...name, above };
  }

  // The same few bases come again and again.
  #remember(name: EntryName): void {
    if (this.#names.size >= namesMax) this.#names.clear();
    if (name.text.length <= nameTextMax) this.#names.set(name.text, name);
  }

  /** The key of a whole name. */
  keyOf(name: EntryName): string {
    return name.keys.join(',');
  }

  /** Whether the name is the suffix or below it. */
  isWithinSuffix(name: EntryName): boolean {
    const offset = name.keys.length - this.suffix.keys.length;
    return offset >= 0 && this.suffix.keys.every((key, i) => key === name.keys[offset + i]);
  }

  /** The entry of that name. */
  find(name: EntryName): StoredEntry | undefined {
    return this.#descend(name).entry;
  }

  /** The entry of that name, and the nearest one above that there is. */
  locate(name: EntryName): Located {
    return this.#descend(name);
  }

  /** The same of a name that is asked for again and again. */
  locateOften(name: EntryName): Located {
    return this.#descend(name, true);
  }

  /** The entry of that name, or a refusal with noSuchObject that names the nearest one above. */
  require(name: EntryName): StoredEntry {
    const { entry, nearest } = this.#descend(name);
    if (entry !== undefined) return entry;
    const matchedDn = nearest === undefined ? '' : this.store.dnOf(nearest);
    throw new Refusal('noSuchObject', `there is no entry "${printable(name.text)}"`, { matchedDn });
  }

  /** The parent that a new entry of that name would have. */
  requireParent(name: EntryName): { parentId: number; rdn: string; rdnNorm: string } {
    const levels = name.keys.length - this.suffix.keys.length;
    if (levels === 0) return { parentId: rootId, rdn: name.text, rdnNorm: this.#suffixKey };
    const parent = this.require({ text: name.text, dn: name.dn.slice(1), keys: name.keys.slice(1) });
    return { parentId: parent.id, rdn: formatRdn(name.dn[0] as Dn[number]), rdnNorm: name.keys[0] as string };
  }

  /** All attributes with the operational ones that are not stored as such. `hasSubordinates` and the like are computed on demand only. */
  attributesOf(entry: StoredEntry, wantsOperational: boolean): readonly Attribute[] {
    if (!wantsOperational) return entry.attributes;
    const text = (type: string, value: string): Attribute => ({ type, values: [Buffer.from(value)] });
    const extra = [
      text('entryUUID', entry.uuid),
      text('entryCSN', entry.csn),
      text('entryDN', this.store.dnOf(entry)),
      text('subschemaSubentry', subschemaDn),
      text('hasSubordinates', this.store.hasChildren(entry.id) ? 'TRUE' : 'FALSE'),
    ];
    if (entry.parentId === rootId && this.contextCsn !== '') extra.push(text('contextCSN', this.contextCsn));
    return [...entry.attributes, ...extra];
  }

  #descend(name: EntryName, isOften = false): Located {
    if (!this.isWithinSuffix(name)) return { entry: undefined, nearest: undefined };
    let entry = this.store.childOften(rootId, this.#suffixKey);
    let nearest: StoredEntry | undefined;
    for (let i = name.keys.length - this.suffix.keys.length - 1; entry !== undefined && i >= 0; i -= 1) {
      nearest = entry;
      const key = name.keys[i] as string;
      entry = i > 0 || isOften ? this.store.childOften(entry.id, key) : this.store.child(entry.id, key);
    }
    return { entry, nearest };
  }
}
