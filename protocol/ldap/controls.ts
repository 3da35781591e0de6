/**
 * Values of the controls in use, and of the Sync Info message: paged results (RFC 2696), content synchronization (RFC 4533), assertion
 * (RFC 4528), pre- and post-read (RFC 4527), ManageDsaIT (RFC 3296) and relax (draft-zeilenga-ldap-relax, as in OpenLDAP).
 * `make…` builds a control, `read…` takes its value apart and gives `undefined` when it is malformed.
 */
import { BerError, BerReader, BerWriter, berTags } from '#protocol/ldap/ber.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import { readFilter, writeFilter } from '#protocol/ldap/filter-ber.ts';
import { type Attribute, type Control, operationTags } from '#protocol/ldap/messages.ts';

/** Controls and the Sync Info message by OID. */
export const controlOids = {
  pagedResults: '1.2.840.113556.1.4.319',
  syncRequest: '1.3.6.1.4.1.4203.1.9.1.1',
  syncState: '1.3.6.1.4.1.4203.1.9.1.2',
  syncDone: '1.3.6.1.4.1.4203.1.9.1.3',
  syncInfo: '1.3.6.1.4.1.4203.1.9.1.4',
  assertion: '1.3.6.1.1.12',
  preRead: '1.3.6.1.1.13.1',
  postRead: '1.3.6.1.1.13.2',
  relax: '1.3.6.1.4.1.4203.666.5.12',
  manageDsaIt: '2.16.840.1.113730.3.4.2',
  proxiedAuthorization: '2.16.840.1.113730.3.4.18',
  treeDelete: '1.2.840.113556.1.4.805',
  serverSideSort: '1.2.840.113556.1.4.473',
  serverSideSortResponse: '1.2.840.113556.1.4.474',
  subentries: '1.3.6.1.4.1.4203.1.10.1',
} as const;

/** The control of that OID; `undefined` when it is not there. */
export function findControl(controls: readonly Control[], oid: string): Control | undefined {
  return controls.find((control) => control.oid === oid);
}

/** Entries and answers are about the entry itself, also when it is a referral. */
export const manageDsaIt: Control = { oid: controlOids.manageDsaIt, critical: false, value: undefined };

/** Attributes that the server itself maintains may be written (entryUUID, entryCSN, timestamps). */
export const relax: Control = { oid: controlOids.relax, critical: true, value: undefined };

const writer = new BerWriter();

function sequence(write: () => void): Buffer {
  const opened = writer.open(berTags.sequence);
  write();
  writer.close(opened);
  return writer.take();
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

/** Request: page size wanted; response: estimate of the total, 0 when unknown. An empty cookie in a response means the last page. */
export interface PagedResults {
  readonly size: number;
  readonly cookie: Buffer;
}

export function makePagedResults(paged: PagedResults, critical = true): Control {
  const value = sequence(() => {
    writer.integer(paged.size);
    writer.octets(paged.cookie);
  });
  return { oid: controlOids.pagedResults, critical, value };
}

export function readPagedResults(value: Buffer | undefined): PagedResults | undefined {
  return readValue(value, (reader) => {
    reader.enter(berTags.sequence);
    const size = reader.integer();
    if (size < 0) throw new BerError('negative page size');
    return { size, cookie: reader.octets() };
  });
}

/** RFC 4533 §2.2. */
export interface SyncRequest {
  readonly mode: 'refreshOnly' | 'refreshAndPersist';
  readonly cookie: Buffer | undefined;
  readonly reloadHint: boolean;
}

export function makeSyncRequest(request: SyncRequest): Control {
  const value = sequence(() => {
    writer.integer(request.mode === 'refreshOnly' ? 1 : 3, berTags.enumerated);
    if (request.cookie !== undefined) writer.octets(request.cookie);
    if (request.reloadHint) writer.boolean(true);
  });
  return { oid: controlOids.syncRequest, critical: true, value };
}

export function readSyncRequest(value: Buffer | undefined): SyncRequest | undefined {
  return readValue(value, (reader) => {
    reader.enter(berTags.sequence);
    const mode = reader.integer(berTags.enumerated);
    if (mode !== 1 && mode !== 3) throw new BerError('unknown sync mode');
    const cookie = reader.peekTag() === berTags.octets ? reader.octets() : undefined;
    const reloadHint = reader.peekTag() === berTags.boolean ? reader.boolean() : false;
    return { mode: mode === 1 ? ('refreshOnly' as const) : ('refreshAndPersist' as const), cookie, reloadHint };
  });
}

/** RFC 4533 §2.3. `uuid` is lower case with hyphens. */
export interface SyncState {
  readonly state: 'present' | 'add' | 'modify' | 'delete';
  readonly uuid: string;
  readonly cookie: Buffer | undefined;
}

const syncStates = ['present', 'add', 'modify', 'delete'] as const;

export function makeSyncState(state: SyncState): Control {
  const value = sequence(() => {
    writer.integer(syncStates.indexOf(state.state), berTags.enumerated);
    writer.octets(uuidToBytes(state.uuid));
    if (state.cookie !== undefined) writer.octets(state.cookie);
  });
  return { oid: controlOids.syncState, critical: false, value };
}

export function readSyncState(value: Buffer | undefined): SyncState | undefined {
  return readValue(value, (reader) => {
    reader.enter(berTags.sequence);
    const state = syncStates[reader.integer(berTags.enumerated)];
    if (state === undefined) throw new BerError('unknown sync state');
    const uuid = uuidFromBytes(reader.octets());
    return { state, uuid, cookie: reader.peekTag() === berTags.octets ? reader.octets() : undefined };
  });
}

/** RFC 4533 §2.4. */
export interface SyncDone {
  readonly cookie: Buffer | undefined;
  readonly refreshDeletes: boolean;
}

export function makeSyncDone(done: SyncDone): Control {
  const value = sequence(() => {
    if (done.cookie !== undefined) writer.octets(done.cookie);
    if (done.refreshDeletes) writer.boolean(true);
  });
  return { oid: controlOids.syncDone, critical: false, value };
}

export function readSyncDone(value: Buffer | undefined): SyncDone | undefined {
  return readValue(value, (reader) => {
    reader.enter(berTags.sequence);
    const cookie = reader.peekTag() === berTags.octets ? reader.octets() : undefined;
    return { cookie, refreshDeletes: reader.peekTag() === berTags.boolean ? reader.boolean() : false };
  });
}

/** RFC 4533 §2.5, the value of an intermediate response. */
export type SyncInfo =
  | { readonly kind: 'newCookie'; readonly cookie: Buffer }
  /** A phase ends (`refreshDone`: the whole refresh does). */
  | { readonly kind: 'refreshDelete' | 'refreshPresent'; readonly cookie: Buffer | undefined; readonly refreshDone: boolean }
  | {
      readonly kind: 'syncIdSet';
      readonly cookie: Buffer | undefined;
      readonly refreshDeletes: boolean;
      readonly uuids: Uuids;
    };

/** Some UUIDs, perhaps a million: gone through one by one, never all as text at a time. */
export interface Uuids extends Iterable<string> {
  readonly length: number;
}

/** Those of a set as it came. */
class ReceivedUuids implements Uuids {
  readonly length: number;
  readonly #octets: Buffer;

  /** Throws `BerError` where it holds anything else. */
  constructor(octets: Buffer) {
    this.#octets = octets;
    let count = 0;
    for (const reader = new BerReader(octets); reader.hasMore(); count += 1) checkUuid(reader.octets());
    this.length = count;
  }

  *[Symbol.iterator](): Generator<string, void, undefined> {
    for (const reader = new BerReader(this.#octets); reader.hasMore(); ) yield uuidFromBytes(reader.octets());
  }
}

/** The value of the intermediate response whose OID is `controlOids.syncInfo`. */
export function encodeSyncInfo(info: SyncInfo): Buffer {
  if (info.kind === 'newCookie') {
    writer.octets(info.cookie, 0x80);
    return writer.take();
  }
  const opened = writer.open(info.kind === 'refreshDelete' ? 0xa1 : info.kind === 'refreshPresent' ? 0xa2 : 0xa3);
  if (info.cookie !== undefined) writer.octets(info.cookie);
  if (info.kind === 'syncIdSet') {
    if (info.refreshDeletes) writer.boolean(true);
    const set = writer.open(berTags.set);
    for (const uuid of info.uuids) writer.octets(uuidToBytes(uuid));
    writer.close(set);
  } else if (!info.refreshDone) {
    writer.boolean(false);
  }
  writer.close(opened);
  return writer.take();
}

export function readSyncInfo(value: Buffer | undefined): SyncInfo | undefined {
  return readValue(value, (reader): SyncInfo => {
    const tag = reader.peekTag();
    if (tag === 0x80) return { kind: 'newCookie', cookie: reader.octets(tag) };
    if (tag !== 0xa1 && tag !== 0xa2 && tag !== 0xa3) throw new BerError('unknown sync info');
    reader.enter(tag);
    const cookie = reader.peekTag() === berTags.octets ? reader.octets() : undefined;
    const flag = reader.peekTag() === berTags.boolean ? reader.boolean() : undefined;
    if (tag !== 0xa3) return { kind: tag === 0xa1 ? 'refreshDelete' : 'refreshPresent', cookie, refreshDone: flag ?? true };
    return { kind: 'syncIdSet', cookie, refreshDeletes: flag ?? false, uuids: new ReceivedUuids(reader.octets(berTags.set)) };
  });
}

/** The operation happens only while `filter` is true of its entry. */
export function makeAssertion(filter: Filter): Control {
  writeFilter(writer, filter);
  return { oid: controlOids.assertion, critical: true, value: writer.take() };
}

export function readAssertion(value: Buffer | undefined): Filter | undefined {
  return readValue(value, readFilter);
}

/** Asks for these attributes of the entry as it was before (`preRead`) or is after (`postRead`) the operation. */
export function makeReadEntry(which: 'preRead' | 'postRead', attributes: readonly string[], critical = false): Control {
  const value = sequence(() => {
    for (const name of attributes) writer.text(name);
  });
  return { oid: controlOids[which], critical, value };
}

/** Names that a `preRead` or `postRead` request asks for. */
export function readReadEntryRequest(value: Buffer | undefined): readonly string[] | undefined {
  return readValue(value, (reader) => {
    const names: string[] = [];
    reader.enter(berTags.sequence);
    while (reader.hasMore()) names.push(reader.text());
    return names;
  });
}

/** An entry as these controls' responses carry it. */
export interface ReadEntry {
  readonly dn: string;
  readonly attributes: readonly Attribute[];
}

export function makeReadEntryResponse(which: 'preRead' | 'postRead', entry: ReadEntry): Control {
  // RFC 4527 §3.1: the value is a SearchResultEntry; servers differ on whether its tag is [APPLICATION 4], which is what BER asks for.
  const opened = writer.open(operationTags.searchResultEntry);
  writer.text(entry.dn);
  const all = writer.open(berTags.sequence);
  for (const attribute of entry.attributes) {
    const one = writer.open(berTags.sequence);
    writer.text(attribute.type);
    const values = writer.open(berTags.set);
    for (const value of attribute.values) writer.octets(value);
    writer.close(values);
    writer.close(one);
  }
  writer.close(all);
  writer.close(opened);
  return { oid: controlOids[which], critical: false, value: writer.take() };
}

export function readReadEntryResponse(value: Buffer | undefined): ReadEntry | undefined {
  return readValue(value, (reader) => {
    // OpenLDAP sends a plain SEQUENCE.
    reader.enter(reader.peekTag() === berTags.sequence ? berTags.sequence : operationTags.searchResultEntry);
    const dn = reader.text();
    const attributes: Attribute[] = [];
    reader.enter(berTags.sequence);
    while (reader.hasMore()) {
      const one = reader.enter(berTags.sequence);
      const type = reader.text();
      const values: Buffer[] = [];
      const set = reader.enter(berTags.set);
      while (reader.hasMore()) values.push(reader.octets());
      reader.leave(set);
      reader.leave(one);
      attributes.push({ type, values });
    }
    return { dn, attributes };
  });
}

/** Sixteen octets of a UUID in text form (RFC 4530 §2.1); text that is none gives zeros. */
export function uuidToBytes(uuid: string): Buffer {
  const bytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  return bytes.length === 16 ? bytes : Buffer.alloc(16);
}

/** Lower case text with hyphens of sixteen octets; throws `BerError` for another count. */
export function uuidFromBytes(bytes: Buffer): string {
  checkUuid(bytes);
  const h = bytes.toString('hex');
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`;
}

function checkUuid(bytes: Buffer): void {
  if (bytes.length !== 16) throw new BerError(`a UUID of ${bytes.length} octets`);
}
