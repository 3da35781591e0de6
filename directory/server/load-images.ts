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
import { type Image, ReceivedImage } from '#protocol/ldap/image-batch.ts';
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
const plainName = /^[A-Za-z][A-Za-z0-9-]*=[\w.@-]+$/;
/** Values that are their own keys where nothing but case and spaces is folded. */
const plainValue = /^[!-@[-~]+$/;
/** Octets of bodies that wait; more have a place of their own. */
const poolBytes = 262_144;

const noOctets = Buffer.alloc(0);

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
  readonly image: ReceivedImage;
  readonly index: number;
}

/** The attribute that entries are named by. */
interface Naming {
  /** `uid=` as it stands in names, and in their keys. */
  readonly prefix: string;
  readonly normPrefix: string;
  readonly type: string;
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
  #naming: Naming = { prefix: '=', normPrefix: '=', type: '' };
  /** The parent of the entry before: its name as it came, and its id. */
  #parentName = noOctets;
  #parentId: number | undefined;
  #counted: { readonly classes: Classes; readonly host: string; readonly tallies: readonly string[] } | undefined;
  readonly #pool = Buffer.allocUnsafeSlow(poolBytes);
  #pooled = 0;
  #entries = 0;
  #rows: NewRow[] = [];
  #waiting: WaitingRow[] = [];
  #highestCsn = '';

  constructor(tree: Tree, notStored: ReadonlySet<string>) {
    this.#tree = tree;
    this.#notStored = notStored;
  }

  /** Takes an image of a new entry; `parentOf` gives the id of the entry of a name, where there is one. */
  take(image: Image, index: number, parentOf: (dn: string) => number | undefined): boolean {
    if (!(image instanceof ReceivedImage)) return false;
    const { octets, uuidStart, dnStart, dnEnd } = image;
    let comma = dnStart;
    while (comma < dnEnd && octets[comma] !== 0x2c) comma += 1;
    if (comma === dnEnd) return false;
    const rdn = octets.toString('latin1', dnStart, comma);
    if (!plainName.test(rdn)) return false;
    const { store } = this.#tree;
    const uuid = octets.subarray(uuidStart, uuidStart + 16);
    // Asked first: a replica that follows has most of the entries that it is told of.
    if (!store.claimUuid(uuid)) return false;
    const parentId = this.#parentOf(image, comma + 1, parentOf);
    const row = parentId === undefined ? undefined : this.#rowOf(image, parentId, rdn, uuid);
    if (row === undefined) {
      store.releaseUuid(uuid);
      return false;
    }
    this.#rows.push(row);
    this.#waiting.push({ image, index });
    return true;
  }

  #parentOf({ octets, dnEnd }: ReceivedImage, start: number, parentOf: (dn: string) => number | undefined): number | undefined {
    if (this.#parentId === undefined || !isAt(octets, start, dnEnd - start, this.#parentName)) {
      this.#parentId = parentOf(octets.toString('utf8', start, dnEnd));
      this.#parentName = Buffer.from(octets.subarray(start, dnEnd));
    }
    return this.#parentId;
  }

  /** What was known of parents may not be so any more. */
  forgetParent(): void {
    this.#parentId = undefined;
  }

  /** Writes the rows that wait; inside `store.write`. */
  flush(): { readonly added: number; readonly taken: readonly WaitingRow[] } {
    const [rows, waiting] = [this.#rows, this.#waiting];
    if (rows.length === 0) return { added: 0, taken: [] };
    const taken = this.#tree.store.addRows(rows, this.#tree.isFilled);
    this.drop();
    this.#tree.csns.observe(this.#highestCsn);
    return { added: rows.length - taken.length, taken: taken.map((at) => waiting[at] as WaitingRow) };
  }

  /** Forgets what waits. */
  drop(): void {
    this.#rows = [];
    this.#waiting = [];
    this.#pooled = 0;
  }

  #rowOf({ octets: ber, dnEnd, attributesEnd }: ReceivedImage, parentId: number, rdn: string, uuid: Buffer): NewRow | undefined {
    const body = this.#body;
    body.begin(ber, attributesEnd - dnEnd + 256);
    this.#entries += 1;
    if (!rdn.startsWith(this.#naming.prefix)) this.#naming = namingOf(rdn);
    const { type: namingType, prefix, normPrefix } = this.#naming;
    const valueLength = rdn.length - prefix.length;
    const keys: string[] = [];
    let classes: Classes | undefined;
    let csn: string | undefined;
    let host: string | undefined;
    let rdnNorm: string | undefined;
    lengthAt(ber, dnEnd);
    for (let at = lengthContentStart(), position = 0; at < attributesEnd; position += 1) {
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
        const valueStart = lengthContentStart();
        one = valueEnd;
        const key = keyOf(form.type, ber, valueStart, valueEnd);
        if (key !== undefined && form.isIndexed) keys.push(form.type.key, key);
        if (form.canonical === 'hostServer') host ??= ber.toString('utf8', valueStart, valueEnd);
        if (!isNaming || !isSingle || key === undefined || valueEnd - valueStart !== valueLength || /[^\w.@-]/.test(key)) continue;
        if (isNamed(rdn, prefix.length, ber, valueStart, valueEnd)) rdnNorm = normPrefix + key;
      }
    }
    if (rdnNorm === undefined || classes === undefined || csn === undefined || !csnPattern.test(csn) || body.isFull) return undefined;
    body.encoded(classes.tail);
    keys.push(...classes.keys);
    if (csn > this.#highestCsn) this.#highestCsn = csn;
    const tallies = host === undefined ? classes.tallies : this.#talliesOf(classes, host);
    return { parentId, rdnNorm, rdn, uuid, csn, body: this.#pooledBody(), keys, tallies };
  }

  // Good until the rows that wait are written.
  #pooledBody(): Uint8Array {
    const start = this.#pooled;
    const end = start + this.#body.length;
    if (end > poolBytes) return this.#body.take();
    this.#body.copyTo(this.#pool, start);
    this.#pooled = end;
    return this.#pool.subarray(start, end);
  }

  #talliesOf(classes: Classes, host: string): readonly string[] {
    if (!classes.tallies.includes('accounts')) return classes.tallies;
    if (this.#counted?.classes !== classes || this.#counted.host !== host)
      this.#counted = { classes, host, tallies: [...classes.tallies, hostTally(host)] };
    return this.#counted.tallies;
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

/** How entries are named whose names begin as this one. */
function namingOf(rdn: string): Naming {
  const type = rdn.slice(0, rdn.indexOf('='));
  return { prefix: `${type}=`, normPrefix: `${normalizeAttributeType(type)}=`, type };
}

function isNamed(rdn: string, from: number, ber: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) if (ber[at] !== rdn.charCodeAt(from + at - start)) return false;
  return true;
}

/** The key of a value under the attribute's rule for equality. */
function keyOf({ equality }: AttributeType, ber: Buffer, start: number, end: number): string | undefined {
  if (equality?.plainKey !== undefined) {
    const text = ber.toString('latin1', start, end);
    if (plainValue.test(text)) return text;
  }
  return equality?.key(ber.subarray(start, end));
}

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
