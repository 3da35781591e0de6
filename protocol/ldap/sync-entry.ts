/**
 * Finds the parts of an entry with a sync state (RFC 4533 §2.3) without making anything of them: for those who only pass it on, as a first load
 * sends it (state `add`, no cookie) and as a change is told. Whatever is not exactly of that form, or not plain, is left to parse.ts.
 */
import { BerError, berTags, elementEnd, lengthContentStart } from '#protocol/ldap/ber.ts';
import { controlOids } from '#protocol/ldap/controls.ts';
import { operationTags } from '#protocol/ldap/messages.ts';

/** Where the parts are: elements with their tags, the UUID's 16 octets. Good until the next look. */
export interface SyncEntryPlaces {
  id: number;
  dnStart: number;
  attributesStart: number;
  attributesEnd: number;
  uuidStart: number;
}

/** A change. Its octets are copies. */
export interface SyncChange {
  readonly state: 'add' | 'modify' | 'delete';
  readonly uuidOctets: Buffer;
  readonly dn: string;
  readonly attributesBer: Buffer;
  readonly cookie: Buffer | undefined;
}

const places: SyncEntryPlaces = { id: 0, dnStart: 0, attributesStart: 0, attributesEnd: 0, uuidStart: 0 };
/** Of the entry looked at last, too: content of its DN, and of its cookie, -1 where it has none. */
const also = { dnTextStart: 0, state: 0, cookieStart: -1 };
const stateOid = Buffer.from(controlOids.syncState);
const controlsTag = 0xa0;
const stateAdd = 1;
const states = [undefined, 'add', 'modify', 'delete'] as const;

/** Looks at one whole message; `undefined` when it is not of that form. */
export function findSyncEntry(bytes: Buffer, start: number, end: number): SyncEntryPlaces | undefined {
  return found(bytes, start, end) && also.state === stateAdd && also.cookieStart < 0 ? places : undefined;
}

/** Reads one whole message that tells a change; `undefined` when it is not of that form. */
export function readSyncChange(bytes: Buffer, start: number, end: number): SyncChange | undefined {
  const state = found(bytes, start, end) ? states[also.state] : undefined;
  if (state === undefined) return undefined;
  const { uuidStart, attributesStart, attributesEnd } = places;
  return {
    state,
    uuidOctets: Buffer.from(bytes.subarray(uuidStart, uuidStart + 16)),
    dn: bytes.toString('latin1', also.dnTextStart, attributesStart),
    attributesBer: Buffer.from(bytes.subarray(attributesStart, attributesEnd)),
    cookie: also.cookieStart < 0 || also.cookieStart === end ? undefined : Buffer.from(bytes.subarray(also.cookieStart, end)),
  };
}

function found(bytes: Buffer, start: number, end: number): boolean {
  try {
    return find(bytes, start, end);
  } catch (error) {
    if (error instanceof BerError) return false;
    throw error;
  }
}

function find(bytes: Buffer, start: number, end: number): boolean {
  if (elementEnd(bytes, start, end, berTags.sequence) !== end) return false;
  let at = lengthContentStart();
  const idEnd = elementEnd(bytes, at, end, berTags.integer);
  at = lengthContentStart();
  if (idEnd === at || idEnd - at > 4 || (bytes[at] as number) > 0x7f) return false;
  places.id = bytes.readUIntBE(at, idEnd - at);
  const operationEnd = elementEnd(bytes, idEnd, end, operationTags.searchResultEntry);
  places.dnStart = lengthContentStart();
  const dnEnd = elementEnd(bytes, places.dnStart, operationEnd, berTags.octets);
  also.dnTextStart = lengthContentStart();
  if (!isAscii(bytes, also.dnTextStart, dnEnd)) return false;
  places.attributesStart = dnEnd;
  places.attributesEnd = elementEnd(bytes, dnEnd, operationEnd, berTags.sequence);
  if (places.attributesEnd !== operationEnd || !areAttributes(bytes, lengthContentStart(), operationEnd)) return false;
  return elementEnd(bytes, operationEnd, end, controlsTag) === end && findState(bytes, lengthContentStart(), end);
}

// One control: its OID, perhaps that it is not critical, and the state with the UUID and perhaps a cookie.
function findState(bytes: Buffer, start: number, end: number): boolean {
  if (elementEnd(bytes, start, end, berTags.sequence) !== end) return false;
  let at = lengthContentStart();
  const oidEnd = elementEnd(bytes, at, end, berTags.octets);
  at = lengthContentStart();
  if (oidEnd - at !== stateOid.length) return false;
  for (let i = 0; i < stateOid.length; i += 1) if (bytes[at + i] !== stateOid[i]) return false;
  at = bytes[oidEnd] === berTags.boolean ? elementEnd(bytes, oidEnd, end, berTags.boolean) : oidEnd;
  if (elementEnd(bytes, at, end, berTags.octets) !== end) return false;
  if (elementEnd(bytes, lengthContentStart(), end, berTags.sequence) !== end) return false;
  at = lengthContentStart();
  if (elementEnd(bytes, at, end, berTags.enumerated) !== at + 3) return false;
  also.state = bytes[at + 2] as number;
  const uuidEnd = elementEnd(bytes, at + 3, end, berTags.octets);
  places.uuidStart = lengthContentStart();
  also.cookieStart = -1;
  if (uuidEnd !== end) {
    if (elementEnd(bytes, uuidEnd, end, berTags.octets) !== end) return false;
    also.cookieStart = lengthContentStart();
  }
  return uuidEnd - places.uuidStart === 16;
}

// A list that can be read, of descriptions in ASCII.
function areAttributes(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; ) {
    const oneEnd = elementEnd(bytes, at, end, berTags.sequence);
    const typeAt = lengthContentStart();
    const typeEnd = elementEnd(bytes, typeAt, oneEnd, berTags.octets);
    if (!isAscii(bytes, lengthContentStart(), typeEnd)) return false;
    const setEnd = elementEnd(bytes, typeEnd, oneEnd, berTags.set);
    for (let value = lengthContentStart(); value < setEnd; ) value = elementEnd(bytes, value, setEnd, berTags.octets);
    at = oneEnd;
  }
  return true;
}

function isAscii(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) if ((bytes[at] as number) > 0x7f) return false;
  return true;
}
