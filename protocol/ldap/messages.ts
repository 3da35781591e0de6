/**
 * LDAP messages (RFC 4511 §4) as plain objects, requests and responses alike. encode.ts writes them, parse.ts reads one that is
 * whole, decoder.ts finds whole ones in a stream.
 *
 * Names (DNs, attribute descriptions) are text exactly as on the wire; values are Buffers, which after reading are views into the bytes
 * received: copy what is kept for long. Absent optional parts are `undefined`.
 */
import type { Secret } from '#common/secret.ts';
import type { BerWriter } from '#protocol/ldap/ber.ts';
import type { Filter } from '#protocol/ldap/filter.ts';

/** A control (RFC 4511 §4.1.11). */
export interface Control {
  readonly oid: string;
  readonly critical: boolean;
  readonly value: Buffer | undefined;
}

/** An attribute description with its values; no values in a `typesOnly` answer and where a modify removes all. */
export interface Attribute {
  readonly type: string;
  readonly values: readonly Buffer[];
}

/** LDAPResult (RFC 4511 §4.1.9). */
export interface LdapResult {
  readonly resultCode: number;
  readonly matchedDn: string;
  /** For people; never parsed. */
  readonly diagnosticMessage: string;
  /** URLs; present with resultCode 10 (referral) only. */
  readonly referrals?: readonly string[] | undefined;
}

/** RFC 4511 §4.2. Only version 3 is spoken here, but any number parses, so that the server can answer protocolError. */
export interface BindRequest {
  readonly type: 'bindRequest';
  readonly version: number;
  readonly name: string;
  readonly authentication:
    | { readonly method: 'simple'; readonly password: Secret<Buffer> }
    | { readonly method: 'sasl'; readonly mechanism: string; readonly credentials: Secret<Buffer> | undefined };
}

export interface BindResponse extends LdapResult {
  readonly type: 'bindResponse';
  readonly serverSaslCredentials?: Buffer | undefined;
}

export interface UnbindRequest {
  readonly type: 'unbindRequest';
}

/** `base` is the entry itself, `one` its children, `sub` the whole subtree. */
export type SearchScope = 'base' | 'one' | 'sub';
export type DerefAliases = 'never' | 'searching' | 'finding' | 'always';

/** RFC 4511 §4.5.1. Limits of 0 are none. Empty `attributes` means all user attributes. */
export interface SearchRequest {
  readonly type: 'searchRequest';
  readonly baseDn: string;
  readonly scope: SearchScope;
  readonly derefAliases: DerefAliases;
  readonly sizeLimit: number;
  readonly timeLimitSeconds: number;
  readonly typesOnly: boolean;
  readonly filter: Filter;
  readonly attributes: readonly string[];
}

export interface SearchResultEntry {
  readonly type: 'searchResultEntry';
  readonly dn: string;
  readonly attributes: readonly Attribute[];
  /** The attributes as they came, or as they are to be sent in the place of `attributes`: for those who pass them on. */
  readonly attributesBer?: Buffer | undefined;
}

export interface SearchResultReference {
  readonly type: 'searchResultReference';
  readonly urls: readonly string[];
}

export interface SearchResultDone extends LdapResult {
  readonly type: 'searchResultDone';
}

/** `increment` is RFC 4525. */
export type ModifyKind = 'add' | 'delete' | 'replace' | 'increment';

/** One change of a modify; all changes of a request happen or none. */
export interface Modification {
  readonly kind: ModifyKind;
  readonly attribute: Attribute;
}

export interface ModifyRequest {
  readonly type: 'modifyRequest';
  readonly dn: string;
  readonly changes: readonly Modification[];
}

export interface ModifyResponse extends LdapResult {
  readonly type: 'modifyResponse';
}

export interface AddRequest {
  readonly type: 'addRequest';
  readonly dn: string;
  readonly attributes: readonly Attribute[];
  /** Instead of `dn` and `attributes`: writes both as they are encoded already. */
  readonly writeEntry?: (writer: BerWriter) => void;
}

export interface AddResponse extends LdapResult {
  readonly type: 'addResponse';
}

export interface DeleteRequest {
  readonly type: 'deleteRequest';
  readonly dn: string;
}

export interface DeleteResponse extends LdapResult {
  readonly type: 'deleteResponse';
}

/** RFC 4511 §4.9. */
export interface ModifyDnRequest {
  readonly type: 'modifyDnRequest';
  readonly dn: string;
  readonly newRdn: string;
  readonly deleteOldRdn: boolean;
  readonly newSuperior: string | undefined;
}

export interface ModifyDnResponse extends LdapResult {
  readonly type: 'modifyDnResponse';
}

export interface CompareRequest {
  readonly type: 'compareRequest';
  readonly dn: string;
  readonly attribute: string;
  readonly value: Buffer;
}

export interface CompareResponse extends LdapResult {
  readonly type: 'compareResponse';
}

export interface AbandonRequest {
  readonly type: 'abandonRequest';
  /** Message ID of the operation to give up. */
  readonly abandonedId: number;
}

export interface ExtendedRequest {
  readonly type: 'extendedRequest';
  readonly oid: string;
  readonly value: Buffer | undefined;
  /** Of a request that is sent: writes a large value in place of `value`, straight to where it leaves from. */
  readonly writeValue?: (writer: BerWriter) => void;
}

/** RFC 4511 §4.12; with message ID 0 an unsolicited notification (§4.4). */
export interface ExtendedResponse extends LdapResult {
  readonly type: 'extendedResponse';
  readonly oid?: string | undefined;
  readonly value?: Buffer | undefined;
}

/** RFC 4511 §4.13; RFC 4533 §2.5 sends its Sync Info in it. */
export interface IntermediateResponse {
  readonly type: 'intermediateResponse';
  readonly oid: string | undefined;
  readonly value: Buffer | undefined;
}

export type LdapRequest =
  | BindRequest
  | UnbindRequest
  | SearchRequest
  | ModifyRequest
  | AddRequest
  | DeleteRequest
  | ModifyDnRequest
  | CompareRequest
  | AbandonRequest
  | ExtendedRequest;

export type LdapResponse =
  | BindResponse
  | SearchResultEntry
  | SearchResultReference
  | SearchResultDone
  | ModifyResponse
  | AddResponse
  | DeleteResponse
  | ModifyDnResponse
  | CompareResponse
  | ExtendedResponse
  | IntermediateResponse;

export type LdapOperation = LdapRequest | LdapResponse;

/** One LDAPMessage. */
export interface LdapMessage<Operation extends LdapOperation = LdapOperation> {
  /** 0 to 2^31-1; 0 is kept for unsolicited notifications. */
  readonly id: number;
  readonly operation: Operation;
  /** Empty when there are none. */
  readonly controls: readonly Control[];
}

/** Application tags of the operations (RFC 4511 §4.2 on), as whole BER identifier octets. */
export const operationTags = {
  bindRequest: 0x60,
  bindResponse: 0x61,
  unbindRequest: 0x42,
  searchRequest: 0x63,
  searchResultEntry: 0x64,
  searchResultDone: 0x65,
  modifyRequest: 0x66,
  modifyResponse: 0x67,
  addRequest: 0x68,
  addResponse: 0x69,
  deleteRequest: 0x4a,
  deleteResponse: 0x6b,
  modifyDnRequest: 0x6c,
  modifyDnResponse: 0x6d,
  compareRequest: 0x6e,
  compareResponse: 0x6f,
  abandonRequest: 0x50,
  searchResultReference: 0x73,
  extendedRequest: 0x77,
  extendedResponse: 0x78,
  intermediateResponse: 0x79,
} as const satisfies Record<LdapOperation['type'], number>;

/** Extended operations and notices by OID. */
export const extendedOids = {
  startTls: '1.3.6.1.4.1.1466.20037',
  noticeOfDisconnection: '1.3.6.1.4.1.1466.20036',
  passwordModify: '1.3.6.1.4.1.4203.1.11.1',
  whoAmI: '1.3.6.1.4.1.4203.1.11.3',
  cancel: '1.3.6.1.1.8',
} as const;

/** An attribute from text values. */
export function attribute(type: string, ...values: readonly string[]): Attribute {
  return { type, values: values.map((value) => Buffer.from(value)) };
}

/** The attribute of that description, compared without regard to case; options (`;binary`) are part of the description. */
export function findAttribute(attributes: readonly Attribute[], type: string): Attribute | undefined {
  const folded = type.toLowerCase();
  return attributes.find((one) => one.type.length === type.length && one.type.toLowerCase() === folded);
}

/** The first value as text; `undefined` when there is no such attribute or no value. */
export function textOf(attributes: readonly Attribute[], type: string): string | undefined {
  return findAttribute(attributes, type)?.values[0]?.toString('utf8');
}

/** All values as text; empty when there is no such attribute. */
export function textsOf(attributes: readonly Attribute[], type: string): string[] {
  return findAttribute(attributes, type)?.values.map((value) => value.toString('utf8')) ?? [];
}
