/**
 * Bulk import: entries in batches of thousands, one transaction each, written by the store's prepared statements. It is for loading a new or
 * a stopped server: names, UUIDs and CSNs are kept as given, the schema is obeyed, and what concerns several entries at once (addresses that
 * belong to one account) is left to `verify`.
 *
 *   importer.add(batch) … importer.add(batch) … importer.finish()
 *
 * Into an empty database nothing is journalled and the index is built at the end, in order: the journal begins when the import is finished (`floorCsn`), so a follower with an older
 * cookie gets a full refresh. Until `finish` the content does not count as whole: no follower is served from half an import.
 */
import { printable, tryParseAccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { Random } from '#common/random.ts';
import { parseRdn, splitDn } from '#protocol/ldap/dn.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { generalizedTime } from '../changelog/csn.ts';
import { checkEntry } from '../schema/check-entry.ts';
import { rdnKey } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import { canonicalAttributes, withNamingValues } from '../server/draft.ts';
import type { Tree } from '../server/tree.ts';
import { type EntryContent, rootId } from '../store/entry-store.ts';

/** An entry to import; `line` is where the file has it. */
export interface ImportRecord {
  readonly line: number;
  readonly dn: string;
  readonly attributes: readonly Attribute[];
}

/** A record that was not taken, and why. */
export interface ImportMistake {
  readonly line: number;
  readonly dn: string;
  readonly detail: string;
}

/** Parents remembered by the text of their DN. */
const parentsMax = 10_000;
/** Operational attributes that the store keeps elsewhere or computes. */
const notStored = new Set(['entryUUID', 'entryCSN', 'entryDN', 'contextCSN', 'subschemaSubentry', 'hasSubordinates', 'numSubordinates']);

/** See the header of this file. */
export class EntryImporter {
  readonly #tree: Tree;
  readonly #random: Random;
  readonly #now: string;
  readonly #parents = new Map<string, number>();
  readonly #isJournalled: boolean;
  #imported = 0;
  #highestCsn: string;

  constructor(tree: Tree, ports: { readonly clock: Clock; readonly random: Random }) {
    this.#tree = tree;
    this.#random = ports.random;
    this.#now = generalizedTime(ports.clock.nowMs());
    this.#isJournalled = tree.store.tally('entries') > 0;
    this.#highestCsn = tree.contextCsn;
    if (!this.#isJournalled) tree.store.beginFilling();
  }

  /** Entries taken so far. */
  get imported(): number {
    return this.#imported;
  }

  /** Adds a batch, parents before children; resolves when it is durable, with what was not taken. */
  add(records: readonly ImportRecord[]): Promise<ImportMistake[]> {
    const { store } = this.#tree;
    return store.write(() => {
      const mistakes: ImportMistake[] = [];
      if (store.meta('databaseId') === undefined) store.setMeta('databaseId', this.#random.bytes(8).toString('hex'));
      for (const record of records) {
        try {
          if (this.#isJournalled) store.add(this.#contentOf(record));
          else store.fill(this.#contentOf(record));
          this.#imported += 1;
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          mistakes.push({ line: record.line, dn: record.dn, detail: error.message });
        }
      }
      this.#tree.csns.observe(this.#highestCsn);
      store.setMeta('contextCsn', this.#highestCsn);
      return mistakes;
    });
  }

  /** The content is whole: from here on the journal knows every change. */
  finish(): Promise<void> {
    const { store } = this.#tree;
    return store.write(() => {
      if (!this.#isJournalled) store.finishFilling();
      if (store.meta('floorCsn') === undefined) store.setMeta('floorCsn', this.#tree.contextCsn);
    });
  }

  #contentOf(record: ImportRecord): EntryContent {
    const { schema, store } = this.#tree;
    const split = splitDn(record.dn);
    const rdn = split === undefined ? undefined : parseRdn(split.rdn);
    if (split === undefined || rdn === undefined) throw new Refusal('invalidDNSyntax', `"${printable(record.dn)}" is no name of an entry`);
    const place = this.#placeOf(record.dn, split);
    const rdnNorm = place.rdnNorm ?? rdnKey(schema, rdn);
    if (store.childId(place.parentId, rdnNorm) !== undefined)
      throw new Refusal('entryAlreadyExists', 'there is an entry of this name already');

    const attributes = withNamingValues(schema, canonicalAttributes(schema, record.attributes, false), rdn);
    const given = (type: string): string | undefined => attributes.find((one) => one.type === type)?.values[0]?.toString('utf8');
    const uuidText = given('entryUUID');
    const uuid = uuidText === undefined ? this.#random.uuid() : tryParseAccountUuid(uuidText);
    if (uuid === undefined) throw new Refusal('invalidAttributeSyntax', 'entryUUID is not a UUID');
    if (uuidText !== undefined && store.hasUuid(uuid))
      throw new Refusal('constraintViolation', `entryUUID ${uuid} belongs to another entry`);
    const csn = given('entryCSN') ?? this.#tree.csns.next();
    if (!csnPattern.test(csn)) throw new Refusal('invalidAttributeSyntax', 'entryCSN is not a change sequence number');
    if (csn > this.#highestCsn) this.#highestCsn = csn;

    const stored = attributes.filter((one) => !notStored.has(one.type));
    const structural = checkEntry(schema, stored);
    const complete = (type: string, value: string): void => {
      if (given(type) === undefined) stored.push({ type, values: [Buffer.from(value)] });
    };
    complete('structuralObjectClass', structural.name);
    complete('createTimestamp', this.#now);
    complete('modifyTimestamp', this.#now);
    return { parentId: place.parentId, rdn: place.parentId === rootId ? record.dn : split.rdn, rdnNorm, uuid, csn, attributes: stored };
  }

  // `rdnNorm` is given for the suffix entry, whose name is the whole suffix.
  #placeOf(dn: string, split: { rdn: string; parent: string }): { parentId: number; rdnNorm: string | undefined } {
    const known = this.#parents.get(split.parent);
    if (known !== undefined) return { parentId: known, rdnNorm: undefined };
    const tree = this.#tree;
    const name = tree.parseName(dn);
    if (!tree.isWithinSuffix(name)) throw new Refusal('noSuchObject', `"${printable(dn)}" is not below ${tree.suffix.text}`);
    const { parentId } = tree.requireParent(name);
    if (parentId === rootId) return { parentId, rdnNorm: tree.keyOf(tree.suffix) };
    if (this.#parents.size >= parentsMax) this.#parents.clear();
    this.#parents.set(split.parent, parentId);
    return { parentId, rdnNorm: undefined };
  }
}
