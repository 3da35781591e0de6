/**
 * Controls of server-side sorting (RFC 2891), and the value of Cancel (RFC 3909), which is as small.
 */
import { BerError, BerReader, BerWriter, berTags } from '#protocol/ldap/ber.ts';
import { controlOids } from '#protocol/ldap/controls.ts';
import type { Control } from '#protocol/ldap/messages.ts';

/** One key to sort by; the first counts most. */
export interface SortKey {
  readonly attribute: string;
  /** Name or OID of the ordering rule; the attribute's own when absent. */
  readonly rule: string | undefined;
  readonly reverse: boolean;
}

/** Keys in one request; more are malformed. */
const sortKeysMax = 16;
const writer = new BerWriter();

export function makeSortRequest(keys: readonly SortKey[], critical = false): Control {
  const opened = writer.open(berTags.sequence);
  for (const key of keys) {
    const one = writer.open(berTags.sequence);
    writer.text(key.attribute);
    if (key.rule !== undefined) writer.text(key.rule, 0x80);
    if (key.reverse) writer.boolean(true, 0x81);
    writer.close(one);
  }
  writer.close(opened);
  return { oid: controlOids.serverSideSort, critical, value: writer.take() };
}

export function readSortRequest(value: Buffer | undefined): readonly SortKey[] | undefined {
  return readValue(value, (reader) => {
    const keys: SortKey[] = [];
    reader.enter(berTags.sequence);
    while (reader.hasMore()) {
      if (keys.length === sortKeysMax) throw new BerError('too many sort keys');
      const one = reader.enter(berTags.sequence);
      const attribute = reader.text();
      const rule = reader.hasMore() && reader.peekTag() === 0x80 ? reader.text(0x80) : undefined;
      const reverse = reader.hasMore() && reader.peekTag() === 0x81 ? reader.boolean(0x81) : false;
      reader.leave(one);
      keys.push({ attribute, rule, reverse });
    }
    if (keys.length === 0) throw new BerError('no sort key');
    return keys;
  });
}

/** `result` is a result code; `attribute` is the key at fault. */
export function makeSortResponse(result: number, attribute: string | undefined): Control {
  const opened = writer.open(berTags.sequence);
  writer.integer(result, berTags.enumerated);
  if (attribute !== undefined) writer.text(attribute, 0x80);
  writer.close(opened);
  return { oid: controlOids.serverSideSortResponse, critical: false, value: writer.take() };
}

/** The result code in a sort response. */
export function readSortResponse(value: Buffer | undefined): number | undefined {
  return readValue(value, (reader) => {
    reader.enter(berTags.sequence);
    return reader.integer(berTags.enumerated);
  });
}

/** Value of Cancel: the message ID of the operation to end (RFC 3909 §2.1). */
export function makeCancel(messageId: number): Buffer {
  const opened = writer.open(berTags.sequence);
  writer.integer(messageId);
  writer.close(opened);
  return writer.take();
}

export function readCancel(value: Buffer | undefined): number | undefined {
  return readValue(value, (reader) => {
    reader.enter(berTags.sequence);
    return reader.integer();
  });
}

function readValue<T>(value: Buffer | undefined, read: (reader: BerReader) => T): T | undefined {
  if (value === undefined) return undefined;
  try {
    return read(new BerReader(value));
  } catch (error) {
    if (error instanceof BerError) return undefined;
    throw error;
  }
}
