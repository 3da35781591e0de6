/** Attribute lists (RFC 4511 §4.1.7) that are passed on as they came, but for some of their attributes. */
import { type BerWriter, berTags, lengthContentStart, readLength } from '#protocol/ldap/ber.ts';

/** Names of attributes to look for: their octets in lower case. */
export type NameOctets = readonly Buffer[];

/** `names` are attribute types without options, in any case. */
export function nameOctets(names: Iterable<string>): NameOctets {
  return [...names].map((name) => Buffer.from(name.toLowerCase(), 'latin1'));
}

/** Writes the list at `octets[start, end)`, which is known to be well-formed, all but the attributes of those names; and `further`, encoded already. */
export function writeAttributesWithout(
  to: BerWriter,
  octets: Buffer,
  start: number,
  end: number,
  names: NameOctets,
  further: Buffer,
): void {
  const opened = to.open(berTags.sequence);
  readLength(octets, start + 1, end);
  let kept = lengthContentStart();
  for (let at = kept; at < end; ) {
    const length = readLength(octets, at + 1, end);
    const typeAt = lengthContentStart();
    const next = typeAt + length;
    const typeLength = readLength(octets, typeAt + 1, next);
    if (isOneOf(octets, lengthContentStart(), typeLength, names)) {
      to.rawOf(octets, kept, at);
      kept = next;
    }
    at = next;
  }
  to.rawOf(octets, kept, end);
  to.rawOf(further, 0, further.length);
  to.close(opened);
}

function isOneOf(octets: Buffer, start: number, length: number, names: NameOctets): boolean {
  for (const name of names) {
    if (name.length !== length) continue;
    let at = 0;
    while (at < length && lowered(octets[start + at] as number) === name[at]) at += 1;
    if (at === length) return true;
  }
  return false;
}

function lowered(octet: number): number {
  return octet >= 0x41 && octet <= 0x5a ? octet + 0x20 : octet;
}
