/** A message as Sieve's tests see it: header values decoded, addresses taken apart, the envelope (RFC 5228 §2.4.2.2, §2.4.2.4, §5.4). */
import { parseAddresses } from '#protocol/mime/address.ts';
import { fieldValue, scanHeader } from '#protocol/mime/header.ts';
import { decodeHeaderText } from '#protocol/mime/text.ts';

/** What tests ask. Names of fields are in lower case. */
export interface SieveMessage {
  readonly sizeBytes: number;
  /** Decoded values of all fields of that name. */
  values(name: string): readonly string[];
  /** Addresses in all fields of that name. */
  addresses(name: string): readonly string[];
  envelope(part: 'from' | 'to'): string;
}

/** A message with its envelope; a bounce has an empty sender. */
export function sieveMessage(raw: Buffer, envelope: { readonly from: string; readonly to: string }): SieveMessage {
  const { fields } = scanHeader(raw, 0, raw.length);
  const known = new Map<string, readonly string[]>();
  const once = (key: string, make: () => readonly string[]): readonly string[] => {
    const before = known.get(key);
    if (before !== undefined) return before;
    const made = make();
    known.set(key, made);
    return made;
  };
  const undecoded = (name: string): string[] => fields.filter((field) => field.name === name).map((field) => fieldValue(raw, field));
  return {
    sizeBytes: raw.length,
    values: (name) => once(`v ${name}`, () => undecoded(name).map(decodeHeaderText)),
    addresses: (name) =>
      once(`a ${name}`, () =>
        undecoded(name)
          .flatMap((value) => parseAddresses(value))
          .flatMap(([, , mailbox, host]) => (mailbox === null || host === null ? [] : [`${mailbox}@${host}`])),
      ),
    envelope: (part) => envelope[part],
  };
}
