/**
 * The extended operation by which our replication service writes one of our own replicas: many entries in one message, each as the master
 * has it, found by `entryUUID` whatever its name was. It is for the right `replicator` on a replica only.
 *
 *   ImageBatch  ::= SEQUENCE { mayDisplace BOOLEAN, contextCsn [0] OCTET STRING OPTIONAL,
 *                              only [1] SEQUENCE OF description OPTIONAL, without [2] SEQUENCE OF description OPTIONAL,
 *                              changes SEQUENCE OF CHOICE { put [3] SEQUENCE { uuid, dn, attributes },
 *                                                           delete [4] SEQUENCE { uuid, csn OCTET STRING OPTIONAL } } }
 *   ImageResult ::= SEQUENCE { added, modified, renamed, deleted INTEGER,
 *                              remarks SEQUENCE OF SEQUENCE { index INTEGER, kind ENUMERATED, resultCode INTEGER, text } }
 *
 * A change that cannot be done is named in a remark and leaves the others alone. The batch is visible when it is answered; it is on the disk
 * when one with `contextCsn` is answered that was sent after it (docs/adr/0010-replica-durability.md).
 */
import { BerError, BerReader, BerWriter, berTags, checkUtf8, elementEnd, lengthContentStart, readLength } from '#protocol/ldap/ber.ts';
import { uuidFromBytes, uuidToBytes } from '#protocol/ldap/controls.ts';
import { writeAttributes } from '#protocol/ldap/encode.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { readAttributes } from '#protocol/ldap/parse.ts';
import type { SyncEntryPlaces } from '#protocol/ldap/sync-entry.ts';

/** OID of the operation. */
export const imageBatchOid = '2.25.11233386167282336856843219451289651251.3.2';

/** One entry as it shall be. */
export type Image =
  | {
      readonly uuid: string;
      readonly dn: string;
      readonly attributes: readonly Attribute[];
      /** The attributes as they came from the master, which spares their writer the work. */
      readonly attributesBer?: Buffer | undefined;
    }
  /** It shall be gone; `csn`: of the deletion, where it is known. */
  | { readonly uuid: string; readonly dn: undefined; readonly csn: string | undefined };

/** See the header of this file. */
export interface ImageBatch {
  /** An entry that has a name another one shall have is given a name that nobody uses, and named in a remark. */
  readonly mayDisplace: boolean;
  /** As of which change the content is whole after this batch. */
  readonly contextCsn: string | undefined;
  /** Attributes that the images speak of, or those they do not: what else an entry has is left alone. */
  readonly only: readonly string[] | undefined;
  readonly without: readonly string[] | undefined;
  readonly changes: readonly Image[];
  /** Changes before those, encoded already. */
  readonly encoded?: EncodedImages | undefined;
}

/** Changes as they stand in a batch. */
export interface EncodedImages {
  readonly octets: Buffer;
  readonly count: number;
}

/** What is to be said of one change. */
export interface ImageRemark {
  readonly index: number;
  /** refused: not done, `text` says why; displaced: `text` is the UUID of the entry that gave way; container: an entry with others below it got another name. */
  readonly kind: 'refused' | 'displaced' | 'container';
  readonly resultCode: number;
  readonly text: string;
}

/** The answer's value. */
export interface ImageResult {
  readonly added: number;
  readonly modified: number;
  readonly renamed: number;
  readonly deleted: number;
  readonly remarks: readonly ImageRemark[];
}

const kinds = ['refused', 'displaced', 'container'] as const;
const writer = new BerWriter();

/** Writes a batch. */
export function encodeImageBatch(batch: ImageBatch): Buffer {
  writeImageBatch(writer, batch);
  return writer.take();
}

/** The same into a message that is being written. */
export function writeImageBatch(to: BerWriter, batch: ImageBatch): void {
  const opened = to.open(berTags.sequence);
  to.boolean(batch.mayDisplace);
  if (batch.contextCsn !== undefined) to.text(batch.contextCsn, 0x80);
  if (batch.only !== undefined) writeTexts(to, batch.only, 0xa1);
  if (batch.without !== undefined) writeTexts(to, batch.without, 0xa2);
  const changes = to.open(berTags.sequence);
  if (batch.encoded !== undefined) to.raw(batch.encoded.octets);
  for (const change of batch.changes) writeImage(to, change);
  to.close(changes);
  to.close(opened);
}

/** Reads a batch; `undefined` when it is malformed. */
export function readImageBatch(value: Buffer | undefined): ImageBatch | undefined {
  return read(value, (reader) => {
    const outer = reader.enter(berTags.sequence);
    const mayDisplace = reader.boolean();
    const contextCsn = reader.peekTag() === 0x80 ? reader.text(0x80) : undefined;
    const only = reader.peekTag() === 0xa1 ? readTexts(reader, 0xa1) : undefined;
    const without = reader.peekTag() === 0xa2 ? readTexts(reader, 0xa2) : undefined;
    const changes = readImages(reader.octets(berTags.sequence));
    reader.leave(outer);
    return { mayDisplace, contextCsn, only, without, changes };
  });
}

/** Encodes entries one by one, as they come, into changes that are sent together later. */
export class ImageEncoder {
  readonly #writer = new BerWriter();
  #count = 0;

  /** Octets since the last `take`. */
  get bytes(): number {
    return this.#writer.length;
  }

  get count(): number {
    return this.#count;
  }

  add(image: Image): void {
    writeImage(this.#writer, image);
    this.#count += 1;
  }

  /** Adds an entry that is passed on as it came. */
  addFound(bytes: Buffer, { uuidStart, dnStart, attributesEnd }: SyncEntryPlaces): void {
    const one = this.#writer.open(0xa3);
    this.#writer.rawOf(uuidHeader, 0, uuidHeader.length);
    this.#writer.rawOf(bytes, uuidStart, uuidStart + 16);
    this.#writer.rawOf(bytes, dnStart, attributesEnd);
    this.#writer.close(one);
    this.#count += 1;
  }

  take(): EncodedImages {
    const count = this.#count;
    this.#count = 0;
    return { octets: this.#writer.take(), count };
  }
}

const uuidHeader = Buffer.from([berTags.octets, 16]);

/** What was encoded. */
export function decodeImages({ octets }: EncodedImages): readonly Image[] {
  return readImages(octets);
}

/** Where the parts of a put are in the octets of what was encoded: elements with their tags, the UUID's 16 octets. */
export interface ImagePlaces {
  uuidStart: number;
  dnStart: number;
  /** Of the name's text. */
  dnTextStart: number;
  attributesStart: number;
  end: number;
}

/** Walks through puts that were encoded here, without making anything of them. */
export class ImageWalker {
  readonly octets: Buffer;
  /** Of the put that `next` went to; good until the next call. */
  readonly places: ImagePlaces = { uuidStart: 0, dnStart: 0, dnTextStart: 0, attributesStart: 0, end: 0 };

  constructor({ octets }: EncodedImages) {
    this.octets = octets;
  }

  /** Goes to the next put; false at the end. */
  next(): boolean {
    const { octets, places } = this;
    const start = places.end;
    if (start === octets.length) return false;
    if (octets[start] !== 0xa3) throw new BerError('no put');
    const length = readLength(octets, start + 1, octets.length);
    places.uuidStart = lengthContentStart() + uuidHeader.length;
    places.end = lengthContentStart() + length;
    places.dnStart = places.uuidStart + 16;
    const dnLength = readLength(octets, places.dnStart + 1, places.end);
    places.dnTextStart = lengthContentStart();
    places.attributesStart = places.dnTextStart + dnLength;
    return true;
  }

  /** Name of the put. */
  get dn(): string {
    return this.octets.toString('utf8', this.places.dnTextStart, this.places.attributesStart);
  }
}

function writeImage(to: BerWriter, image: Image): void {
  const one = to.open(image.dn === undefined ? 0xa4 : 0xa3);
  to.octets(uuidToBytes(image.uuid));
  if (image.dn !== undefined) {
    to.text(image.dn);
    if (image.attributesBer === undefined) writeAttributes(to, image.attributes);
    else to.raw(image.attributesBer);
  } else if (image.csn !== undefined) {
    to.text(image.csn);
  }
  to.close(one);
}

function readImages(bytes: Buffer): Image[] {
  const images: Image[] = [];
  for (let at = 0; at < bytes.length; ) {
    const isPut = bytes[at] === 0xa3;
    const end = elementEnd(bytes, at, bytes.length, isPut ? 0xa3 : 0xa4);
    const uuidEnd = elementEnd(bytes, lengthContentStart(), end, berTags.octets);
    const uuidStart = lengthContentStart();
    if (uuidEnd - uuidStart !== 16) throw new BerError(`a UUID of ${uuidEnd - uuidStart} octets`);
    at = end;
    if (!isPut) {
      const csn = uuidEnd < end ? new BerReader(bytes.subarray(uuidEnd, end)).text() : undefined;
      images.push({ uuid: uuidFromBytes(bytes.subarray(uuidStart, uuidEnd)), dn: undefined, csn });
      continue;
    }
    const dnEnd = elementEnd(bytes, uuidEnd, end, berTags.octets);
    const dnStart = lengthContentStart();
    checkUtf8(bytes, dnStart, dnEnd);
    const attributesEnd = elementEnd(bytes, dnEnd, end, berTags.sequence);
    checkAttributes(bytes, lengthContentStart(), attributesEnd);
    images.push(new ReceivedImage(bytes, uuidStart, dnStart, dnEnd, attributesEnd));
  }
  return images;
}

// That `readAttributes` will be able to read them.
function checkAttributes(bytes: Buffer, start: number, end: number): void {
  for (let at = start; at < end; ) {
    const oneEnd = elementEnd(bytes, at, end, berTags.sequence);
    const typeEnd = elementEnd(bytes, lengthContentStart(), oneEnd, berTags.octets);
    checkUtf8(bytes, lengthContentStart(), typeEnd);
    const setEnd = elementEnd(bytes, typeEnd, oneEnd, berTags.set);
    for (let value = lengthContentStart(); value < setEnd; ) value = elementEnd(bytes, value, setEnd, berTags.octets);
    at = oneEnd;
  }
}

/** Writes the answer's value. */
export function encodeImageResult(result: ImageResult): Buffer {
  const opened = writer.open(berTags.sequence);
  for (const count of [result.added, result.modified, result.renamed, result.deleted]) writer.integer(count);
  const remarks = writer.open(berTags.sequence);
  for (const remark of result.remarks) {
    const one = writer.open(berTags.sequence);
    writer.integer(remark.index);
    writer.integer(kinds.indexOf(remark.kind), berTags.enumerated);
    writer.integer(remark.resultCode);
    writer.text(remark.text);
    writer.close(one);
  }
  writer.close(remarks);
  writer.close(opened);
  return writer.take();
}

/** Reads the answer's value; `undefined` when it is malformed. */
export function readImageResult(value: Buffer | undefined): ImageResult | undefined {
  return read(value, (reader) => {
    const outer = reader.enter(berTags.sequence);
    const [added, modified, renamed, deleted] = [reader.integer(), reader.integer(), reader.integer(), reader.integer()];
    const remarks: ImageRemark[] = [];
    const all = reader.enter(berTags.sequence);
    while (reader.hasMore()) {
      const one = reader.enter(berTags.sequence);
      const index = reader.integer();
      const kind = kinds[reader.integer(berTags.enumerated)];
      if (kind === undefined) throw new BerError('a remark of an unknown kind');
      remarks.push({ index, kind, resultCode: reader.integer(), text: reader.text() });
      reader.leave(one);
    }
    reader.leave(all);
    reader.leave(outer);
    return { added, modified, renamed, deleted, remarks };
  });
}

/** An image that came as octets, and is taken apart when somebody looks at it. The octets can be read (sync-entry.ts). */
export class LazyImage {
  readonly uuidOctets: Buffer;
  readonly dn: string;
  readonly attributesBer: Buffer;
  #attributes: readonly Attribute[] | undefined;

  constructor(uuidOctets: Buffer, dn: string, attributesBer: Buffer) {
    this.uuidOctets = uuidOctets;
    this.dn = dn;
    this.attributesBer = attributesBer;
  }

  get uuid(): string {
    return uuidFromBytes(this.uuidOctets);
  }

  get attributes(): readonly Attribute[] {
    this.#attributes ??= readAttributes(new BerReader(this.attributesBer));
    return this.#attributes;
  }
}

/** An image of a batch that was read, well-formed, which is taken apart when somebody looks at it. */
export class ReceivedImage {
  readonly octets: Buffer;
  /** Where in them its parts are: 16 octets of the UUID, the text of the name, and, from the end of that, the list of attributes. */
  readonly uuidStart: number;
  readonly dnStart: number;
  readonly dnEnd: number;
  readonly attributesEnd: number;
  #dn: string | undefined;
  #attributes: readonly Attribute[] | undefined;

  constructor(octets: Buffer, uuidStart: number, dnStart: number, dnEnd: number, attributesEnd: number) {
    this.octets = octets;
    this.uuidStart = uuidStart;
    this.dnStart = dnStart;
    this.dnEnd = dnEnd;
    this.attributesEnd = attributesEnd;
  }

  get uuid(): string {
    return uuidFromBytes(this.octets.subarray(this.uuidStart, this.uuidStart + 16));
  }

  get dn(): string {
    this.#dn ??= this.octets.toString('utf8', this.dnStart, this.dnEnd);
    return this.#dn;
  }

  get attributes(): readonly Attribute[] {
    this.#attributes ??= readAttributes(new BerReader(this.octets.subarray(this.dnEnd, this.attributesEnd)));
    return this.#attributes;
  }
}

function read<T>(value: Buffer | undefined, take: (reader: BerReader) => T): T | undefined {
  if (value === undefined) return undefined;
  try {
    return take(new BerReader(value));
  } catch (error) {
    if (error instanceof BerError) return undefined;
    throw error;
  }
}

function writeTexts(to: BerWriter, texts: readonly string[], tag: number): void {
  const opened = to.open(tag);
  for (const text of texts) to.text(text);
  to.close(opened);
}

function readTexts(reader: BerReader, tag: number): string[] {
  const texts: string[] = [];
  const outer = reader.enter(tag);
  while (reader.hasMore()) texts.push(reader.text());
  reader.leave(outer);
  return texts;
}
