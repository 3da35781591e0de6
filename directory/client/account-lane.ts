/**
 * The short way for entries of accounts during a refresh: from the octets of the message to what routing needs, with no object between.
 * A directory of millions consists of entries that look the same; each of them is
 *
 *   uid=local,<a DN seen before>   objectClass, one hostServer seen before, mail …   state control: add or modify, without a cookie
 *
 * Whatever is not exactly that is left to the ordinary way (parse.ts, records-from-entry.ts), which also has the words for what is wrong
 * with it. So nothing here is an error; `take` says whether it took the entry.
 */
import { isUtf8 } from 'node:buffer';
import { type AccountName, domainOf, tryParseAccountName } from '#common/account-name.ts';
import { type ClusterName, tryParseClusterName } from '#common/host-server.ts';
import type { AttributeNames } from '#directory/client/attribute-names.ts';
import { accountNameOf } from '#directory/client/records-from-entry.ts';
import { berTags, lengthContentStart, readLength } from '#protocol/ldap/ber.ts';
import { controlOids } from '#protocol/ldap/controls.ts';
import { operationTags } from '#protocol/ldap/messages.ts';

/** What is told of an account; `addresses`: see `AccountRecord`. */
export type RouteSink = (name: AccountName, hostServer: ClusterName, addresses: readonly AccountName[]) => void;

/** Domains' DNs and clusters that are remembered; more than that begin anew. */
const rememberedMax = 100_000;
const localPartMax = 64;
const noAddresses: readonly AccountName[] = [];
/** Never added to. */
const nothing = new Set<AccountName>();
const stateOid = Buffer.from(controlOids.syncState);

/** See the header of this file. */
export class AccountLane {
  readonly #names: AttributeNames;
  readonly #sink: RouteSink;
  readonly #rdnStart: Buffer;
  readonly #types: { readonly objectClass: Buffer; readonly accountClass: Buffer; readonly hostServer: Buffer };
  readonly #addressTypes: readonly Buffer[];
  /** What follows the first comma of a DN, to `@domain`. */
  readonly #domains = new Map<string, string>();
  readonly #clusters = new Map<string, ClusterName>();
  #lastRest = Buffer.alloc(0);
  #lastDomain = '';
  #at = 0;

  constructor(names: AttributeNames, sink: RouteSink) {
    this.#names = names;
    this.#sink = sink;
    const folded = (text: string): Buffer => Buffer.from(text.toLowerCase());
    this.#rdnStart = folded(`${names.uid}=`);
    this.#types = { objectClass: folded('objectClass'), accountClass: folded(names.accountClass), hostServer: folded(names.hostServer) };
    this.#addressTypes = [folded(names.mail), folded(names.mailAlternateAddress)];
  }

  /** Takes the whole message in `bytes[start, end)` if it is the entry of an account like most. */
  take(bytes: Buffer, start: number, end: number): boolean {
    this.#at = start;
    if (this.#enter(bytes, berTags.sequence, end) !== end) return false;
    const idEnd = this.#enter(bytes, berTags.integer, end);
    if (idEnd <= this.#at || idEnd > this.#at + 4 || (bytes[this.#at] as number) >= 0x80) return false;
    this.#at = idEnd;
    const entryEnd = this.#enter(bytes, operationTags.searchResultEntry, end);
    if (entryEnd < 0) return false;
    const dnEnd = this.#enter(bytes, berTags.octets, entryEnd);
    const dnStart = this.#at;
    if (dnEnd < 0) return false;
    const localStart = dnStart + this.#rdnStart.length;
    const localEnd = this.#localEnd(bytes, dnStart, dnEnd);
    if (localEnd < 0) return false;
    const domain = this.#domainAt(bytes, localEnd + 1, dnEnd);
    if (domain === undefined) return false;
    this.#at = entryEnd;
    if (!this.#isPlainState(bytes, end)) return false;
    this.#at = dnEnd;
    const listEnd = this.#enter(bytes, berTags.sequence, entryEnd);
    if (listEnd !== entryEnd) return false;
    return this.#takeAttributes(bytes, listEnd, localStart, localEnd, domain);
  }

  #takeAttributes(bytes: Buffer, listEnd: number, localStart: number, localEnd: number, domain: string): boolean {
    let isAccount = false;
    let cluster: ClusterName | undefined;
    let addresses = nothing;
    let seen = 0;
    while (this.#at < listEnd) {
      const end = this.#enter(bytes, berTags.sequence, listEnd);
      if (end < 0) return false;
      const typeEnd = this.#enter(bytes, berTags.octets, end);
      const typeStart = this.#at;
      if (typeEnd < 0) return false;
      this.#at = typeEnd;
      const valuesEnd = this.#enter(bytes, berTags.set, end);
      if (valuesEnd !== end) return false;
      const which = this.#attributeAt(bytes, typeStart, typeEnd);
      // The ordinary way looks at the first of two with the same name.
      if ((seen & which) !== 0 || which === attributes.unreadable) return false;
      seen |= which;
      let values = 0;
      while (this.#at < valuesEnd) {
        const valueEnd = this.#enter(bytes, berTags.octets, valuesEnd);
        const valueStart = this.#at;
        if (valueEnd < 0) return false;
        this.#at = valueEnd;
        values += 1;
        if (which === attributes.objectClass) {
          isAccount ||= isFolded(bytes, valueStart, valueEnd, this.#types.accountClass);
        } else if (which === attributes.hostServer) {
          if (values > 1) return false;
          cluster = this.#clusterAt(bytes, valueStart, valueEnd);
        } else if (which !== 0 && !isName(bytes, valueStart, valueEnd, localStart, localEnd, domain)) {
          if (addresses === nothing) addresses = new Set();
          const address = tryParseAccountName(bytes.toString('utf8', valueStart, valueEnd));
          if (address !== undefined) addresses.add(address);
        }
      }
    }
    if (!isAccount || cluster === undefined) return false;
    const name = (bytes.toString('latin1', localStart, localEnd) + domain) as AccountName;
    addresses.delete(name);
    this.#sink(name, cluster, addresses.size === 0 ? noAddresses : [...addresses]);
    return true;
  }

  /** Goes into an element of this tag; where its content ends, or -1 when it is none or does not fit. */
  #enter(bytes: Buffer, tag: number, end: number): number {
    if (this.#at >= end || bytes[this.#at] !== tag) return -1;
    const first = bytes[this.#at + 1] as number;
    let length = first;
    let content = this.#at + 2;
    if (first >= 0x80) {
      try {
        length = readLength(bytes, this.#at + 1, end);
      } catch {
        // The ordinary way says what is wrong with it.
        return -1;
      }
      content = lengthContentStart();
    }
    const contentEnd = content + length;
    if (length < 0 || contentEnd > end) return -1;
    this.#at = content;
    return contentEnd;
  }

  /** Where the local part ends whose octets are the same in the name and in the DN, or -1. */
  #localEnd(bytes: Buffer, dnStart: number, dnEnd: number): number {
    const start = dnStart + this.#rdnStart.length;
    if (start >= dnEnd || !isFolded(bytes, dnStart, start, this.#rdnStart)) return -1;
    let at = start;
    for (; at < dnEnd; at += 1) {
      const code = bytes[at] as number;
      if (code === comma) break;
      if (isPlain[code] === 1) continue;
      // A dot stands between two other characters.
      if (code !== dot || at === start || at + 1 >= dnEnd || isPlain[bytes[at + 1] as number] !== 1) return -1;
    }
    return at === dnEnd || at === start || at - start > localPartMax ? -1 : at;
  }

  #domainAt(bytes: Buffer, start: number, end: number): string | undefined {
    const last = this.#lastRest;
    if (end - start === last.length && last.compare(bytes, start, end) === 0) return this.#lastDomain;
    const rest = bytes.toString('latin1', start, end);
    let domain = this.#domains.get(rest);
    if (domain === undefined) {
      if (!isUtf8(bytes.subarray(start, end))) return undefined;
      const example = accountNameOf(`${this.#names.uid}=a,${bytes.toString('utf8', start, end)}`, this.#names);
      if (example === undefined) return undefined;
      domain = `@${domainOf(example)}`;
      if (this.#domains.size >= rememberedMax) this.#domains.clear();
      this.#domains.set(rest, domain);
    }
    this.#lastRest = Buffer.from(bytes.subarray(start, end));
    this.#lastDomain = domain;
    return domain;
  }

  #clusterAt(bytes: Buffer, start: number, end: number): ClusterName | undefined {
    const text = bytes.toString('latin1', start, end);
    const known = this.#clusters.get(text);
    if (known !== undefined) return known;
    const cluster = tryParseClusterName(bytes.toString('utf8', start, end));
    if (cluster === undefined) return undefined;
    if (this.#clusters.size >= rememberedMax) this.#clusters.clear();
    this.#clusters.set(text, cluster);
    return cluster;
  }

  #attributeAt(bytes: Buffer, start: number, end: number): number {
    if (isFolded(bytes, start, end, this.#types.objectClass)) return attributes.objectClass;
    if (isFolded(bytes, start, end, this.#types.hostServer)) return attributes.hostServer;
    if (isFolded(bytes, start, end, this.#addressTypes[0] as Buffer)) return attributes.mail;
    if (isFolded(bytes, start, end, this.#addressTypes[1] as Buffer)) return attributes.alternate;
    for (let at = start; at < end; at += 1) if ((bytes[at] as number) >= 0x80) return attributes.unreadable;
    return 0;
  }

  /** Whether exactly one control is left, the state of an entry that was added or changed, without a cookie (RFC 4533 §2.2). */
  #isPlainState(bytes: Buffer, end: number): boolean {
    if (this.#enter(bytes, 0xa0, end) !== end) return false;
    if (this.#enter(bytes, berTags.sequence, end) !== end) return false;
    const oidEnd = this.#enter(bytes, berTags.octets, end);
    if (oidEnd < 0 || !isFolded(bytes, this.#at, oidEnd, stateOid)) return false;
    this.#at = oidEnd;
    if (bytes[this.#at] === berTags.boolean) {
      const flagEnd = this.#enter(bytes, berTags.boolean, end);
      if (flagEnd !== this.#at + 1) return false;
      this.#at = flagEnd;
    }
    if (this.#enter(bytes, berTags.octets, end) !== end) return false;
    if (this.#enter(bytes, berTags.sequence, end) !== end) return false;
    const stateEnd = this.#enter(bytes, berTags.enumerated, end);
    const state = bytes[this.#at];
    if (stateEnd !== this.#at + 1 || (state !== 1 && state !== 2)) return false;
    this.#at = stateEnd;
    return this.#enter(bytes, berTags.octets, end) === end && end - this.#at === 16;
  }
}

const attributes = { objectClass: 1, hostServer: 2, mail: 4, alternate: 8, unreadable: 16 } as const;
const comma = 0x2c;
const dot = 0x2e;
/** a–z, 0–9, hyphen and underscore: the same in a DN, in a name and in lower case. */
const isPlain = new Uint8Array(256);
for (const char of 'abcdefghijklmnopqrstuvwxyz0123456789-_') isPlain[char.charCodeAt(0)] = 1;

/** Whether these octets are the text, whatever the case of its letters; `text` is in lower case. */
function isFolded(bytes: Buffer, start: number, end: number, text: Buffer): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i += 1) {
    const code = bytes[start + i] as number;
    if ((code >= 0x41 && code <= 0x5a ? code | 0x20 : code) !== text[i]) return false;
  }
  return true;
}

function isName(bytes: Buffer, start: number, end: number, localStart: number, localEnd: number, domain: string): boolean {
  const local = localEnd - localStart;
  if (end - start !== local + domain.length) return false;
  for (let i = 0; i < local; i += 1) if (bytes[start + i] !== bytes[localStart + i]) return false;
  for (let i = 0; i < domain.length; i += 1) if (bytes[start + local + i] !== domain.charCodeAt(i)) return false;
  return true;
}
