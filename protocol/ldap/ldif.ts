/**
 * LDIF (RFC 2849): a push reader that gives records as their last line comes, and a writer. The reader holds one record at a time, up to a
 * stated size; what is wrong is reported with its line number.
 */
import { isUtf8 } from 'node:buffer';
import type { Attribute, Modification, ModifyKind } from '#protocol/ldap/messages.ts';

/** A record: content, or a change (RFC 2849 `changetype`). `line` is the line of its `dn:`. */
export type LdifRecord = { readonly line: number; readonly dn: string } & (
  | { readonly change: 'entry' | 'add'; readonly attributes: readonly Attribute[] }
  | { readonly change: 'delete' }
  | { readonly change: 'modify'; readonly changes: readonly Modification[] }
  | { readonly change: 'modrdn'; readonly newRdn: string; readonly deleteOldRdn: boolean; readonly newSuperior: string | undefined }
);

/** What is wrong, and where. After an error the reader goes on with the next record. */
export interface LdifMistake {
  readonly line: number;
  readonly detail: string;
}

/** Largest record, bytes of text. */
export const ldifRecordBytesMax = 33_554_432;

interface Line {
  readonly number: number;
  readonly text: Buffer;
}

/** Reads LDIF pushed in pieces of any size. */
export class LdifReader {
  readonly #onRecord: (record: LdifRecord) => void;
  readonly #onMistake: (mistake: LdifMistake) => void;
  #rest: Buffer[] = [];
  #restBytes = 0;
  #lineNumber = 0;
  #record: { number: number; parts: Buffer[] }[] = [];
  #recordBytes = 0;
  #inComment = false;
  #isSkipping = false;

  constructor(handlers: { readonly onRecord: (record: LdifRecord) => void; readonly onMistake: (mistake: LdifMistake) => void }) {
    this.#onRecord = handlers.onRecord;
    this.#onMistake = handlers.onMistake;
  }

  push(chunk: Buffer): void {
    let from = 0;
    for (let at = chunk.indexOf(10, from); at >= 0; at = chunk.indexOf(10, from)) {
      this.#rest.push(chunk.subarray(from, at));
      this.#endLine();
      from = at + 1;
    }
    if (from === chunk.length) return;
    this.#restBytes += chunk.length - from;
    if (this.#restBytes <= ldifRecordBytesMax) this.#rest.push(Buffer.from(chunk.subarray(from)));
    else this.#tooLong();
  }

  /** The text is over; gives the last record. */
  end(): void {
    if (this.#rest.length > 0) this.#endLine();
    this.#endRecord();
  }

  #endLine(): void {
    let line = this.#rest.length === 1 ? (this.#rest[0] as Buffer) : Buffer.concat(this.#rest);
    this.#rest = [];
    this.#restBytes = 0;
    this.#lineNumber += 1;
    if (line[line.length - 1] === 13) line = line.subarray(0, -1);
    if (line.length === 0) {
      this.#inComment = false;
      this.#endRecord();
      return;
    }
    // RFC 2849 note 2: a line that starts with a space goes on with the one before, comments too.
    if (line[0] === 32) {
      const before = this.#record[this.#record.length - 1];
      if (this.#inComment || this.#isSkipping) return;
      if (before === undefined) this.#mistake(this.#lineNumber, 'a continuation line without a line before it');
      else before.parts.push(Buffer.from(line.subarray(1)));
      this.#grow(line.length);
      return;
    }
    this.#inComment = line[0] === 35;
    if (this.#inComment || this.#isSkipping) return;
    this.#record.push({ number: this.#lineNumber, parts: [Buffer.from(line)] });
    this.#grow(line.length);
  }

  #grow(count: number): void {
    this.#recordBytes += count;
    if (this.#recordBytes > ldifRecordBytesMax) this.#tooLong();
  }

  #tooLong(): void {
    this.#rest = [];
    this.#restBytes = 0;
    this.#mistake(this.#record[0]?.number ?? this.#lineNumber + 1, `a record of more than ${ldifRecordBytesMax} bytes`);
  }

  #mistake(line: number, detail: string): void {
    if (!this.#isSkipping) this.#onMistake({ line, detail });
    this.#isSkipping = true;
    this.#record = [];
    this.#recordBytes = 0;
  }

  #endRecord(): void {
    const lines = this.#record.map((one) => ({
      number: one.number,
      text: one.parts.length === 1 ? (one.parts[0] as Buffer) : Buffer.concat(one.parts),
    }));
    this.#record = [];
    this.#recordBytes = 0;
    this.#isSkipping = false;
    if (lines.length === 0) return;
    try {
      const record = parseRecord(lines);
      if (record !== undefined) this.#onRecord(record);
    } catch (error) {
      if (!(error instanceof LdifError)) throw error;
      this.#onMistake({ line: error.line, detail: error.message });
    }
  }
}

class LdifError extends Error {
  readonly line: number;
  constructor(line: number, detail: string) {
    super(detail);
    this.line = line;
  }
}

interface Field {
  readonly number: number;
  readonly name: string;
  readonly value: Buffer;
}

function parseRecord(lines: Line[]): LdifRecord | undefined {
  let first = parseField(lines[0] as Line);
  if (first.name.toLowerCase() === 'version') {
    if (first.value.toString('latin1') !== '1') throw new LdifError(first.number, 'LDIF of another version than 1');
    lines.shift();
    if (lines.length === 0) return undefined;
    first = parseField(lines[0] as Line);
  }
  if (first.name.toLowerCase() !== 'dn') throw new LdifError(first.number, `a record starts with "dn:", not with "${first.name}:"`);
  const base = { line: first.number, dn: textValue(first) };
  let at = 1;
  // Controls are the client's business of the day the file was written.
  while (at < lines.length && /^control:/i.test((lines[at] as Line).text.toString('latin1'))) at += 1;
  const next = at < lines.length ? (lines[at] as Line) : undefined;
  const changeType = next !== undefined && /^changetype:/i.test(next.text.toString('latin1')) ? parseField(next) : undefined;
  if (changeType === undefined) return { ...base, change: 'entry', attributes: collect(lines.slice(at).map(parseField)) };
  const rest = lines.slice(at + 1);
  const type = textValue(changeType).toLowerCase();
  switch (type) {
    case 'add':
      return { ...base, change: 'add', attributes: collect(rest.map(parseField)) };
    case 'delete':
      return { ...base, change: 'delete' };
    case 'modify':
      return { ...base, change: 'modify', changes: parseChanges(rest) };
    case 'modrdn':
    case 'moddn': {
      const fields = new Map(rest.map(parseField).map((field) => [field.name.toLowerCase(), field]));
      const newRdn = fields.get('newrdn');
      if (newRdn === undefined) throw new LdifError(changeType.number, `changetype ${type} without "newrdn:"`);
      const superior = fields.get('newsuperior');
      const deleteOld = fields.get('deleteoldrdn');
      return {
        ...base,
        change: 'modrdn',
        newRdn: textValue(newRdn),
        deleteOldRdn: deleteOld === undefined || textValue(deleteOld) !== '0',
        newSuperior: superior === undefined ? undefined : textValue(superior),
      };
    }
    default:
      throw new LdifError(changeType.number, `unknown changetype "${type}"; expected add, delete, modify or modrdn`);
  }
}

function parseChanges(lines: readonly Line[]): Modification[] {
  const changes: Modification[] = [];
  let head: { kind: ModifyKind; type: string; number: number; values: Buffer[] } | undefined;
  const close = (): void => {
    if (head !== undefined) changes.push({ kind: head.kind, attribute: { type: head.type, values: head.values } });
    head = undefined;
  };
  for (const line of lines) {
    if (line.text.length === 1 && line.text[0] === 45) {
      close();
      continue;
    }
    const field = parseField(line);
    if (head === undefined) {
      const kind = field.name.toLowerCase();
      if (kind !== 'add' && kind !== 'delete' && kind !== 'replace' && kind !== 'increment') {
        throw new LdifError(field.number, `a change starts with add:, delete:, replace: or increment:, not with "${field.name}:"`);
      }
      head = { kind, type: textValue(field), number: field.number, values: [] };
    } else if (field.name.toLowerCase() === head.type.toLowerCase()) {
      head.values.push(field.value);
    } else {
      throw new LdifError(field.number, `expected values of "${head.type}" or a line with "-", found "${field.name}:"`);
    }
  }
  close();
  return changes;
}

function collect(fields: readonly Field[]): Attribute[] {
  const byName = new Map<string, { type: string; values: Buffer[] }>();
  for (const field of fields) {
    const folded = field.name.toLowerCase();
    const known = byName.get(folded);
    if (known === undefined) byName.set(folded, { type: field.name, values: [field.value] });
    else known.values.push(field.value);
  }
  return [...byName.values()];
}

function parseField(line: Line): Field {
  const colon = line.text.indexOf(58);
  const name = colon < 0 ? '' : line.text.toString('latin1', 0, colon);
  if (!/^[A-Za-z0-9][A-Za-z0-9.;_-]*$/.test(name)) throw new LdifError(line.number, 'expected "name: value"');
  const marker = line.text[colon + 1];
  let from = marker === 58 || marker === 60 ? colon + 2 : colon + 1;
  while (line.text[from] === 32) from += 1;
  const raw = line.text.subarray(from);
  if (marker === 60) {
    throw new LdifError(line.number, `"${name}:<" names a file; write the value itself, in base64 behind "${name}::"`);
  }
  if (marker !== 58) return { number: line.number, name, value: raw };
  const text = raw.toString('latin1').trimEnd();
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0)
    throw new LdifError(line.number, `the value of "${name}" is no base64`);
  return { number: line.number, name, value: Buffer.from(text, 'base64') };
}

function textValue(field: Field): string {
  if (!isUtf8(field.value)) throw new LdifError(field.number, `the value of "${field.name}" is not UTF-8`);
  return field.value.toString('utf8');
}

const foldAt = 76;

/** One content record with the blank line behind it. */
export function formatLdifEntry(entry: { readonly dn: string; readonly attributes: readonly Attribute[] }): string {
  let text = formatLdifLine('dn', Buffer.from(entry.dn));
  for (const attribute of entry.attributes) {
    for (const value of attribute.values) text += formatLdifLine(attribute.type, value);
  }
  return `${text}\n`;
}

/** One line, in base64 where RFC 2849 asks for it, folded at 76 characters. */
export function formatLdifLine(name: string, value: Buffer): string {
  const line = isSafe(value) ? `${name}: ${value.toString('latin1')}` : `${name}:: ${value.toString('base64')}`;
  if (line.length <= foldAt) return `${line}\n`;
  let folded = `${line.slice(0, foldAt)}\n`;
  for (let at = foldAt; at < line.length; at += foldAt - 1) folded += ` ${line.slice(at, at + foldAt - 1)}\n`;
  return folded;
}

// SAFE-STRING of RFC 2849, and no space at the end, which people's editors remove.
function isSafe(value: Buffer): boolean {
  const first = value[0];
  if (first === 32 || first === 58 || first === 60 || value[value.length - 1] === 32) return false;
  for (const octet of value) if (octet === 0 || octet === 10 || octet === 13 || octet > 127) return false;
  return true;
}
