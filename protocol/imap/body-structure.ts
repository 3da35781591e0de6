/**
 * ENVELOPE, BODY and BODYSTRUCTURE as IMAP writes them (RFC 9051 §7.5.2), from the structure that was found when the message came in.
 */
import type { EnvelopeAddress } from '#protocol/mime/address.ts';
import type { Envelope, MimePart } from '#protocol/mime/part.ts';
import type { ResponseWriter } from './response.ts';

/** envelope. */
export function writeEnvelope(out: ResponseWriter, envelope: Envelope): void {
  out.text('(').nstring(envelope.date).text(' ').nstring(envelope.subject);
  for (const list of [envelope.from, envelope.sender, envelope.replyTo, envelope.to, envelope.cc, envelope.bcc]) {
    out.text(' ');
    writeAddresses(out, list);
  }
  out.text(' ').nstring(envelope.inReplyTo).text(' ').nstring(envelope.messageId).text(')');
}

function writeAddresses(out: ResponseWriter, addresses: readonly EnvelopeAddress[]): void {
  if (addresses.length === 0) {
    out.text('NIL');
    return;
  }
  out.text('(');
  for (const [name, route, mailbox, host] of addresses) {
    out.text('(').nstring(name).text(' ').nstring(route).text(' ').nstring(mailbox).text(' ').nstring(host).text(')');
  }
  out.text(')');
}

/** body: with the extension data for BODYSTRUCTURE, without it for BODY. */
export function writeBodyStructure(out: ResponseWriter, part: MimePart, isExtended: boolean): void {
  out.text('(');
  if (part.kind === 'multipart') writeMultipart(out, part, isExtended);
  else writeSinglePart(out, part, isExtended);
  out.text(')');
}

function writeMultipart(out: ResponseWriter, part: MimePart, isExtended: boolean): void {
  for (const child of part.children) writeBodyStructure(out, child, isExtended);
  out.text(' ').string(part.subtype);
  if (!isExtended) return;
  out.text(' ');
  writeParams(out, part.params);
  writeCommonExtension(out, part);
}

function writeSinglePart(out: ResponseWriter, part: MimePart, isExtended: boolean): void {
  out.string(part.type).text(' ').string(part.subtype).text(' ');
  writeParams(out, part.params);
  out.text(' ').nstring(part.id).text(' ').nstring(part.description).text(' ').string(part.encoding);
  out.text(` ${part.end - part.bodyStart}`);
  const embedded = part.kind === 'message' ? part.children[0] : undefined;
  if (embedded?.envelope) {
    out.text(' ');
    writeEnvelope(out, embedded.envelope);
    out.text(' ');
    writeBodyStructure(out, embedded, isExtended);
    out.text(` ${part.lines}`);
  } else if (part.type === 'text') {
    out.text(` ${part.lines}`);
  }
  if (!isExtended) return;
  out.text(' ').nstring(part.md5);
  writeCommonExtension(out, part);
}

function writeCommonExtension(out: ResponseWriter, part: MimePart): void {
  out.text(' ');
  if (part.disposition === null) out.text('NIL');
  else {
    out.text('(').string(part.disposition.value).text(' ');
    writeParams(out, part.disposition.params);
    out.text(')');
  }
  out.text(' ');
  const [language] = part.language;
  if (language === undefined) out.text('NIL');
  else if (part.language.length === 1) out.string(language);
  else {
    part.language.forEach((tag, index) => {
      out.text(index === 0 ? '(' : ' ').string(tag);
    });
    out.text(')');
  }
  out.text(' ').nstring(part.location);
}

function writeParams(out: ResponseWriter, params: readonly (readonly [string, string])[]): void {
  if (params.length === 0) {
    out.text('NIL');
    return;
  }
  params.forEach(([name, value], index) => {
    out
      .text(index === 0 ? '(' : ' ')
      .string(name)
      .text(' ')
      .string(value);
  });
  out.text(')');
}
