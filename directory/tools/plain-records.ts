/**
 * Records of an LDIF that look like the one before them, straight from the octets of the file into a batch. Of a file of millions nearly all do: the
 * same lines in the same order, many with the same values. No object is made of such a record:
 *
 *   record read and checked whole (prepare-entry.ts) ──► `learn`: its lines, and what is done with the value of each
 *   next record ──► `take`: each line the same as there, or with another value, which is checked ──► batch
 *
 * A line that is the same octet for octet was found good before. Whatever is not as expected, a value that is no plain ASCII of a simple syntax and
 * fails its check, another line, an escape in the name, is left to be read whole, which also says what is wrong with it.
 */
import { tryParseAccountName } from '#common/account-name.ts';
import { isHashed } from '#common/passwords/password-hasher.ts';
import { normalizeAttributeType } from '#protocol/ldap/dn.ts';
import type { RecordTaker } from '#protocol/ldap/ldif-block.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { checkAccountValues } from '../provisioning/mail-rules.ts';
import { checkAttribute } from '../schema/check-entry.ts';
import { hostTally } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { AttributeType, ParsedDescription, Schema } from '../schema/schema.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import { BodyBuilder, bodyHead, encodeBody } from '../store/entry-body.ts';
import { indexKeyMax } from '../store/key-index.ts';
import { addressTypes, type ContentRecord, type Form, type PreparedEntry, readUuid, uuidOctets, uuidTextLength } from './prepare-entry.ts';
import type { BatchWriter } from './prepared-batch.ts';

/** Lines, and attributes that are stored, of a record that is learnt. */
const linesMax = 256;
const storedMax = 60;
/** After so many records that were not taken in a row only each so-manieth is learnt: a file of changing forms is not slowed down. */
const missesMax = 16;
/** Longest local part that is taken without a closer look, see account-name.ts. */
const localPartMax = 64;

const feed = 10;
const space = 32;

/** One line: where it stood last, and where in it the value is. */
interface Line {
  /** `type: ` */
  readonly start: Buffer;
  at: number;
  end: number;
  isChanged: boolean;
  /** ASCII without controls, without spaces at its ends or two in a row. */
  isPlain: boolean;
  hasUpper: boolean;
}

/** What is done with an attribute. */
interface Role {
  readonly use: 'stored' | 'uuid' | 'csn' | 'classes' | 'left out';
  readonly type: AttributeType;
  readonly name: string;
  /** Its lines. */
  readonly from: number;
  readonly to: number;
  /** What stands before its values in the body; of the classes the whole attribute. */
  readonly head: Buffer;
  readonly isIndexed: boolean;
  /** Whether every plain value is of the syntax, and what its key is. */
  readonly plainKey: 'same' | 'lower' | undefined;
  readonly special: 'address' | 'host' | 'limited' | 'password' | undefined;
}

interface Stencil {
  readonly form: Form;
  readonly lines: readonly Line[];
  readonly roles: readonly Role[];
  /** The attribute that names the entry, and the line of its value. */
  readonly naming: Role;
  readonly namingStart: string;
  readonly namingNorm: string;
  /** Operational attributes that the file does not give. */
  readonly tail: Buffer;
  readonly tallies: readonly string[];
}

/** What it works with, see prepare-entry.ts. */
interface PlainContext {
  readonly schema: Schema;
  uuid(): string;
  nextCsn(): string;
}

/** See the header of this file. */
export class PlainRecords implements RecordTaker {
  readonly #context: PlainContext;
  readonly #body = new BodyBuilder();
  readonly #uuid = Buffer.alloc(16);
  #writer: BatchWriter | undefined;
  #stencil: Stencil | undefined;
  /** Whether the lines of the stencil stand in `#source`, the present block or the one before, and were found good. */
  #isAnchored = false;
  #source: Buffer = Buffer.alloc(0);
  #block: Buffer = Buffer.alloc(0);
  #missedAt = -1;
  #misses = 0;
  linesTaken = 0;
  // Of the name that is looked at.
  #nameFrom = 0;
  #nameTo = 0;
  #parentFrom = 0;
  #parentTo = 0;
  // Of the batch: where its last parent stood and the number of its word; hosts by their spelling.
  #lastParentFrom = 0;
  #lastParentTo = -1;
  #parentWord = 0;
  readonly #hosts = new Map<string, { readonly host: number; readonly tally: number }>();
  // The domain of the address that was found good last, in this block.
  #domainFrom = 0;
  #domainTo = 0;

  constructor(context: PlainContext) {
    this.#context = context;
  }

  /** Begins a block whose records go to `writer`; without one none is taken from here on. */
  begin(block: Buffer, writer: BatchWriter | undefined): void {
    this.#block = block;
    this.#writer = writer;
    this.#missedAt = -1;
    this.#lastParentTo = -1;
    this.#hosts.clear();
    this.#domainTo = 0;
  }

  take(block: Buffer, at: number, line: number): number {
    const stencil = this.#stencil;
    this.#missedAt = at;
    if (stencil === undefined || !this.#isAnchored || this.#writer === undefined) return 0;
    // What is changed from here on counts as found good only when all of it is.
    this.#isAnchored = false;
    const end = this.#match(stencil, block, at);
    if (end === 0 || !this.#isGood(stencil, block) || !this.#write(stencil, block, this.#writer, line, end - at)) return 0;
    this.#isAnchored = true;
    this.#misses = 0;
    const hasEmptyLine = end < block.length;
    this.linesTaken = stencil.lines.length + (hasEmptyLine ? 2 : 1);
    return hasEmptyLine ? end + 1 : end;
  }

  /** The record that was not taken last was read and found good: the next ones may be like it. */
  learn(record: ContentRecord, prepared: PreparedEntry, form: Form | undefined): void {
    const block = this.#block;
    const at = this.#missedAt;
    this.#missedAt = -1;
    if (this.#writer === undefined || form === undefined || at < 0) return;
    this.#misses += 1;
    if (this.#misses > missesMax && this.#misses % missesMax !== 0) return;
    if (this.#stencil?.form !== form) this.#stencil = stencilOf(this.#context.schema, record, prepared, form);
    const stencil = this.#stencil;
    if (stencil === undefined) return;
    // As it stands it must be what was read: without folded lines, other line ends, or spaces that do not count.
    for (const one of stencil.lines) one.end = one.at;
    if (this.#match(stencil, block, at) === 0 || !isAsRead(stencil, block, record)) return;
    // An address must be one in lower case, which is all that is done with the next ones.
    this.#isAnchored = stencil.roles.every((role) => role.special !== 'address' || this.#isGoodOtherwise(stencil, role, block));
  }

  // Finds the lines of a record; gives the position behind the last of them, 0 when they are others.
  #match(stencil: Stencil, block: Buffer, from: number): number {
    let at = this.#matchName(stencil, block, from);
    if (at === 0) return 0;
    const source = this.#source;
    this.#source = block;
    for (const one of stencil.lines) {
      const { start } = one;
      const lineLength = one.end - one.at;
      let same = 0;
      while (same < lineLength && block[at + same] === source[one.at + same]) same += 1;
      // With the feed at its end.
      if (same === lineLength && same > 0 && block[at + same] === feed) {
        one.isChanged = false;
        one.at = at;
        at += lineLength + 1;
        one.end = at - 1;
        continue;
      }
      for (let i = Math.min(same, start.length); i < start.length; i += 1) if (block[at + i] !== start[i]) return 0;
      one.at = at;
      one.isChanged = true;
      at = this.#matchValue(one, block, at + start.length);
      if (at === 0) return 0;
    }
    return at === block.length || block[at] === feed ? at : 0;
  }

  // Gives the position behind the line; 0 for a value that is empty, or no ASCII, or has controls or a space before it.
  #matchValue(one: Line, block: Buffer, from: number): number {
    let at = from;
    let before = space;
    let isPlain = true;
    let hasUpper = false;
    for (; at < block.length; at += 1) {
      const octet = block[at] as number;
      if (octet === feed) break;
      if (octet < space || octet > 126) return 0;
      if (octet === space && before === space) {
        if (at === from) return 0;
        isPlain = false;
      }
      if (octet >= 65 && octet <= 90) hasUpper = true;
      before = octet;
    }
    if (at === from || at === block.length) return 0;
    one.end = at;
    one.isPlain = isPlain && before !== space;
    one.hasUpper = hasUpper;
    return at + 1;
  }

  // `dn: type=value,parent` with the type of the stencil and a value that needs no escapes.
  #matchName(stencil: Stencil, block: Buffer, from: number): number {
    const { namingStart } = stencil;
    for (let i = 0; i < namingStart.length; i += 1) if (block[from + i] !== namingStart.charCodeAt(i)) return 0;
    let at = from + namingStart.length;
    this.#nameFrom = at;
    while (isNameOctet[block[at] as number] === 1) at += 1;
    this.#nameTo = at;
    if (at === this.#nameFrom || block[at] !== 44 || block[at + 1] === space) return 0;
    at += 1;
    this.#parentFrom = at;
    const parentLength = this.#lastParentTo - this.#lastParentFrom;
    let same = 0;
    while (same < parentLength && block[at + same] === block[this.#lastParentFrom + same]) same += 1;
    at += same === parentLength && block[at + same] === feed ? same : 0;
    for (; at < block.length; at += 1) {
      const octet = block[at] as number;
      if (octet === feed) break;
      if (octet < space || octet > 126) return 0;
    }
    if (at === block.length) return 0;
    this.#parentTo = at;
    return at + 1;
  }

  // Whether all values that are not as before may be there.
  #isGood(stencil: Stencil, block: Buffer): boolean {
    for (const role of stencil.roles) {
      if (!this.#hasChanged(stencil, role)) continue;
      const only = stencil.lines[role.from] as Line;
      const isSingle = role.to - role.from === 1;
      if (role.use === 'left out') continue;
      if (role.use === 'classes') return false;
      if (role.use === 'uuid') {
        const start = only.at + only.start.length;
        if (only.end - start !== uuidTextLength || !readUuid(block, start, this.#uuid)) return false;
        continue;
      }
      if (role.use === 'csn') {
        if (!isLongCsn(block, only) && !csnPattern.test(valueText(block, only))) return false;
        continue;
      }
      if (isSingle && only.isPlain && role.plainKey !== undefined && (role.special === undefined || role.special === 'host')) continue;
      if (role.special === 'address' && isSingle && only.isPlain && this.#isAddress(block, only)) continue;
      if (!this.#isGoodOtherwise(stencil, role, block)) return false;
    }
    // The name is the value of its attribute, letter by letter.
    const named = stencil.lines[stencil.naming.from] as Line;
    const start = named.at + named.start.length;
    if (named.end - start !== this.#nameTo - this.#nameFrom) return false;
    for (let i = 0; start + i < named.end; i += 1) if (block[start + i] !== block[this.#nameFrom + i]) return false;
    return true;
  }

  #hasChanged({ lines }: Stencil, role: Role): boolean {
    for (let i = role.from; i < role.to; i += 1) if ((lines[i] as Line).isChanged) return true;
    return false;
  }

  #isGoodOtherwise({ form, lines }: Stencil, role: Role, block: Buffer): boolean {
    const values = lines.slice(role.from, role.to).map((one) => block.subarray(one.at + one.start.length, one.end));
    const one: Attribute = { type: role.name, values };
    try {
      checkAttribute(this.#context.schema, one);
      if (role.special === 'limited' && form.kind === 'account') checkAccountValues([one]);
    } catch (error) {
      if (error instanceof Refusal) return false;
      throw error;
    }
    if (role.special === 'password') return values.every((value) => isHashed(value.toString('utf8')));
    if (role.special !== 'address') return true;
    return values.every((value) => {
      const text = value.toString('latin1');
      return tryParseAccountName(text) === text.toLowerCase();
    });
  }

  // An address in the domain of the last good one, with a local part of letters, digits and single dots; or one that is good otherwise.
  #isAddress(block: Buffer, one: Line): boolean {
    const start = one.at + one.start.length;
    const at = one.end - (this.#domainTo - this.#domainFrom) - 1;
    if (this.#domainTo > 0 && at > start && at - start <= localPartMax && block[at] === 64) {
      let i = this.#domainFrom;
      while (i < this.#domainTo && block[i] === block[at + 1 + i - this.#domainFrom]) i += 1;
      let before = 46;
      let isLocal = i === this.#domainTo;
      for (let p = start; isLocal && p < at; p += 1) {
        const octet = block[p] as number;
        isLocal = isNameOctet[octet] === 1 && octet !== 64 && !(octet === 46 && before === 46);
        before = octet;
      }
      if (isLocal && before !== 46) return true;
    }
    const text = valueText(block, one);
    if (tryParseAccountName(text) !== text.toLowerCase()) return false;
    this.#domainFrom = start + text.lastIndexOf('@') + 1;
    this.#domainTo = one.end;
    return true;
  }

  #write(stencil: Stencil, block: Buffer, writer: BatchWriter, line: number, octetsMax: number): boolean {
    const { form, lines, roles, naming } = stencil;
    const isAccount = form.kind === 'account';
    const body = this.#body;
    body.begin(block, octetsMax + stencil.tail.length + 1024);
    let keys = 0;
    let addresses = 0;
    let host: Line | undefined;
    let csn: Line | undefined;
    let hasUuid = false;
    for (const role of roles) {
      const first = lines[role.from] as Line;
      if (role.use === 'left out') continue;
      if (role.use === 'classes') {
        body.encoded(role.head);
        continue;
      }
      if (role.use === 'uuid') {
        hasUuid = readUuid(block, first.at + first.start.length, this.#uuid);
        continue;
      }
      if (role.use === 'csn') {
        csn = first;
        continue;
      }
      if (role.to - role.from === 1) {
        const start = first.at + first.start.length;
        body.single(role.head, start, first.end - start);
      } else {
        body.several(role.head, placesOf(lines, role));
      }
      if (role.isIndexed) keys += role.to - role.from;
      if (isAccount && role.special === 'address') addresses += role.to - role.from;
      if (isAccount && role.special === 'host') host = first;
    }
    body.encodedAll(stencil.tail);
    const named = lines[naming.from] as Line;
    // A name whose key is not made of plain text is nothing for here.
    if (naming.plainKey === undefined || !named.isPlain) return false;
    const isLowered = naming.plainKey === 'lower' && named.hasUpper;

    const ofHost = host === undefined ? undefined : this.#hostOf(block, host, writer);
    writer.head(line, form.kind, this.#parentOf(block, writer), ofHost?.host ?? -1);
    writer.asciiText(stencil.namingNorm, block, this.#nameFrom, this.#nameTo, isLowered);
    if (isLowered || stencil.namingNorm !== stencil.namingStart.slice(dnStart.length)) {
      writer.asciiText(stencil.namingStart.slice(dnStart.length), block, this.#nameFrom, this.#nameTo, false);
    } else {
      writer.number(0);
    }
    if (csn === undefined) writer.text(this.#context.nextCsn());
    else writer.asciiText('', block, csn.at + csn.start.length, csn.end, false);
    if (isAccount) writer.asciiText('', block, this.#nameFrom, this.#nameTo, false);
    else writer.number(0);
    writer.octets(hasUuid ? this.#uuid : uuidOctets(this.#context.uuid()), body.view());
    writer.number(keys + form.classKeys.length / 2);
    for (let i = 0; i < form.classKeys.length; i += 2) {
      writer.number(writer.word(form.classKeys[i] as string));
      writer.text(form.classKeys[i + 1] as string);
    }
    for (const role of roles) if (role.isIndexed) this.#writeKeys(stencil, role, block, writer);
    if (isAccount) {
      writer.number(ofHost === undefined ? 1 : 2);
      writer.number(writer.word('accounts'));
      if (ofHost !== undefined) writer.number(ofHost.tally);
    } else {
      writer.number(stencil.tallies.length);
      for (const name of stencil.tallies) writer.number(writer.word(name));
    }
    writer.number(addresses);
    if (addresses > 0) {
      for (const role of roles) {
        for (let i = role.from; role.special === 'address' && i < role.to; i += 1) {
          const one = lines[i] as Line;
          writer.asciiText('', block, one.at + one.start.length, one.end, one.hasUpper);
        }
      }
    }
    return true;
  }

  #writeKeys({ lines }: Stencil, role: Role, block: Buffer, writer: BatchWriter): void {
    const word = writer.word(role.type.key);
    for (let i = role.from; i < role.to; i += 1) {
      const one = lines[i] as Line;
      const start = one.at + one.start.length;
      writer.number(word);
      if (one.isPlain && role.plainKey !== undefined) {
        writer.asciiText('', block, start, Math.min(one.end, start + indexKeyMax), role.plainKey === 'lower' && one.hasUpper);
      } else {
        const key = role.type.equality?.key(block.subarray(start, one.end)) ?? '';
        writer.text(key.length > indexKeyMax ? key.slice(0, indexKeyMax) : key);
      }
    }
  }

  #parentOf(block: Buffer, writer: BatchWriter): number {
    const length = this.#parentTo - this.#parentFrom;
    let isSame = this.#lastParentTo - this.#lastParentFrom === length;
    for (let i = 0; isSame && i < length; i += 1) isSame = block[this.#parentFrom + i] === block[this.#lastParentFrom + i];
    if (!isSame) this.#parentWord = writer.word(block.toString('latin1', this.#parentFrom, this.#parentTo));
    this.#lastParentFrom = this.#parentFrom;
    this.#lastParentTo = this.#parentTo;
    return this.#parentWord;
  }

  #hostOf(block: Buffer, one: Line, writer: BatchWriter): { readonly host: number; readonly tally: number } {
    const text = valueText(block, one);
    let known = this.#hosts.get(text);
    if (known === undefined) {
      const host = text.toLowerCase();
      known = { host: writer.word(host), tally: writer.word(hostTally(host)) };
      this.#hosts.set(text, known);
    }
    return known;
  }
}

const dnStart = 'dn: ';
const isNameOctet = new Uint8Array(256);
for (const char of 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@-') isNameOctet[char.charCodeAt(0)] = 1;

function valueText(block: Buffer, one: Line): string {
  return block.toString('latin1', one.at + one.start.length, one.end);
}

// The form that is written nowadays, see `csnPattern`; a call of that costs three times as much.
const longCsn = '00000000000000.000000Z#ffffff#fff#ffffff';

function isLongCsn(block: Buffer, one: Line): boolean {
  const start = one.at + one.start.length;
  if (one.end - start !== longCsn.length) return false;
  for (let i = 0; i < longCsn.length; i += 1) {
    const octet = block[start + i] as number;
    const wanted = longCsn.charCodeAt(i);
    const isDigit = octet >= 48 && octet <= 57;
    if (wanted === 48 ? !isDigit : wanted === 102 ? !isDigit && !(octet >= 97 && octet <= 102) : octet !== wanted) return false;
  }
  return true;
}

function placesOf(lines: readonly Line[], role: Role): number[] {
  const places: number[] = [];
  for (let i = role.from; i < role.to; i += 1) {
    const one = lines[i] as Line;
    const start = one.at + one.start.length;
    places.push(start, one.end - start);
  }
  return places;
}

function isAsRead({ roles, lines }: Stencil, block: Buffer, { attributes }: ContentRecord): boolean {
  return roles.every((role, at) =>
    attributes[at]?.values.every((value, i) => {
      const one = lines[role.from + i] as Line;
      return block.compare(value, 0, value.length, one.at + one.start.length, one.end) === 0;
    }),
  );
}

function stencilOf(schema: Schema, record: ContentRecord, prepared: PreparedEntry, form: Form): Stencil | undefined {
  const { attributes } = record;
  const lines: Line[] = [];
  const roles: Role[] = [];
  const isStored = new Set(form.stored);
  const isIndexed = new Set(form.indexed.map(({ at }) => at));
  for (const [at, { type: name, values }] of attributes.entries()) {
    const { type } = schema.description(name) as ParsedDescription;
    const from = lines.length;
    const start = Buffer.from(`${name}: `);
    for (const _ of values) lines.push({ start, at: 0, end: 0, isChanged: true, isPlain: false, hasUpper: false });
    const isClasses = name === 'objectClass';
    const use = isClasses ? 'classes' : isStored.has(at) ? 'stored' : at === form.uuidAt ? 'uuid' : at === form.csnAt ? 'csn' : 'left out';
    const { equality, syntax } = type;
    roles.push({
      ...{ use, type, name, from, to: lines.length },
      head: isClasses ? encodeBody([{ type: name, values: [...values] }]) : bodyHead(name),
      isIndexed: !isClasses && isIndexed.has(at),
      plainKey: syntax.takesAscii === true ? (equality === undefined ? 'same' : equality.plainKey) : undefined,
      special: specialOf(name),
    });
  }
  if (lines.length > linesMax || form.stored.length + form.completed.length > storedMax) return undefined;
  const equals = prepared.rdn.indexOf('=');
  const namingType = prepared.rdn.slice(0, equals);
  const naming = roles.find((role) => role.name === namingType && role.use === 'stored' && role.to - role.from === 1);
  if (naming === undefined) return undefined;
  // Positions in the body are those of the form; no value of a file is like these.
  const stored = form.stored.map((at, i): Attribute => ({ type: (attributes[at] as Attribute).type, values: [Buffer.from([0, i, 0])] }));
  return {
    ...{ form, lines, roles, naming },
    namingStart: `${dnStart}${namingType}=`,
    namingNorm: `${normalizeAttributeType(namingType)}=`,
    tail: encodeBody([...stored, ...form.completed]).subarray(encodeBody(stored).length),
    tallies: prepared.tallies,
  };
}

function specialOf(name: string): Role['special'] {
  if (addressTypes.includes(name)) return 'address';
  if (name === 'hostServer') return 'host';
  if (name === 'accountStatus' || name === 'mailQuota') return 'limited';
  return name === 'userPassword' ? 'password' : undefined;
}
