/**
 * The text of one message as SEARCH compares it: decoded and folded once, however many conditions ask for it. Comparing goes at the
 * command's pace, so that a thousand conditions on a large text hold up nobody else.
 */
import { normalized } from '#common/unicode.ts';
import { fieldValue, type HeaderField, scanHeader } from '#protocol/mime/header.ts';
import { decodeHeaderText, textParts } from '#protocol/mime/text.ts';
import type { MessageContent } from './message-content.ts';
import type { Pace } from './pace.ts';

/** Characters of text that are searched in one message, all its parts together. */
export const searchedMessageMax = 8 * 1024 * 1024;

interface FoldedField {
  readonly name: string;
  readonly value: string;
}

/** See the header of this file. */
export class SearchedText {
  readonly #content: MessageContent;
  readonly #pace: Pace;
  #fields: FoldedField[] | undefined;
  #bodies: string[] | undefined;

  constructor(content: MessageContent, pace: Pace) {
    this.#content = content;
    this.#pace = pace;
  }

  /** Whether a field holds the text, any field when no name is given. */
  async headerHas(name: string | undefined, text: string): Promise<boolean> {
    for (const field of await this.#headerFields()) {
      if (name !== undefined && field.name !== name) continue;
      await this.#pace.spend(field.value.length);
      if (field.value.includes(text) || (name === undefined && `${field.name}: ${field.value}`.includes(text))) return true;
    }
    return false;
  }

  /** Whether a text part holds the text. */
  async bodyHas(text: string): Promise<boolean> {
    for (const body of await this.#textParts()) {
      await this.#pace.spend(body.length);
      if (body.includes(text)) return true;
    }
    return false;
  }

  async #headerFields(): Promise<FoldedField[]> {
    if (this.#fields !== undefined) return this.#fields;
    const raw = await this.#content.raw();
    const fields: FoldedField[] = [];
    for (const field of scanHeader(raw, 0, raw.length).fields) fields.push(await this.#folded(raw, field));
    this.#fields = fields;
    return fields;
  }

  async #folded(raw: Buffer, field: HeaderField): Promise<FoldedField> {
    await this.#pace.spend(decodingCost * (field.end - field.start));
    return { name: field.name, value: fold(decodeHeaderText(fieldValue(raw, field))) };
  }

  async #textParts(): Promise<string[]> {
    if (this.#bodies !== undefined) return this.#bodies;
    const bodies: string[] = [];
    let total = 0;
    for (const text of textParts(await this.#content.raw(), await this.#content.structure())) {
      const folded = fold(text);
      bodies.push(folded);
      total += folded.length;
      await this.#pace.spend(decodingCost * text.length);
      if (total >= searchedMessageMax) break;
    }
    this.#bodies = bodies;
    return bodies;
  }
}

/** Decoding and folding a character costs about as much as comparing ten. */
const decodingCost = 10;

/** Text as it is compared: without regard to case and to how accents are written. */
export function fold(text: string): string {
  return normalized(text, 'NFC').toLowerCase();
}
