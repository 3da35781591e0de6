/**
 * Entries of a replica made the master's, many in one transaction (protocol/ldap/image-batch.ts).
 *
 * An image says how an entry is, not what happened to it: it is found by UUID, and added, changed, renamed or left as it is. So a batch may
 * come twice. What cannot be done now (the parent is missing, the name is another's, entries are below one that shall go) is refused by
 * itself; the replication service, which can ask the master, sorts that out with ordinary writes.
 */
import { tryParseAccountUuid } from '#common/account-name.ts';
import { formatRdn, parseRdn, type Rdn, splitDn } from '#protocol/ldap/dn.ts';
import type { Image, ImageBatch, ImageRemark, ImageResult } from '#protocol/ldap/image-batch.ts';
import { type Attribute, textOf } from '#protocol/ldap/messages.ts';
import { rdnKey } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import { rootId, type StoredEntry } from '../store/entry-store.ts';
import { canonicalAttributes, structuralClassOf, withNamingValues } from './draft.ts';
import { ImageLoader } from './load-images.ts';
import type { Tree } from './tree.ts';
import type { WriteRequest } from './write-rules.ts';

/** Changes of one batch: they are written in one turn of the event loop. */
export const imagesMax = 1024;
/** Combinations of object classes whose structural class is remembered. */
const classesMax = 1000;

/** Operational attributes that the store keeps elsewhere or computes. */
const notStored = new Set(['entryUUID', 'entryCSN', 'entryDN', 'contextCSN', 'subschemaSubentry', 'hasSubordinates', 'numSubordinates']);

/** Refuses a batch that this server or this writer must not write. */
export function checkImageBatch(tree: Tree, batch: ImageBatch | undefined, request: WriteRequest): ImageBatch {
  if (batch === undefined) throw new Refusal('protocolError', 'the batch of entries is malformed');
  if (tree.mode !== 'replica' || request.who.rights !== 'replicator')
    throw new Refusal(
      'insufficientAccessRights',
      'entries are written as they are at the master by the right replicator, on a replica only',
    );
  if (batch.changes.length > imagesMax) throw new Refusal('adminLimitExceeded', `a batch holds at most ${imagesMax} changes`);
  if (batch.contextCsn !== undefined && !csnPattern.test(batch.contextCsn))
    throw new Refusal('invalidAttributeSyntax', 'contextCSN is not a change sequence number');
  return batch;
}

/** Writes batches into one tree. */
export class ImageWriter {
  readonly #tree: Tree;
  readonly #structural = new Map<string, string | undefined>();
  /** Parents by the text of their DN, within one batch. */
  #parents = new Map<string, number>();
  #covers: (type: string) => boolean = () => true;
  readonly #loader: ImageLoader;

  constructor(tree: Tree) {
    this.#tree = tree;
    this.#loader = new ImageLoader(tree, notStored);
  }

  /** Writes a batch; inside `store.write`. */
  write(batch: ImageBatch): ImageResult {
    this.#parents = new Map();
    this.#covers = this.#coverageOf(batch);
    const counts = { added: 0, modified: 0, renamed: 0, deleted: 0 };
    const remarks: ImageRemark[] = [];
    const one = (image: Image, index: number): void => {
      try {
        const did = image.dn === undefined ? this.#delete(image) : this.#put(image, index, batch.mayDisplace, remarks);
        if (did !== undefined) counts[did] += 1;
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        remarks.push({ index, kind: 'refused', resultCode: error.resultCode, text: error.message });
      }
    };
    const settle = (): void => {
      const { added, taken } = this.#loader.flush();
      counts.added += added;
      for (const { image, index } of taken) one(image, index);
    };
    const isWhole = batch.only === undefined && batch.without === undefined;
    this.#loader.drop();
    this.#loader.forgetParent();
    if (this.#tree.isFilled) this.#tree.store.firstContentIsWhole();
    let index = 0;
    for (const image of batch.changes) {
      if (!isWhole || !this.#loader.take(image, index, this.#parentOf)) {
        settle();
        one(image, index);
        this.#loader.forgetParent();
      }
      index += 1;
    }
    settle();
    remarks.sort((a, b) => a.index - b.index);
    if (batch.contextCsn !== undefined) this.#tree.setContextCsn(batch.contextCsn);
    return { ...counts, remarks };
  }

  #put(
    image: Exclude<Image, { dn: undefined }>,
    index: number,
    mayDisplace: boolean,
    remarks: ImageRemark[],
  ): 'added' | 'modified' | 'renamed' | undefined {
    const { store, csns } = this.#tree;
    const split = splitDn(image.dn);
    const rdn = split === undefined ? undefined : parseRdn(split.rdn);
    if (split === undefined || rdn === undefined) throw new Refusal('invalidDNSyntax', `"${image.dn}" is no name of an entry`);
    const uuid = tryParseAccountUuid(image.uuid);
    if (uuid === undefined) throw new Refusal('invalidAttributeSyntax', 'entryUUID is not a UUID');
    const before = store.byUuid(uuid);
    const place = this.#placeOf(image.dn, split, rdn);
    const holder = store.childId(place.parentId, place.rdnNorm);
    if (holder !== undefined && holder !== before?.id) {
      if (!mayDisplace) throw new Refusal('entryAlreadyExists', `there is an entry "${image.dn}" already`);
      this.#displace(store.byId(holder) as StoredEntry, index, remarks);
    }
    const { attributes, csn } = this.#contentOf(image, rdn, before);
    csns.observe(csn);
    if (before === undefined) {
      store.add({ ...place, uuid, csn, attributes }, this.#tree.isFilled);
      return 'added';
    }
    const isRenamed = before.parentId !== place.parentId || before.rdn !== place.rdn;
    if (!isRenamed && before.csn === csn && isSame(before.attributes, attributes)) return undefined;
    if (isRenamed && before.parentId === rootId) throw new Refusal('unwillingToPerform', 'the base of the tree cannot be renamed');
    if (before.parentId !== place.parentId && place.parentId !== rootId) {
      const superior = store.byId(place.parentId);
      if (superior !== undefined && store.isWithin(superior, before.id))
        throw new Refusal('unwillingToPerform', 'an entry cannot be moved below itself');
    }
    if (isRenamed && store.hasChildren(before.id)) {
      remarks.push({ index, kind: 'container', resultCode: 0, text: '' });
      this.#parents.clear();
    }
    store.replace(isRenamed ? 'rename' : 'modify', before, { ...place, uuid, csn, attributes });
    return isRenamed ? 'renamed' : 'modified';
  }

  #delete(image: Extract<Image, { dn: undefined }>): 'deleted' | undefined {
    const { store, contextCsn, csns } = this.#tree;
    const uuid = tryParseAccountUuid(image.uuid);
    const before = uuid === undefined ? undefined : store.byUuid(uuid);
    if (before === undefined) return undefined;
    if (store.hasChildren(before.id)) throw new Refusal('notAllowedOnNonLeaf', 'the entry has entries below it; remove those first');
    const csn = image.csn !== undefined && csnPattern.test(image.csn) ? image.csn : contextCsn === '' ? csns.next() : contextCsn;
    this.#parents.clear();
    store.remove(before, csn);
    return 'deleted';
  }

  #displace(holder: StoredEntry, index: number, remarks: ImageRemark[]): void {
    const { schema, store } = this.#tree;
    const type = parseRdn(holder.rdn)?.[0]?.type;
    if (type === undefined || holder.parentId === rootId) throw new Refusal('entryAlreadyExists', `"${holder.rdn}" cannot give way`);
    const rdn: Rdn = [{ type, value: `displaced-${holder.uuid}` }];
    if (store.hasChildren(holder.id)) {
      remarks.push({ index, kind: 'container', resultCode: 0, text: '' });
      this.#parents.clear();
    }
    store.replace('rename', holder, {
      parentId: holder.parentId,
      rdn: `${type}=displaced-${holder.uuid}`,
      rdnNorm: rdnKey(schema, rdn),
      uuid: holder.uuid,
      csn: holder.csn,
      attributes: withNamingValues(schema, holder.attributes, rdn),
    });
    remarks.push({ index, kind: 'displaced', resultCode: 0, text: holder.uuid });
  }

  /** The entry of that name, for those that are to stand below it. */
  readonly #parentOf = (dn: string): number | undefined => {
    const known = this.#parents.get(dn);
    if (known !== undefined) return known;
    const tree = this.#tree;
    try {
      const id = tree.find(tree.parseName(dn))?.id;
      if (id !== undefined) this.#parents.set(dn, id);
      return id;
    } catch (error) {
      if (error instanceof Refusal) return undefined;
      throw error;
    }
  };

  #placeOf(dn: string, split: { rdn: string; parent: string }, rdn: Rdn): { parentId: number; rdn: string; rdnNorm: string } {
    const tree = this.#tree;
    const known = this.#parents.get(split.parent);
    if (known !== undefined) return { parentId: known, rdn: formatRdn(rdn), rdnNorm: rdnKey(tree.schema, rdn) };
    const name = tree.parseName(dn);
    if (!tree.isWithinSuffix(name)) throw new Refusal('noSuchObject', `"${dn}" is not below ${tree.suffix.text}`);
    const place = tree.requireParent(name);
    if (place.parentId === rootId) return place;
    this.#parents.set(split.parent, place.parentId);
    return place;
  }

  // A replica takes its master's entries as they are, attributes it does not know included.
  #contentOf(image: { readonly attributes: readonly Attribute[] }, rdn: Rdn, before: StoredEntry | undefined) {
    const { schema, csns } = this.#tree;
    const given = withNamingValues(schema, this.#canonical(image.attributes), rdn);
    const csn = textOf(given, 'entryCSN') ?? before?.csn ?? csns.next();
    if (!csnPattern.test(csn)) throw new Refusal('invalidAttributeSyntax', 'entryCSN is not a change sequence number');
    const attributes = given.filter((one) => !notStored.has(one.type) && one.type !== 'structuralObjectClass');
    for (const one of before?.attributes ?? []) {
      if (one.type !== 'structuralObjectClass' && !this.#covers(one.type)) attributes.push(one);
    }
    const structural = this.#structuralOf(attributes);
    if (structural !== undefined) attributes.push({ type: 'structuralObjectClass', values: [Buffer.from(structural)] });
    return { attributes, csn };
  }

  // Most entries come as they will be stored.
  #canonical(attributes: readonly Attribute[]): readonly Attribute[] {
    const { schema } = this.#tree;
    const isCanonical = attributes.every(
      ({ type, values }, i) =>
        values.length > 0 &&
        schema.description(type, true)?.canonical === type &&
        attributes.findIndex((other) => other.type === type) === i,
    );
    return isCanonical ? attributes : canonicalAttributes(schema, attributes, true);
  }

  #structuralOf(attributes: readonly Attribute[]): string | undefined {
    const classes = attributes.find((one) => one.type === 'objectClass')?.values ?? [];
    const key = classes.join('\n');
    if (!this.#structural.has(key)) {
      if (this.#structural.size >= classesMax) this.#structural.clear();
      this.#structural.set(key, structuralClassOf(this.#tree.schema, attributes));
    }
    return this.#structural.get(key);
  }

  #coverageOf({ only, without }: ImageBatch): (type: string) => boolean {
    if (only === undefined && without === undefined) return () => true;
    const keyOf = (type: string): string => this.#tree.schema.description(type, true)?.type.key ?? type.toLowerCase();
    const included = only === undefined ? undefined : new Set(only.map(keyOf));
    const excluded = new Set(without?.map(keyOf));
    return (type) => (included === undefined || included.has(keyOf(type))) && !excluded.has(keyOf(type));
  }
}

function isSame(one: readonly Attribute[], other: readonly Attribute[]): boolean {
  return (
    one.length === other.length &&
    one.every(({ type, values }, i) => {
      const twin = other[i] as Attribute;
      return (
        type === twin.type && values.length === twin.values.length && values.every((value, j) => value.equals(twin.values[j] as Buffer))
      );
    })
  );
}
