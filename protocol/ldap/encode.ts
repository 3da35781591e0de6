/**
 * Writes LDAP messages (RFC 4511 §4, Appendix B). A server writes the answers to one input chunk into one writer and sends them with
 * one call; `encodeMessage` is for the single message.
 */
import { BerWriter, berTags } from '#protocol/ldap/ber.ts';
import { writeFilter } from '#protocol/ldap/filter-ber.ts';
import {
  type Attribute,
  type Control,
  type LdapMessage,
  type LdapOperation,
  type LdapResult,
  type ModifyKind,
  operationTags,
  type SearchRequest,
} from '#protocol/ldap/messages.ts';

const shared = new BerWriter();

/** One message as bytes of its own. */
export function encodeMessage(message: LdapMessage): Buffer {
  writeMessage(shared, message);
  return shared.take();
}

/** Appends one message. */
export function writeMessage(writer: BerWriter, message: LdapMessage): void {
  writeOperation(writer, message.id, message.operation, message.controls);
}

/** Appends one message given by its parts. */
export function writeOperation(writer: BerWriter, id: number, operation: LdapOperation, controls: readonly Control[] = []): void {
  const opened = writer.open(berTags.sequence);
  writer.integer(id);
  writeBody(writer, operation);
  if (controls.length > 0) writeControls(writer, controls);
  writer.close(opened);
}

function writeBody(writer: BerWriter, operation: LdapOperation): void {
  const tag = operationTags[operation.type];
  // The four whose operation is no sequence.
  switch (operation.type) {
    case 'unbindRequest':
      writer.empty(tag);
      return;
    case 'deleteRequest':
      writer.text(operation.dn, tag);
      return;
    case 'abandonRequest':
      writer.integer(operation.abandonedId, tag);
      return;
    default: {
      const opened = writer.open(tag);
      writeFields(writer, operation);
      writer.close(opened);
    }
  }
}

type Constructed = Exclude<LdapOperation, { type: 'unbindRequest' | 'deleteRequest' | 'abandonRequest' }>;

function writeFields(writer: BerWriter, operation: Constructed): void {
  switch (operation.type) {
    case 'bindRequest': {
      writer.integer(operation.version);
      writer.text(operation.name);
      const auth = operation.authentication;
      if (auth.method === 'simple') {
        writer.octets(auth.password.reveal(), 0x80);
        return;
      }
      const opened = writer.open(0xa3);
      writer.text(auth.mechanism);
      if (auth.credentials !== undefined) writer.octets(auth.credentials.reveal());
      writer.close(opened);
      return;
    }
    case 'searchRequest':
      writeSearch(writer, operation);
      return;
    case 'searchResultEntry': {
      writer.text(operation.dn);
      if (operation.attributesBer === undefined) writeAttributes(writer, operation.attributes);
      else writer.raw(operation.attributesBer);
      return;
    }
    case 'searchResultReference':
      for (const url of operation.urls) writer.text(url);
      return;
    case 'modifyRequest': {
      writer.text(operation.dn);
      const changes = writer.open(berTags.sequence);
      for (const change of operation.changes) {
        const opened = writer.open(berTags.sequence);
        writer.integer(modifyKinds[change.kind], berTags.enumerated);
        writeAttribute(writer, change.attribute);
        writer.close(opened);
      }
      writer.close(changes);
      return;
    }
    case 'addRequest':
      if (operation.writeEntry !== undefined) operation.writeEntry(writer);
      else {
        writer.text(operation.dn);
        writeAttributes(writer, operation.attributes);
      }
      return;
    case 'modifyDnRequest':
      writer.text(operation.dn);
      writer.text(operation.newRdn);
      writer.boolean(operation.deleteOldRdn);
      if (operation.newSuperior !== undefined) writer.text(operation.newSuperior, 0x80);
      return;
    case 'compareRequest': {
      writer.text(operation.dn);
      const opened = writer.open(berTags.sequence);
      writer.text(operation.attribute);
      writer.octets(operation.value);
      writer.close(opened);
      return;
    }
    case 'extendedRequest':
      writer.text(operation.oid, 0x80);
      if (operation.writeValue !== undefined) {
        const opened = writer.open(0x81);
        operation.writeValue(writer);
        writer.close(opened);
      } else if (operation.value !== undefined) writer.octets(operation.value, 0x81);
      return;
    case 'intermediateResponse':
      if (operation.oid !== undefined) writer.text(operation.oid, 0x80);
      if (operation.value !== undefined) writer.octets(operation.value, 0x81);
      return;
    case 'bindResponse':
      writeResult(writer, operation);
      if (operation.serverSaslCredentials !== undefined) writer.octets(operation.serverSaslCredentials, 0x87);
      return;
    case 'extendedResponse':
      writeResult(writer, operation);
      if (operation.oid !== undefined) writer.text(operation.oid, 0x8a);
      if (operation.value !== undefined) writer.octets(operation.value, 0x8b);
      return;
    default:
      writeResult(writer, operation);
  }
}

const scopes = { base: 0, one: 1, sub: 2 } as const;
const derefs = { never: 0, searching: 1, finding: 2, always: 3 } as const;
const modifyKinds: Record<ModifyKind, number> = { add: 0, delete: 1, replace: 2, increment: 3 };

function writeSearch(writer: BerWriter, search: SearchRequest): void {
  writer.text(search.baseDn);
  writer.integer(scopes[search.scope], berTags.enumerated);
  writer.integer(derefs[search.derefAliases], berTags.enumerated);
  writer.integer(search.sizeLimit);
  writer.integer(search.timeLimitSeconds);
  writer.boolean(search.typesOnly);
  writeFilter(writer, search.filter);
  const opened = writer.open(berTags.sequence);
  for (const name of search.attributes) writer.text(name);
  writer.close(opened);
}

function writeResult(writer: BerWriter, result: LdapResult): void {
  writer.integer(result.resultCode, berTags.enumerated);
  writer.text(result.matchedDn);
  writer.text(result.diagnosticMessage);
  if (result.referrals === undefined || result.referrals.length === 0) return;
  const opened = writer.open(0xa3);
  for (const url of result.referrals) writer.text(url);
  writer.close(opened);
}

/** A PartialAttributeList (RFC 4511 §4.1.7). */
export function writeAttributes(writer: BerWriter, attributes: readonly Attribute[]): void {
  const opened = writer.open(berTags.sequence);
  for (const attribute of attributes) writeAttribute(writer, attribute);
  writer.close(opened);
}

function writeAttribute(writer: BerWriter, attribute: Attribute): void {
  const opened = writer.open(berTags.sequence);
  writer.text(attribute.type);
  const values = writer.open(berTags.set);
  for (const value of attribute.values) writer.octets(value);
  writer.close(values);
  writer.close(opened);
}

function writeControls(writer: BerWriter, controls: readonly Control[]): void {
  const opened = writer.open(0xa0);
  for (const control of controls) {
    const one = writer.open(berTags.sequence);
    writer.text(control.oid);
    // DEFAULT FALSE: RFC 4511 §5.1 has default values left out.
    if (control.critical) writer.boolean(true);
    if (control.value !== undefined) writer.octets(control.value);
    writer.close(one);
  }
  writer.close(opened);
}
