/**
 * The record that is made once, when a message comes in, and kept beside it: envelope, body structure and offsets. With it, listing a
 * mailbox reads no message. The store keeps it as opaque bytes; only this file knows what is inside.
 *
 * It is a JSON array after one version byte: the engine parses JSON natively, which a hand-made binary form would have to beat first.
 * A record of another version, or a damaged one, is not an error: the reader is told and scans the message.
 */
import type { EnvelopeAddress } from './address.ts';
import { type Envelope, type MimePart, scanMessage } from './part.ts';

export { normaliseLineEnds } from './line-ends.ts';

const version = 1;

/** Makes the record of a message with CRLF line ends. Never fails: every sequence of bytes is some message. */
export function summarise(raw: Buffer): Buffer {
  return Buffer.concat([Buffer.from([version]), Buffer.from(JSON.stringify(packPart(scanMessage(raw))))]);
}

/** The structure in a record; `undefined` when the record is of another version or damaged, and the message must be scanned again. */
export function readSummary(record: Buffer): MimePart | undefined {
  if (record[0] !== version) return undefined;
  try {
    return unpackPart(JSON.parse(record.toString('utf8', 1)) as PackedPart);
  } catch {
    return undefined;
  }
}

type Pairs = readonly (readonly [string, string])[];
type PackedEnvelope = readonly [
  string | null,
  string | null,
  readonly EnvelopeAddress[],
  readonly EnvelopeAddress[] | 0,
  readonly EnvelopeAddress[] | 0,
  readonly EnvelopeAddress[],
  readonly EnvelopeAddress[],
  readonly EnvelopeAddress[],
  string | null,
  string | null,
];
type PackedPart = readonly [
  headerStart: number,
  bodyStart: number,
  end: number,
  lines: number,
  type: string,
  subtype: string,
  params: Pairs,
  encoding: string,
  rest: readonly [string | null, string | null, string | null, readonly [string, Pairs] | null, readonly string[], string | null] | 0,
  kind: 0 | 1 | 2,
  children: readonly PackedPart[],
  envelope: PackedEnvelope | 0,
];

const kinds = ['leaf', 'multipart', 'message'] as const;

function packPart(part: MimePart): PackedPart {
  const disposition = part.disposition === null ? null : ([part.disposition.value, part.disposition.params] as const);
  const rest = [part.id, part.description, part.md5, disposition, part.language, part.location] as const;
  const hasRest = rest.some((value) => value !== null && !(Array.isArray(value) && value.length === 0));
  return [
    part.headerStart,
    part.bodyStart,
    part.end,
    part.lines,
    part.type,
    part.subtype,
    part.params,
    part.encoding,
    hasRest ? rest : 0,
    kinds.indexOf(part.kind) as 0 | 1 | 2,
    part.children.map(packPart),
    part.envelope === null ? 0 : packEnvelope(part.envelope),
  ];
}

function packEnvelope(envelope: Envelope): PackedEnvelope {
  return [
    envelope.date,
    envelope.subject,
    envelope.from,
    envelope.sender === envelope.from ? 0 : envelope.sender,
    envelope.replyTo === envelope.from ? 0 : envelope.replyTo,
    envelope.to,
    envelope.cc,
    envelope.bcc,
    envelope.inReplyTo,
    envelope.messageId,
  ];
}

function unpackPart(packed: PackedPart): MimePart {
  const [headerStart, bodyStart, end, lines, type, subtype, params, encoding, rest, kind, children, envelope] = packed;
  const [id, description, md5, disposition, language, location] = rest === 0 ? [null, null, null, null, [], null] : rest;
  return {
    headerStart,
    bodyStart,
    end,
    lines,
    type,
    subtype,
    params,
    id,
    description,
    encoding,
    md5,
    disposition: disposition === null ? null : { value: disposition[0], params: disposition[1] },
    language,
    location,
    kind: kinds[kind],
    children: children.map(unpackPart),
    envelope: envelope === 0 ? null : unpackEnvelope(envelope),
  };
}

function unpackEnvelope(packed: PackedEnvelope): Envelope {
  const [date, subject, from, sender, replyTo, to, cc, bcc, inReplyTo, messageId] = packed;
  return {
    date,
    subject,
    from,
    sender: sender === 0 ? from : sender,
    replyTo: replyTo === 0 ? from : replyTo,
    to,
    cc,
    bcc,
    inReplyTo,
    messageId,
  };
}
