/**
 * Reads one whole LDAP message (RFC 4511 §4, Appendix B). Elements that later versions of the standard may append are ignored, as §4
 * asks. Values in the result are views into `bytes`.
 */
import { Secret } from '#common/secret.ts';
import { BerError, BerReader, berTags, OverLimit } from '#protocol/ldap/ber.ts';
import { readFilter } from '#protocol/ldap/filter-ber.ts';
import {
  type Attribute,
  type BindRequest,
  type Control,
  type DerefAliases,
  type LdapMessage,
  type LdapOperation,
  type LdapResult,
  type Modification,
  type ModifyKind,
  type SearchRequest,
  type SearchResultEntry,
  type SearchScope,
  operationTags as tags,
} from '#protocol/ldap/messages.ts';

/** Outcome of `parseMessage`; `id` is set when the message got that far. */
export type ParseOutcome =
  | { readonly outcome: 'message'; readonly message: LdapMessage }
  /** A search whose filter is too deep or has too many parts. */
  | { readonly outcome: 'over-limit'; readonly detail: string; readonly id: number }
  | { readonly outcome: 'malformed'; readonly detail: string; readonly id: number | undefined };

/** Most controls on one message. */
export const controlsMax = 64;

/** Parses bytes that hold exactly one message; `entriesStayLazy`: see `SearchResultEntry.attributesBer`. */
export function parseMessage(bytes: Buffer, entriesStayLazy = false): ParseOutcome {
  let id: number | undefined;
  entriesAreLazy = entriesStayLazy;
  try {
    const reader = new BerReader(bytes);
    reader.enter(berTags.sequence);
    const messageId = reader.integer();
    if (messageId < 0 || messageId > 0x7fffffff) throw new BerError(`message ID ${messageId} is out of range`);
    id = messageId;
    const operation = readOperation(reader);
    const controls = reader.peekTag() === 0xa0 ? readControls(reader) : noControls;
    return { outcome: 'message', message: { id: messageId, operation, controls } };
  } catch (error) {
    if (error instanceof OverLimit && id !== undefined) return { outcome: 'over-limit', detail: error.message, id };
    if (error instanceof BerError) return { outcome: 'malformed', detail: error.message, id };
    throw error;
  }
}

const noControls: readonly Control[] = [];

function readOperation(reader: BerReader): LdapOperation {
  const tag = reader.peekTag();
  switch (tag) {
    case tags.unbindRequest:
      reader.skip();
      return { type: 'unbindRequest' };
    case tags.deleteRequest:
      return { type: 'deleteRequest', dn: reader.text(tag) };
    case tags.abandonRequest:
      return { type: 'abandonRequest', abandonedId: reader.integer(tag) };
    default: {
      if (tag < 0) throw new BerError('message without an operation');
      const read = constructed[tag];
      if (read === undefined) throw new BerError(`no operation has tag 0x${tag.toString(16)}`);
      const outer = reader.enter(tag);
      const operation = read(reader);
      reader.leave(outer);
      return operation;
    }
  }
}

const constructed: Record<number, ((reader: BerReader) => LdapOperation) | undefined> = {
  [tags.bindRequest]: readBind,
  [tags.bindResponse](reader) {
    const result = readResult(reader);
    return { type: 'bindResponse', ...result, serverSaslCredentials: reader.peekTag() === 0x87 ? reader.octets(0x87) : undefined };
  },
  [tags.searchRequest]: readSearch,
  [tags.searchResultEntry](reader) {
    if (entriesAreLazy) return new LazyEntry(reader.text(), checkedAttributes(reader));
    return { type: 'searchResultEntry', dn: reader.text(), attributes: readAttributes(reader) };
  },
  [tags.searchResultDone]: (reader) => ({ type: 'searchResultDone', ...readResult(reader) }),
  [tags.searchResultReference]: (reader) => ({ type: 'searchResultReference', urls: readTexts(reader) }),
  [tags.modifyRequest](reader) {
    const dn = reader.text();
    const changes: Modification[] = [];
    const outer = reader.enter(berTags.sequence);
    while (reader.hasMore()) {
      const one = reader.enter(berTags.sequence);
      const kind = modifyKinds[reader.integer(berTags.enumerated)];
      if (kind === undefined) throw new BerError('unknown kind of modification');
      changes.push({ kind, attribute: readAttribute(reader) });
      reader.leave(one);
    }
    reader.leave(outer);
    return { type: 'modifyRequest', dn, changes };
  },
  [tags.modifyResponse]: (reader) => ({ type: 'modifyResponse', ...readResult(reader) }),
  [tags.addRequest]: (reader) => ({ type: 'addRequest', dn: reader.text(), attributes: readAttributes(reader) }),
  [tags.addResponse]: (reader) => ({ type: 'addResponse', ...readResult(reader) }),
  [tags.deleteResponse]: (reader) => ({ type: 'deleteResponse', ...readResult(reader) }),
  [tags.modifyDnRequest](reader) {
    const dn = reader.text();
    const newRdn = reader.text();
    const deleteOldRdn = reader.boolean();
    return { type: 'modifyDnRequest', dn, newRdn, deleteOldRdn, newSuperior: reader.peekTag() === 0x80 ? reader.text(0x80) : undefined };
  },
  [tags.modifyDnResponse]: (reader) => ({ type: 'modifyDnResponse', ...readResult(reader) }),
  [tags.compareRequest](reader) {
    const dn = reader.text();
    const outer = reader.enter(berTags.sequence);
    const attribute = reader.text();
    const value = reader.octets();
    reader.leave(outer);
    return { type: 'compareRequest', dn, attribute, value };
  },
  [tags.compareResponse]: (reader) => ({ type: 'compareResponse', ...readResult(reader) }),
  [tags.extendedRequest](reader) {
    const oid = reader.text(0x80);
    return { type: 'extendedRequest', oid, value: reader.peekTag() === 0x81 ? reader.octets(0x81) : undefined };
  },
  [tags.extendedResponse](reader) {
    const result = readResult(reader);
    const oid = reader.peekTag() === 0x8a ? reader.text(0x8a) : undefined;
    return { type: 'extendedResponse', ...result, oid, value: reader.peekTag() === 0x8b ? reader.octets(0x8b) : undefined };
  },
  [tags.intermediateResponse](reader) {
    const oid = reader.peekTag() === 0x80 ? reader.text(0x80) : undefined;
    return { type: 'intermediateResponse', oid, value: reader.peekTag() === 0x81 ? reader.octets(0x81) : undefined };
  },
};

const scopes: readonly (SearchScope | undefined)[] = ['base', 'one', 'sub'];
const derefs: readonly (DerefAliases | undefined)[] = ['never', 'searching', 'finding', 'always'];
const modifyKinds: readonly (ModifyKind | undefined)[] = ['add', 'delete', 'replace', 'increment'];

function readBind(reader: BerReader): BindRequest {
  const version = reader.integer();
  const name = reader.text();
  if (reader.peekTag() === 0x80) {
    return { type: 'bindRequest', version, name, authentication: { method: 'simple', password: new Secret(reader.octets(0x80)) } };
  }
  if (reader.peekTag() !== 0xa3) throw new BerError('unknown authentication choice');
  const outer = reader.enter(0xa3);
  const mechanism = reader.text();
  const credentials = reader.peekTag() === berTags.octets ? new Secret(reader.octets()) : undefined;
  reader.leave(outer);
  return { type: 'bindRequest', version, name, authentication: { method: 'sasl', mechanism, credentials } };
}

function readSearch(reader: BerReader): SearchRequest {
  const baseDn = reader.text();
  const scope = scopes[reader.integer(berTags.enumerated)];
  const derefAliases = derefs[reader.integer(berTags.enumerated)];
  if (scope === undefined) throw new BerError('unknown search scope');
  if (derefAliases === undefined) throw new BerError('unknown derefAliases');
  const sizeLimit = reader.integer();
  const timeLimitSeconds = reader.integer();
  if (sizeLimit < 0 || timeLimitSeconds < 0) throw new BerError('negative limit');
  const typesOnly = reader.boolean();
  const filter = readFilter(reader);
  const outer = reader.enter(berTags.sequence);
  const attributes = readTexts(reader);
  reader.leave(outer);
  return { type: 'searchRequest', baseDn, scope, derefAliases, sizeLimit, timeLimitSeconds, typesOnly, filter, attributes };
}

function readTexts(reader: BerReader): string[] {
  const texts: string[] = [];
  while (reader.hasMore()) texts.push(reader.text());
  return texts;
}

function readResult(reader: BerReader): LdapResult {
  const resultCode = reader.integer(berTags.enumerated);
  const matchedDn = reader.lenientText();
  const diagnosticMessage = reader.lenientText();
  if (reader.peekTag() !== 0xa3) return { resultCode, matchedDn, diagnosticMessage };
  const outer = reader.enter(0xa3);
  const referrals = readTexts(reader);
  reader.leave(outer);
  return { resultCode, matchedDn, diagnosticMessage, referrals };
}

// Whether the message being parsed leaves the attributes of an entry as they came.
let entriesAreLazy = false;

/** An entry whose attributes are taken apart when somebody looks at them; replication mostly passes them on as they came. */
class LazyEntry implements SearchResultEntry {
  readonly type = 'searchResultEntry';
  readonly dn: string;
  readonly attributesBer: Buffer;
  #attributes: readonly Attribute[] | undefined;

  constructor(dn: string, attributesBer: Buffer) {
    this.dn = dn;
    this.attributesBer = attributesBer;
  }

  get attributes(): readonly Attribute[] {
    this.#attributes ??= readAttributes(new BerReader(this.attributesBer));
    return this.#attributes;
  }
}

/** A PartialAttributeList as it is, which `readAttributes` will be able to read. */
export function checkedAttributes(reader: BerReader): Buffer {
  const list = reader.element(berTags.sequence);
  const check = new BerReader(list);
  const outer = check.enter(berTags.sequence);
  while (check.hasMore()) {
    const one = check.enter(berTags.sequence);
    check.checkText();
    const set = check.enter(berTags.set);
    while (check.hasMore()) check.skip(berTags.octets);
    check.leave(set);
    check.leave(one);
  }
  check.leave(outer);
  return list;
}

/** A PartialAttributeList (RFC 4511 §4.1.7). */
export function readAttributes(reader: BerReader): Attribute[] {
  const attributes: Attribute[] = [];
  const outer = reader.enter(berTags.sequence);
  while (reader.hasMore()) attributes.push(readAttribute(reader));
  reader.leave(outer);
  return attributes;
}

function readAttribute(reader: BerReader): Attribute {
  const outer = reader.enter(berTags.sequence);
  const type = reader.word();
  const values: Buffer[] = [];
  const set = reader.enter(berTags.set);
  while (reader.hasMore()) values.push(reader.octets());
  reader.leave(set);
  reader.leave(outer);
  return { type, values };
}

function readControls(reader: BerReader): Control[] {
  const controls: Control[] = [];
  const outer = reader.enter(0xa0);
  while (reader.hasMore()) {
    if (controls.length === controlsMax) throw new BerError(`more than ${controlsMax} controls`);
    const one = reader.enter(berTags.sequence);
    const oid = reader.text();
    const critical = reader.peekTag() === berTags.boolean ? reader.boolean() : false;
    const value = reader.peekTag() === berTags.octets ? reader.octets() : undefined;
    reader.leave(one);
    controls.push({ oid, critical, value });
  }
  reader.leave(outer);
  return controls;
}
