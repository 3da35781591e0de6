/**
 * Rows for entries that a replica does not have yet, made straight from the octets that came. Nearly all entries of a first load, and all
 * additions later, are plain: written as they will be stored, of known classes, named by one of their values. Of those only names, UUIDs and
 * indexed values are made into text; attributes go from one form of octets to the other. Whatever is not plain is left to the writer, which
 * looks at everything (write-images.ts).
 *
 *   image ──► take ──► true: a row waits ──► flush: many rows by few statements ──► those whose name is taken come back
 *                └──► false: not plain, or perhaps there already
 */
import { lengthContentStart, readLength } from '#protocol/ldap/ber.ts';
import { normalizeAttributeType } from '#protocol/ldap/dn.ts';
import type { Image } from '#protocol/ldap/image-batch.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { hasIndex, hostTally, indexKeys, tallies } from '../schema/mail-schema.ts';
import type { AttributeType } from '../schema/schema.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import { BodyBuilder, bodyHead, encodeBody } from '../store/entry-body.ts';
import type { NewRow } from '../store/new-rows.ts';
import { structuralClassOf } from './draft.ts';
import type { Tree } from './tree.ts';

/** Descriptions, and lists of classes, that are remembered. */
const formsMax = 1000;
/** Names that mean what they say in every rule of comparison. */
const plainName = /^([A-Za-z][A-Za-z0-9-]*)=([\w.@-]+)$/;

/** What becomes of an attribute of one description. */
interface Form {
  readonly name: Buffer;
  readonly canonical: string;
  /** left out: kept elsewhere, or computed. */
  readonly use: 'stored' | 'csn' | 'classes' | 'left out';
  readonly head: Buffer;
  readonly type: AttributeType;
  readonly isIndexed: boolean;
  /** Number of the entry that had it last. */
  seenIn: number;
}

/** What follows from the values of `objectClass`. */
interface Classes {
  readonly octets: Buffer;
  readonly head: Buffer;
  readonly tail: Buffer;
  readonly keys: readonly string[];
  readonly tallies: readonly string[];
}

/** A row with the image it was made of. */
export interface WaitingRow {
  readonly image: Exclude<Image, { dn: undefined }>;
  readonly index: number;
}

/** See the header of this file. */
export class ImageLoader {
  readonly #tree: Tree;
  readonly #notStored: ReadonlySet<string>;
  readonly #body = new BodyBuilder();
  readonly #forms = new Map<string, Form>();
  /** The forms of the entry before, in its order: mostly those of the next. */
  readonly #order: (Form | undefined)[] = [];
  readonly #classes = new Map<string, Classes>();
  #lastClasses: Classes | undefined;
  #entries = 0;
  #rows: NewRow[] = [];
  #waiting: WaitingRow[] = [];
  #highestCsn = '';

  constructor(tree: Tree, notStored: ReadonlySet<string>) {
    this.#tree = tree;
    this.#notStored = notStored;
  }

  /** Takes an image of a new entry below a parent that is known. */
  take(image: WaitingRow['image'], index: number, parents: ReadonlyMap<string, number>): boolean {
    const { dn, attributesBer, uuidOctets } = image;
    if (attributesBer === undefined || uuidOctets === undefined) return false;
    const comma = dn.indexOf(',');
    const parentId = comma < 0 ? undefined : parents.get(dn.slice(comma + 1));
    const name = parentId === undefined ? null : plainName.exec(dn.slice(0, comma));
    if (parentId === undefined || name === null) return false;
    const row = this.#rowOf(attributesBer, parentId, name as unknown as readonly [string, string, string], uuidOctets);
    if (row === undefined || !this.#tree.store.claimUuid(uuidOctets)) return false;
    this.#rows.push(row);
    this.#waiting.push({ image, index });
    return true;
  }

  /** Writes the rows that wait; inside `store.write`. */
  flush(): { readonly added: number; readonly taken: readonly WaitingRow[] } {
    const [rows, waiting] = [this.#rows, this.#waiting];
    if (rows.length === 0) return { added: 0, taken: [] };
    this.drop();
    const taken = this.#tree.store.addRows(rows, this.#tree.isFilled);
    this.#tree.csns.observe(this.#highestCsn);
    return { added: rows.length - taken.length, taken: taken.map((at) => waiting[at] as WaitingRow) };
  }

  /** Forgets what waits. */
  drop(): void {
    this.#rows = [];
    this.#waiting = [];
  }

  #rowOf(
    ber: Buffer,
    parentId: number,
    [rdn, namingType, namingValue]: readonly [string, string, string],
    uuid: Buffer,
  ): NewRow | undefined {
    const body = this.#body;
    body.begin(ber, ber.length + 256);
    this.#entries += 1;
    const keys: string[] = [];
    let classes: Classes | undefined;
    let csn: string | undefined;
    let host: string | undefined;
    let rdnNorm: string | undefined;
    readLength(ber, 1, ber.length);
    for (let at = lengthContentStart(), position = 0; at < ber.length; position += 1) {
      const end = lengthAt(ber, at) + lengthContentStart();
      const typeAt = lengthContentStart();
      const typeLength = lengthAt(ber, typeAt);
      const typeStart = lengthContentStart();
      const form = this.#formAt(position, ber, typeStart, typeLength);
      if (form === undefined || form.seenIn === this.#entries || body.isFull) return undefined;
      form.seenIn = this.#entries;
      const setAt = typeStart + typeLength;
      const setEnd = lengthAt(ber, setAt) + lengthContentStart();
      const first = lengthContentStart();
      if (first === setEnd) return undefined;
      const length = lengthAt(ber, first);
      const start = lengthContentStart();
      const isSingle = start + length === setEnd;
      at = end;
      if (form.use === 'left out') continue;
      if (form.use === 'csn') {
        csn = isSingle ? ber.toString('latin1', start, setEnd) : undefined;
        continue;
      }
      if (form.use === 'classes') {
        classes = this.#classesOf(ber, first, setEnd);
        body.encoded(classes.head);
        continue;
      }
      if (isSingle) body.single(form.head, start, length);
      else body.several(form.head, placesOf(ber, first, setEnd));
      const isNaming = form.canonical === namingType;
      if (!isNaming && !form.isIndexed && form.canonical !== 'hostServer') continue;
      for (let one = first; one < setEnd; ) {
        const valueEnd = lengthAt(ber, one) + lengthContentStart();
        const value = ber.subarray(lengthContentStart(), valueEnd);
        one = valueEnd;
        const key = form.type.equality?.key(value);
        if (key !== undefined && form.isIndexed) keys.push(form.type.key, key);
        if (form.canonical === 'hostServer') host ??= value.toString('utf8');
        if (isNaming && isSingle && key !== undefined && value.toString('latin1') === namingValue && !/[^\w.@-]/.test(key))
          rdnNorm = `${normalizeAttributeType(namingType)}=${key}`;
      }
    }
    if (rdnNorm === undefined || classes === undefined || csn === undefined || !csnPattern.test(csn) || body.isFull) return undefined;
    body.encoded(classes.tail);
    keys.push(...classes.keys);
    if (csn > this.#highestCsn) this.#highestCsn = csn;
    const counted = host === undefined || !classes.tallies.includes('accounts') ? classes.tallies : [...classes.tallies, hostTally(host)];
    return { parentId, rdnNorm, rdn, uuid, csn, body: body.take(), keys, tallies: counted };
  }

  #formAt(position: number, ber: Buffer, start: number, length: number): Form | undefined {
    const expected = this.#order[position];
    if (expected !== undefined && isAt(ber, start, length, expected.name)) return expected;
    const text = ber.toString('latin1', start, start + length);
    const form = this.#forms.get(text) ?? this.#newForm(text);
    if (position < formsMax) this.#order[position] = form;
    return form;
  }

  // Undefined for a description that is stored under another one, or is none.
  #newForm(text: string): Form | undefined {
    const described = this.#tree.schema.description(text, true);
    if (described?.canonical !== text) return undefined;
    const use =
      text === 'objectClass'
        ? 'classes'
        : text === 'entryCSN'
          ? 'csn'
          : text === 'structuralObjectClass' || this.#notStored.has(text)
            ? 'left out'
            : 'stored';
    const { type } = described;
    const isIndexed = hasIndex(type.key) && type.equality !== undefined;
    const form: Form = { name: Buffer.from(text), canonical: text, use, head: bodyHead(text), type, isIndexed, seenIn: 0 };
    if (this.#forms.size >= formsMax) this.#forms.clear();
    this.#forms.set(text, form);
    return form;
  }

  #classesOf(ber: Buffer, first: number, end: number): Classes {
    const last = this.#lastClasses;
    if (last !== undefined && isAt(ber, first, end - first, last.octets)) return last;
    const text = ber.toString('latin1', first, end);
    let classes = this.#classes.get(text);
    if (classes === undefined) {
      const { schema } = this.#tree;
      const values: Buffer[] = [];
      const places = placesOf(ber, first, end);
      for (let one = 0; one < places.length; one += 2) {
        const start = places[one] as number;
        values.push(Buffer.from(ber.subarray(start, start + (places[one + 1] as number))));
      }
      const attributes: Attribute[] = [{ type: 'objectClass', values }];
      const structural = structuralClassOf(schema, attributes);
      classes = {
        octets: Buffer.from(ber.subarray(first, end)),
        head: encodeBody(attributes),
        tail: structural === undefined ? noOctets : encodeBody([{ type: 'structuralObjectClass', values: [Buffer.from(structural)] }]),
        keys: indexKeys(schema, attributes).flatMap(({ attribute, value }) => [attribute, value]),
        tallies: tallies(schema, attributes),
      };
      if (this.#classes.size >= formsMax) this.#classes.clear();
      this.#classes.set(text, classes);
    }
    this.#lastClasses = classes;
    return classes;
  }
}

const noOctets = Buffer.alloc(0);

/** Length of the element at `at`; its content starts at `lengthContentStart()`. */
function lengthAt(ber: Buffer, at: number): number {
  return readLength(ber, at + 1, ber.length);
}

/** Where the octet strings between two places are, start and length in turn. */
function placesOf(ber: Buffer, from: number, end: number): number[] {
  const places: number[] = [];
  for (let at = from; at < end; ) {
    const length = lengthAt(ber, at);
    const start = lengthContentStart();
    places.push(start, length);
    at = start + length;
  }
  return places;
}

function isAt(ber: Buffer, start: number, length: number, octets: Buffer): boolean {
  if (octets.length !== length) return false;
  for (let at = length - 1; at >= 0; at -= 1) if (ber[start + at] !== octets[at]) return false;
  return true;
}
