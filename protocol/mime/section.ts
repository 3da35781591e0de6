/**
 * Where a section of a message is (RFC 9051 §6.4.5.1): part numbers walk the structure, the specifier chooses header, text or all of
 * what was reached. Answers are byte ranges; only HEADER.FIELDS makes new bytes.
 */
import { scanHeader } from './header.ts';
import type { MimePart } from './part.ts';

/** A section specification as the client gave it. */
export interface Section {
  readonly path: readonly number[];
  readonly what: 'all' | 'header' | 'header.fields' | 'header.fields.not' | 'text' | 'mime';
  /** As the client wrote them, for the answer; compared without regard to case. */
  readonly fields: readonly string[];
}

/** The bytes of a section; `undefined` when the message has no such part, which clients see as NIL. */
export function readSection(raw: Buffer, root: MimePart, section: Section): Buffer | undefined {
  const found = walk(root, section.path);
  if (found === undefined) return undefined;
  const { part, isWhole } = found;
  if (section.what === 'mime') return section.path.length === 0 ? undefined : raw.subarray(part.headerStart, part.bodyStart);
  if (section.what === 'all') return isWhole ? raw.subarray(part.headerStart, part.end) : raw.subarray(part.bodyStart, part.end);
  // HEADER and TEXT are of a message: the root, or what a message/rfc822 part holds.
  const message = section.path.length === 0 ? part : part.kind === 'message' ? part.children[0] : undefined;
  if (message === undefined) return undefined;
  if (section.what === 'header') return raw.subarray(message.headerStart, message.bodyStart);
  if (section.what === 'text') return raw.subarray(message.bodyStart, message.end);
  return chosenFields(raw, message, section.fields, section.what === 'header.fields');
}

/** The part a path leads to. Part 1 of a message that is not multipart is its body. */
function walk(root: MimePart, path: readonly number[]): { readonly part: MimePart; readonly isWhole: boolean } | undefined {
  let part = root;
  let isMessage = true;
  for (const number of path) {
    let holder: MimePart = part;
    if (!isMessage && part.kind === 'message') {
      holder = part.children[0] as MimePart;
      isMessage = true;
    }
    if (holder.kind === 'multipart') {
      const child = holder.children[number - 1];
      if (child === undefined) return undefined;
      part = child;
    } else if (isMessage && number === 1) {
      part = holder;
    } else {
      return undefined;
    }
    isMessage = false;
  }
  return { part, isWhole: path.length === 0 };
}

function chosenFields(raw: Buffer, message: MimePart, names: readonly string[], keep: boolean): Buffer {
  const wanted = new Set(names.map((name) => name.toLowerCase()));
  const { fields } = scanHeader(raw, message.headerStart, message.bodyStart);
  const chosen = fields.filter((field) => wanted.has(field.name) === keep).map((field) => raw.subarray(field.start, field.end));
  // RFC 9051 §6.4.5.1: the subset ends with the empty line, as a header does.
  return Buffer.concat([...chosen, Buffer.from('\r\n')]);
}
