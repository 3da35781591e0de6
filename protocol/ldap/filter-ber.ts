/**
 * Search filters on the wire (RFC 4511 §4.5.1.7), for search requests and for the assertion control (RFC 4528).
 */
import { BerError, type BerReader, type BerWriter, OverLimit } from '#protocol/ldap/ber.ts';
import { type Filter, filterDepthMax, filterNodesMax } from '#protocol/ldap/filter.ts';

/** Reads one filter; throws `BerError` on malformed ones, `OverLimit` on too deep or too big ones. */
export function readFilter(reader: BerReader): Filter {
  return readNode(reader, 0, { left: filterNodesMax });
}

function readNode(reader: BerReader, depth: number, budget: { left: number }): Filter {
  if (depth > filterDepthMax) throw new OverLimit(`filter nested deeper than ${filterDepthMax}`);
  budget.left -= 1;
  if (budget.left < 0) throw new OverLimit(`filter of more than ${filterNodesMax} parts`);
  const tag = reader.peekTag();
  switch (tag) {
    case 0xa0:
    case 0xa1: {
      const outer = reader.enter(tag);
      const filters: Filter[] = [];
      while (reader.hasMore()) filters.push(readNode(reader, depth + 1, budget));
      reader.leave(outer);
      return { kind: tag === 0xa0 ? 'and' : 'or', filters };
    }
    case 0xa2: {
      const outer = reader.enter(tag);
      const filter = readNode(reader, depth + 1, budget);
      reader.leave(outer);
      return { kind: 'not', filter };
    }
    case 0xa3:
      return readAssertion(reader, tag, 'equal');
    case 0xa5:
      return readAssertion(reader, tag, 'greaterOrEqual');
    case 0xa6:
      return readAssertion(reader, tag, 'lessOrEqual');
    case 0xa8:
      return readAssertion(reader, tag, 'approx');
    case 0xa4:
      return readSubstrings(reader, budget);
    case 0x87:
      return { kind: 'present', attribute: reader.text(0x87) };
    case 0xa9:
      return readExtensible(reader);
    default:
      throw new BerError(tag < 0 ? 'filter is missing' : `no filter has tag 0x${tag.toString(16)}`);
  }
}

function readAssertion(reader: BerReader, tag: number, kind: 'equal' | 'greaterOrEqual' | 'lessOrEqual' | 'approx'): Filter {
  const outer = reader.enter(tag);
  const attribute = reader.text();
  const value = reader.octets();
  reader.leave(outer);
  return { kind, attribute, value };
}

function readSubstrings(reader: BerReader, budget: { left: number }): Filter {
  const outer = reader.enter(0xa4);
  const attribute = reader.text();
  let initial: Buffer | undefined;
  let final: Buffer | undefined;
  const any: Buffer[] = [];
  const parts = reader.enter(0x30);
  while (reader.hasMore()) {
    budget.left -= 1;
    if (budget.left < 0) throw new OverLimit(`filter of more than ${filterNodesMax} parts`);
    const tag = reader.peekTag();
    // RFC 4511 §4.5.1.7.2: initial is first, final is last, each once.
    if (final !== undefined) throw new BerError('substring after the final one');
    if (tag === 0x80) {
      if (initial !== undefined || any.length > 0) throw new BerError('initial substring is not first');
      initial = reader.octets(tag);
    } else if (tag === 0x81) any.push(reader.octets(tag));
    else if (tag === 0x82) final = reader.octets(tag);
    else throw new BerError(`no substring has tag 0x${tag.toString(16)}`);
  }
  if (initial === undefined && any.length === 0 && final === undefined) throw new BerError('substring filter without substrings');
  reader.leave(parts);
  reader.leave(outer);
  return { kind: 'substrings', attribute, initial, any, final };
}

function readExtensible(reader: BerReader): Filter {
  const outer = reader.enter(0xa9);
  const rule = reader.peekTag() === 0x81 ? reader.text(0x81) : undefined;
  const attribute = reader.peekTag() === 0x82 ? reader.text(0x82) : undefined;
  const value = reader.octets(0x83);
  const dnAttributes = reader.peekTag() === 0x84 ? reader.boolean(0x84) : false;
  reader.leave(outer);
  if (rule === undefined && attribute === undefined) throw new BerError('extensible match names neither rule nor attribute');
  return { kind: 'extensible', rule, attribute, value, dnAttributes };
}

const assertionTags = { equal: 0xa3, greaterOrEqual: 0xa5, lessOrEqual: 0xa6, approx: 0xa8 } as const;

/** Writes one filter. */
export function writeFilter(writer: BerWriter, filter: Filter): void {
  switch (filter.kind) {
    case 'and':
    case 'or': {
      const opened = writer.open(filter.kind === 'and' ? 0xa0 : 0xa1);
      for (const part of filter.filters) writeFilter(writer, part);
      writer.close(opened);
      return;
    }
    case 'not': {
      const opened = writer.open(0xa2);
      writeFilter(writer, filter.filter);
      writer.close(opened);
      return;
    }
    case 'present':
      writer.text(filter.attribute, 0x87);
      return;
    case 'substrings': {
      const opened = writer.open(0xa4);
      writer.text(filter.attribute);
      const parts = writer.open(0x30);
      if (filter.initial !== undefined) writer.octets(filter.initial, 0x80);
      for (const part of filter.any) writer.octets(part, 0x81);
      if (filter.final !== undefined) writer.octets(filter.final, 0x82);
      writer.close(parts);
      writer.close(opened);
      return;
    }
    case 'extensible': {
      const opened = writer.open(0xa9);
      if (filter.rule !== undefined) writer.text(filter.rule, 0x81);
      if (filter.attribute !== undefined) writer.text(filter.attribute, 0x82);
      writer.octets(filter.value, 0x83);
      if (filter.dnAttributes) writer.boolean(true, 0x84);
      writer.close(opened);
      return;
    }
    default: {
      const opened = writer.open(assertionTags[filter.kind]);
      writer.text(filter.attribute);
      writer.octets(filter.value);
      writer.close(opened);
    }
  }
}
