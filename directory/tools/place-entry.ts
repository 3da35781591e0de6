/**
 * The part of an import that depends on what came before: parents that exist, accounts below their domain and in a cluster that is known, names
 * of domains that nobody else has. Entries come in the order of the file, parents first.
 *
 * Every entry but accounts is remembered by its name, so that what stands below it finds it. Beyond `placesMax` of them, and for what stands
 * below an account, names are looked up in the database, which then has to index them while it is filled.
 */
import { printable } from '#common/account-name.ts';
import { parseDn, parseRdn } from '#protocol/ldap/dn.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';
import { checkCluster, checkDomainNames, hostNamesOf, namesOfDomain } from '../provisioning/mail-rules.ts';
import { rdnKey } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Schema } from '../schema/schema.ts';
import type { BulkLoad, DroppedRow } from '../store/bulk-load.ts';
import { decodeBody } from '../store/entry-body.ts';
import { rootId } from '../store/entry-store.ts';
import { contentOf, type PreparedEntry } from './prepare-entry.ts';

/** Entries that are remembered by their names: some 50 MB. */
const placesMax = 200_000;
/** Texts of parents' names that are remembered with the entry found. */
const parentsMax = 10_000;
/** Clusters named in a refusal. */
const clustersShown = 20;

/** What became of an entry. */
export type Placed = 'added' | 'there';

/** See the header of this file. */
export class EntryPlacer {
  readonly #schema: Schema;
  readonly #suffixKeys: readonly string[];
  readonly #load: BulkLoad;
  readonly #dropped: (row: DroppedRow) => void;
  readonly #places = new Map<string, number>();
  /** Entries below which one is remembered: domains with accounts alone are none of them. */
  readonly #placedBelow = new Set<number>();
  readonly #parents = new Map<string, number>();
  readonly #domains = new Map<number, readonly string[]>();
  readonly #domainIds = new Map<string, number>();
  readonly #clusters = new Set<string>();
  #knowsAll = true;
  highestCsn = '';

  constructor(options: { schema: Schema; suffix: string; load: BulkLoad; dropped: (row: DroppedRow) => void }) {
    this.#schema = options.schema;
    this.#load = options.load;
    this.#dropped = options.dropped;
    this.#suffixKeys = keysOfDn(options.schema, options.suffix) ?? [];
  }

  /** Takes note of an entry that is in the file already. */
  remember(entry: { id: number; parentId: number; rdnNorm: string; csn: string; attributes: readonly Attribute[] }): void {
    if (entry.csn > this.highestCsn) this.highestCsn = entry.csn;
    this.#remember(entry.parentId, entry.rdnNorm, entry.id);
    const classes = (entry.attributes.find((one) => one.type === 'objectClass')?.values ?? []).map((value) =>
      value.toString('utf8').toLowerCase(),
    );
    if (classes.includes('maildomain')) this.#rememberDomain(entry.id, entry.attributes);
    if (classes.includes('mailcluster')) for (const name of hostNamesOf(entry.attributes)) this.#clusters.add(name);
  }

  /** Inserts an entry below its parent, or refuses it. */
  place(entry: PreparedEntry): Placed {
    const { parentId, rdnNorm, rdn } = this.#whereIs(entry);
    if (this.#placedBelow.has(parentId) && this.#places.has(`${parentId}/${rdnNorm}`)) return 'there';
    if (this.#load.hasNames && this.#load.childId(parentId, rdnNorm, this.#dropped) !== undefined) return 'there';
    const checked = entry.kind === 'account' ? this.#checkedAccount(entry, parentId) : entry;
    const attributes = entry.kind === 'domain' || entry.kind === 'cluster' ? decodeBody(entry.body) : undefined;
    if (entry.kind === 'domain' && attributes !== undefined) {
      checkDomainNames(attributes, (name) => (this.#domainIds.has(name) ? 'another domain of the file' : undefined));
    }
    if (entry.kind === 'cluster' && attributes !== undefined) checkCluster(attributes);

    const id = this.#load.insert({ parentId, rdnNorm, rdn, uuid: entry.uuid, csn: entry.csn, body: checked.body });
    if (entry.csn > this.highestCsn) this.highestCsn = entry.csn;
    const { keys, addresses } = checked;
    for (let i = 0; i < keys.length; i += 2) this.#load.key(keys[i] as string, keys[i + 1] as string, id);
    for (const name of checked.tallies) this.#load.tally(name, 1);
    if (entry.kind !== 'account') {
      this.#remember(parentId, rdnNorm, id);
      if (entry.kind === 'domain' && attributes !== undefined) this.#rememberDomain(id, attributes);
      if (entry.kind === 'cluster' && attributes !== undefined) for (const name of hostNamesOf(attributes)) this.#clusters.add(name);
      return 'added';
    }
    // Its own name nobody else can have but by a claim of theirs.
    const own = `${entry.local.toLowerCase()}@${this.#domains.get(parentId)?.[0] ?? ''}`;
    for (const address of addresses) if (address !== own) this.#load.claim(address, id);
    return 'added';
  }

  #checkedAccount(entry: PreparedEntry, parentId: number): Pick<PreparedEntry, 'body' | 'keys' | 'tallies' | 'addresses'> {
    const names = this.#domains.get(parentId);
    if (names === undefined) {
      throw new Refusal('namingViolation', 'an account stands directly below its mailDomain entry; the entry above is none');
    }
    if (entry.host !== undefined && !this.#clusters.has(entry.host)) {
      const known = [...this.#clusters].sort().slice(0, clustersShown);
      const list = known.length === 0 ? 'the topology holds no cluster yet' : `known clusters: ${known.join(', ')}`;
      throw new Refusal('constraintViolation', `hostServer "${printable(entry.host)}" names no cluster of the topology; ${list}`);
    }
    if (entry.keys.includes('mail')) return entry;
    // As an Add does, an account without `mail` gets its name.
    const attributes = [...decodeBody(entry.body), attribute('mail', `${entry.local.toLowerCase()}@${names[0] ?? ''}`)];
    return contentOf(this.#schema, attributes, parseRdn(entry.rdn) ?? []);
  }

  #whereIs(entry: PreparedEntry): { parentId: number; rdnNorm: string; rdn: string } {
    const known = this.#parents.get(entry.parentDn);
    if (known !== undefined) return { parentId: known, rdnNorm: entry.rdnNorm, rdn: entry.rdn };
    const above = keysOfDn(this.#schema, entry.parentDn);
    if (above === undefined) throw new Refusal('invalidDNSyntax', `"${printable(entry.parentDn)}" is not a distinguished name (RFC 4514)`);
    const keys = [entry.rdnNorm, ...above];
    const levels = keys.length - this.#suffixKeys.length;
    if (levels < 0 || this.#suffixKeys.some((key, i) => key !== keys[levels + i])) {
      throw new Refusal('noSuchObject', 'it is not below the base of this tree');
    }
    const suffixNorm = this.#suffixKeys.join(',');
    // The suffix entry is named by the whole suffix.
    if (levels === 0) {
      return { parentId: rootId, rdnNorm: suffixNorm, rdn: entry.parentDn === '' ? entry.rdn : `${entry.rdn},${entry.parentDn}` };
    }
    let id = this.#find(rootId, suffixNorm);
    for (let level = levels - 2; id !== undefined && level >= 0; level -= 1) id = this.#find(id, above[level] as string);
    if (id === undefined) throw new Refusal('noSuchObject', `there is no entry "${printable(entry.parentDn)}" above it`);
    if (this.#parents.size >= parentsMax) this.#parents.clear();
    this.#parents.set(entry.parentDn, id);
    return { parentId: id, rdnNorm: entry.rdnNorm, rdn: entry.rdn };
  }

  #find(parentId: number, rdnNorm: string): number | undefined {
    return this.#places.get(`${parentId}/${rdnNorm}`) ?? this.#load.childId(parentId, rdnNorm, this.#dropped);
  }

  #remember(parentId: number, rdnNorm: string, id: number): void {
    if (!this.#knowsAll) return;
    this.#places.set(`${parentId}/${rdnNorm}`, id);
    this.#placedBelow.add(parentId);
    if (this.#places.size < placesMax) return;
    this.#knowsAll = false;
    this.#load.childId(parentId, rdnNorm, this.#dropped);
    this.#places.clear();
  }

  #rememberDomain(id: number, attributes: readonly Attribute[]): void {
    const names = namesOfDomain(attributes);
    this.#domains.set(id, names.slice(0, 1));
    for (const name of names) this.#domainIds.set(name, id);
  }
}

function keysOfDn(schema: Schema, text: string): string[] | undefined {
  return parseDn(text)?.map((rdn) => rdnKey(schema, rdn));
}
