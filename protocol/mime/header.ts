/**
 * Finding header fields in a message (RFC 5322 §2.2). Fields are byte ranges into the message; nothing is copied until a value is asked
 * for. Values come back as one character per octet (latin1), so that what goes out on the wire is what came in.
 */

/** One field: `raw[start, end)` is the whole field with its line ends, `raw[valueStart, end)` what follows the colon. */
export interface HeaderField {
  /** Lower case; empty for a line that is no field (no colon). */
  readonly name: string;
  readonly start: number;
  readonly valueStart: number;
  readonly end: number;
}

/** Fields looked at in one header; those beyond still belong to the header and are passed over. */
export const headerFieldsMax = 2000;
/** Lines of one header that are looked at one by one; beyond, only its end is searched for. */
export const headerLinesMax = 20_000;
/** Octets of a field's name with its colon; a line with none within them is no field (RFC 5322 §2.1.1: a line has at most 998). */
const fieldNameBytesMax = 998;
/** Octets of one value that are looked at; the rest is cut off in envelopes and structures. */
export const headerValueBytesMax = 65_536;

const lf = 10;
const cr = 13;

/** Reads the header that starts at `start`. `bodyStart` is after the empty line, or `end` when there is none. */
export function scanHeader(
  raw: Buffer,
  start: number,
  end: number,
): { readonly fields: readonly HeaderField[]; readonly bodyStart: number } {
  const fields: HeaderField[] = [];
  let at = start;
  for (let lines = 0; at < end; ) {
    if (lines >= headerLinesMax) return { fields, bodyStart: afterEmptyLine(raw, at, end) };
    const lineEnd = endOfLine(raw, at, end);
    if (isEmptyLine(raw, at)) return { fields, bodyStart: lineEnd };
    let fieldEnd = lineEnd;
    for (lines += 1; lines < headerLinesMax && fieldEnd < end && isFold(raw, fieldEnd); lines += 1)
      fieldEnd = endOfLine(raw, fieldEnd, end);
    if (fields.length < headerFieldsMax) fields.push(fieldAt(raw, at, lineEnd, fieldEnd));
    at = fieldEnd;
  }
  return { fields, bodyStart: end };
}

/** The unfolded value, trimmed; one character per octet. */
export function fieldValue(raw: Buffer, field: HeaderField): string {
  const end = Math.min(field.end, field.valueStart + headerValueBytesMax);
  const text = raw.toString('latin1', field.valueStart, end);
  return (text.includes('\n') || text.includes('\r') || text.includes('\0') ? text.replace(/[\r\n\0]/g, '') : text).trim();
}

/** The first field of that (lower-case) name, unfolded. */
export function firstValue(raw: Buffer, fields: readonly HeaderField[], name: string): string | undefined {
  const field = fields.find((candidate) => candidate.name === name);
  return field === undefined ? undefined : fieldValue(raw, field);
}

function fieldAt(raw: Buffer, start: number, lineEnd: number, end: number): HeaderField {
  const colon = raw.subarray(start, Math.min(lineEnd, start + fieldNameBytesMax)).indexOf(58) + start;
  if (colon < start) return { name: '', start, valueStart: start, end };
  return { name: raw.toString('latin1', start, colon).trimEnd().toLowerCase(), start, valueStart: colon + 1, end };
}

function endOfLine(raw: Buffer, from: number, end: number): number {
  const at = raw.indexOf(lf, from);
  return at < 0 || at >= end ? end : at + 1;
}

function isFold(raw: Buffer, at: number): boolean {
  return raw[at] === 32 || raw[at] === 9;
}

/** After the first empty line from the line at `at` on, or `end`. */
function afterEmptyLine(raw: Buffer, at: number, end: number): number {
  const ends = [raw.indexOf('\n\r\n', at - 1), raw.indexOf('\n\n', at - 1)].map((found, index) => (found < 0 ? end : found + 3 - index));
  return Math.min(end, ...ends);
}

function isEmptyLine(raw: Buffer, at: number): boolean {
  return raw[at] === lf || (raw[at] === cr && raw[at + 1] === lf);
}
