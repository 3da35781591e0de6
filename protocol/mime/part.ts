/**
 * The structure of a message, found in one descent over its bytes (RFC 2046 §5.1). Parts are ranges into the message; no byte is copied.
 *
 *   message  ├─ header ─┤├─ body ───────────────────────────────────────┤
 *                        preamble --b part --b part --b-- epilogue
 *
 * An outer boundary always ends what is inside it, so each level is cut first and then looked into, which reads the same octets once for
 * every level. Hostile mail is bounded by depth, by parts and by octets read: beyond `depthMax`, `partsMax` or the work allowed, a
 * multipart or embedded message is taken as one opaque leaf.
 */
import { type EnvelopeAddress, parseAddresses } from './address.ts';
import { firstValue, type HeaderField, scanHeader } from './header.ts';
import { countLines } from './line-ends.ts';
import { parameter, parseStructured, type StructuredValue } from './structured-value.ts';

/** RFC 9051 §7.5.2 ENVELOPE; strings are one character per octet, encoded words still encoded. */
export interface Envelope {
  readonly date: string | null;
  readonly subject: string | null;
  readonly from: readonly EnvelopeAddress[];
  readonly sender: readonly EnvelopeAddress[];
  readonly replyTo: readonly EnvelopeAddress[];
  readonly to: readonly EnvelopeAddress[];
  readonly cc: readonly EnvelopeAddress[];
  readonly bcc: readonly EnvelopeAddress[];
  readonly inReplyTo: string | null;
  readonly messageId: string | null;
}

/** One part; the message itself is the root part. */
export interface MimePart {
  readonly headerStart: number;
  readonly bodyStart: number;
  readonly end: number;
  /** Line feeds of the body; 0 of a multipart. */
  readonly lines: number;
  readonly type: string;
  readonly subtype: string;
  readonly params: readonly (readonly [string, string])[];
  readonly id: string | null;
  readonly description: string | null;
  readonly encoding: string;
  readonly md5: string | null;
  readonly disposition: StructuredValue | null;
  readonly language: readonly string[];
  readonly location: string | null;
  /** `multipart`: its parts, at least one. `message`: the embedded message as its only child. */
  readonly kind: 'leaf' | 'multipart' | 'message';
  readonly children: readonly MimePart[];
  /** Of a message: the root, or the child of a `message` part. */
  readonly envelope: Envelope | null;
}

/** Levels of nesting that are looked into. */
export const depthMax = 50;
/** Parts of one message that are looked into. */
export const partsMax = 1000;
/** Octets read for structure: this many times the message, but for small messages at least `workBytesMin`. */
export const workFactorMax = 6;
export const workBytesMin = 16 * 1024 * 1024;
/** Lines that begin like a delimiter and are none, in the whole message; beyond, no more delimiters are looked for. */
export const falseDelimitersMax = 10_000;

/** Finds the structure of a whole message. */
export function scanMessage(raw: Buffer): MimePart {
  const workLeft = Math.max(workBytesMin, workFactorMax * raw.length);
  return scanPart({ raw, parts: 0, workLeft, falseDelimitersLeft: falseDelimitersMax }, 0, raw.length, 0, true, 'text/plain');
}

interface Scan {
  readonly raw: Buffer;
  parts: number;
  workLeft: number;
  falseDelimitersLeft: number;
}

function scanPart(scan: Scan, start: number, end: number, depth: number, isMessage: boolean, defaultType: string): MimePart {
  const { raw } = scan;
  scan.parts += 1;
  const { fields, bodyStart } = scanHeader(raw, start, end);
  const contentType = parseStructured(firstValue(raw, fields, 'content-type') ?? defaultType);
  const slash = contentType.value.indexOf('/');
  let type = slash > 0 ? contentType.value.slice(0, slash).trim() : '';
  let subtype = slash > 0 ? contentType.value.slice(slash + 1).trim() : '';
  let params = contentType.params;
  // RFC 2045 §5.2: what cannot be understood is plain text.
  if (type === '' || subtype === '') [type, subtype, params] = ['text', 'plain', []];
  let kind: MimePart['kind'] = 'leaf';
  let children: readonly MimePart[] = [];
  const boundary = parameter(contentType, 'boundary');
  const isComposite = type === 'multipart' || (type === 'message' && (subtype === 'rfc822' || subtype === 'global'));
  if (isComposite) scan.workLeft -= end - bodyStart;
  if (isComposite && depth < depthMax && scan.parts < partsMax && scan.workLeft > 0) {
    if (type === 'message') {
      kind = 'message';
      children = [scanPart(scan, bodyStart, end, depth + 1, true, 'text/plain')];
    } else if (boundary !== undefined && boundary !== '') {
      kind = 'multipart';
      children = scanParts(scan, bodyStart, end, boundary, depth, subtype === 'digest' ? 'message/rfc822' : 'text/plain');
    }
  }
  if (kind === 'leaf' && isComposite) {
    // A multipart with no boundary, or too deep: the grammar has no multipart without parts, so clients see opaque data.
    [type, subtype, params] = type === 'multipart' && boundary === undefined ? ['text', 'plain', []] : ['application', 'octet-stream', []];
  }
  const disposition = firstValue(raw, fields, 'content-disposition');
  const language = firstValue(raw, fields, 'content-language');
  return {
    headerStart: start,
    bodyStart,
    end,
    // Nobody asks for the lines of a multipart (RFC 9051 §9 body-type-mpart).
    lines: kind === 'multipart' ? 0 : countLines(raw, bodyStart, end),
    type,
    subtype,
    params,
    id: firstValue(raw, fields, 'content-id') ?? null,
    description: firstValue(raw, fields, 'content-description') ?? null,
    encoding: parseStructured(firstValue(raw, fields, 'content-transfer-encoding') ?? '').value || '7bit',
    md5: firstValue(raw, fields, 'content-md5') ?? null,
    disposition: disposition === undefined || disposition === '' ? null : parseStructured(disposition),
    language:
      language === undefined
        ? []
        : language
            .split(',', 50)
            .map((tag) => tag.trim())
            .filter((tag) => tag !== ''),
    location: firstValue(raw, fields, 'content-location') ?? null,
    kind,
    children,
    envelope: isMessage ? envelopeOf(raw, fields) : null,
  };
}

function scanParts(scan: Scan, start: number, end: number, boundary: string, depth: number, defaultType: string): readonly MimePart[] {
  const { raw } = scan;
  const delimiter = Buffer.from(`\n--${boundary}`, 'latin1');
  const children: MimePart[] = [];
  let partStart = -1;
  for (let at = start; at < end && scan.falseDelimitersLeft > 0; ) {
    // The line feed before the body's first octet ends the header: a delimiter may follow it at once.
    const lineFeed = raw.indexOf(delimiter, at - 1);
    const found = lineFeed + 1;
    const afterBoundary = lineFeed + delimiter.length;
    if (lineFeed < 0 || afterBoundary > end) break;
    const after = delimiterEnd(raw, afterBoundary, end);
    if (after === undefined) {
      scan.falseDelimitersLeft -= 1;
      at = afterBoundary;
      continue;
    }
    if (partStart >= 0) children.push(scanPart(scan, partStart, beforeLineEnd(raw, partStart, found), depth + 1, false, defaultType));
    partStart = after.isClose || scan.parts >= partsMax ? -1 : after.at;
    at = after.at;
    if (partStart < 0) break;
  }
  // No closing delimiter: the last part runs to the end (RFC 2046 §5.1.2 asks readers to bear it).
  if (partStart >= 0 && partStart <= end) children.push(scanPart(scan, partStart, end, depth + 1, false, defaultType));
  // The grammar wants at least one part: an empty one at the end of the body.
  if (children.length === 0) children.push(scanPart(scan, end, end, depthMax, false, 'text/plain'));
  return children;
}

/** Where the delimiter's line ends, or `undefined` when these bytes are no delimiter line. */
function delimiterEnd(raw: Buffer, afterBoundary: number, end: number): { readonly at: number; readonly isClose: boolean } | undefined {
  let at = afterBoundary;
  const isClose = raw[at] === 45 && raw[at + 1] === 45 && at + 2 <= end;
  if (isClose) at += 2;
  while (at < end && (raw[at] === 32 || raw[at] === 9)) at += 1;
  if (at >= end) return { at: end, isClose };
  if (raw[at] === 13 && raw[at + 1] === 10) return { at: Math.min(at + 2, end), isClose };
  if (raw[at] === 10) return { at: at + 1, isClose };
  return undefined;
}

// The line end before a delimiter belongs to the delimiter (RFC 2046 §5.1.1).
function beforeLineEnd(raw: Buffer, from: number, delimiterAt: number): number {
  let at = delimiterAt;
  if (at > from && raw[at - 1] === 10) at -= 1;
  if (at > from && raw[at - 1] === 13) at -= 1;
  return at;
}

function envelopeOf(raw: Buffer, fields: readonly HeaderField[]): Envelope {
  const addresses = (name: string): EnvelopeAddress[] => parseAddresses(firstValue(raw, fields, name) ?? '');
  const from = addresses('from');
  const sender = addresses('sender');
  const replyTo = addresses('reply-to');
  return {
    date: firstValue(raw, fields, 'date') ?? null,
    subject: firstValue(raw, fields, 'subject') ?? null,
    from,
    // RFC 9051 §7.5.2: when absent or empty, Sender and Reply-To are From.
    sender: sender.length === 0 ? from : sender,
    replyTo: replyTo.length === 0 ? from : replyTo,
    to: addresses('to'),
    cc: addresses('cc'),
    bcc: addresses('bcc'),
    inReplyTo: firstValue(raw, fields, 'in-reply-to') ?? null,
    messageId: firstValue(raw, fields, 'message-id') ?? null,
  };
}
