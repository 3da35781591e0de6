/**
 * A directory server of the simulator: entries in memory, LDAP on the simulated network, RFC 4533 on the master. It stores what it answers,
 * so an answered write survives its restart. As a replica it takes `entryUUID` and `entryCSN` with the relax control and asserts (RFC 4528), and
 * has no batches: each step of the replication is a write of its own, and can be seen. It keeps the lease of
 * whoever writes it and refuses writes with a lower number, as ours do.
 */
import type { Connection } from '#common/network/network.ts';
import { type AuthorityRequest, authorityOid, fenceOid, readFence } from '#directory/client/authority.ts';
import {
  controlOids,
  encodeSyncInfo,
  findControl,
  makeSyncState,
  readAssertion,
  readSyncRequest,
  type SyncInfo,
} from '#protocol/ldap/controls.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { normalizeDnText, parseDn, splitDn } from '#protocol/ldap/dn.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import {
  type Attribute,
  attribute,
  type Control,
  type LdapMessage,
  type LdapOperation,
  type Modification,
  type SearchRequest,
} from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { type Machine, SimProcess } from '../machine.ts';
import type { SimNetwork } from '../network.ts';
import type { World } from '../world.ts';

const port = 389;
const suffix = 'o=mail';

/** An entry as it is now. `parent` is the UUID of the entry above. */
export interface SimEntry {
  uuid: string;
  rdn: string;
  parent: string | undefined;
  csn: string;
  attributes: Map<string, readonly string[]>;
}

/** A change of the master: what the entry became, or that it went. */
export interface SimChange {
  readonly csn: string;
  readonly uuid: string;
  readonly dn: string | undefined;
  readonly attributes: ReadonlyMap<string, readonly string[]>;
}

class Refused extends Error {
  readonly code: number;
  constructor(code: number, why: string) {
    super(why);
    this.code = code;
  }
}

/** See the header of this file. */
export class SimDirectoryServer {
  readonly machine: Machine;
  readonly entries = new Map<string, SimEntry>();
  /** Every change of the master, in order. */
  readonly log: SimChange[] = [];
  contextCsn = '';
  /** Changes before this place in the log are forgotten: cookies from there are refused. */
  forgottenUntil = 0;
  /** What is kept beside the tree. */
  readonly kept = new Map<string, string>();
  /** The latest cookie that left this server. */
  lastCookie: Buffer | undefined;
  /** Called after each write of a replica with the entry it was about. */
  onWrite: (uuid: string) => void = () => {};
  onContextCsn: (csn: string) => void = () => {};
  readonly #world: World;
  readonly #network: SimNetwork;
  readonly #followers = new Set<(change: SimChange) => void>();
  #process: SimProcess | undefined;

  constructor(world: World, network: SimNetwork, machine: Machine) {
    this.#world = world;
    this.#network = network;
    this.machine = machine;
  }

  get url(): string {
    return `ldap://${this.machine.host}:${port}`;
  }

  start(): void {
    const process = new SimProcess(this.machine);
    this.#process = process;
    void this.#network.portOf(process).listen({ host: this.machine.host, port }, (connection) => this.#serve(connection));
  }

  stop(): void {
    this.#process?.die();
    this.#process = undefined;
    this.#followers.clear();
  }

  get isRunning(): boolean {
    return this.#process !== undefined;
  }

  // --- the master's own writes

  nextCsn(): string {
    const number = this.log.length + 1;
    return `20260101000000.${String(number).padStart(6, '0')}Z#000000#000#000000`;
  }

  /** Makes a change as a client of the master would; what cannot be is left out. */
  change(change: { uuid: string; rdn?: string; parent?: string; description?: string; isRemoved?: boolean }): boolean {
    const csn = this.nextCsn();
    const present = this.entries.get(change.uuid);
    const parent = change.parent ?? present?.parent;
    const rdn = change.rdn ?? present?.rdn ?? '';
    if (change.isRemoved === true) {
      if (present === undefined || this.#childrenOf(change.uuid).length > 0) return false;
      this.entries.delete(change.uuid);
    } else {
      const holder = this.#byRdn(parent, rdn);
      if (holder !== undefined && holder.uuid !== change.uuid) return false;
      const attributes = new Map(present?.attributes ?? [['objectclass', ['top', 'organizationalRole']]]);
      const [naming] = parseDn(rdn)?.[0] ?? [];
      attributes.set(naming?.type.toLowerCase() ?? 'cn', [naming?.value ?? '']);
      if (change.description !== undefined) attributes.set('description', [change.description]);
      this.entries.set(change.uuid, { uuid: change.uuid, rdn, parent, csn, attributes });
    }
    const entry = this.entries.get(change.uuid);
    const made: SimChange = {
      csn,
      uuid: change.uuid,
      dn: entry === undefined ? undefined : this.dnOf(entry),
      attributes: new Map(entry?.attributes ?? []),
    };
    this.log.push(made);
    this.contextCsn = csn;
    for (const tell of this.#followers) tell(made);
    return true;
  }

  dnOf(entry: SimEntry): string {
    const parent = entry.parent === undefined ? undefined : this.entries.get(entry.parent);
    return parent === undefined ? entry.rdn : `${entry.rdn},${this.dnOf(parent)}`;
  }

  // --- LDAP

  #serve(connection: Connection): void {
    const decoder = new LdapDecoder({ messageBytesMax: 1_000_000 });
    const send = (id: number, operation: LdapOperation, controls: readonly Control[] = []): void => {
      connection.write(encodeMessage({ id, operation, controls }));
    };
    const over: (() => void)[] = [];
    connection.handle({
      data: (chunk) => {
        decoder.push(chunk);
        for (let next = decoder.next(); next.outcome === 'message'; next = decoder.next()) this.#answer(next.message, send, over);
      },
      end: () => connection.end(),
      close: () => {
        for (const end of over) end();
      },
    });
  }

  #answer(
    message: LdapMessage,
    send: (id: number, operation: LdapOperation, controls?: readonly Control[]) => void,
    over: (() => void)[],
  ): void {
    const { id, operation, controls } = message;
    const done = (code = 0, text = '') => ({ resultCode: code, matchedDn: '', diagnosticMessage: text });
    const attempt = (type: 'addResponse' | 'modifyResponse' | 'modifyDnResponse' | 'deleteResponse', work: () => string): void => {
      try {
        const fence = readFence(findControl(controls, fenceOid)?.value);
        if (fence !== undefined && fence.lease !== Number.parseInt(this.kept.get('lease') ?? '0', 10)) {
          throw new Refused(resultCodes.unavailable, 'another connection writes here');
        }
        const uuid = work();
        // Stored before it is answered.
        if (uuid !== '') this.onWrite(uuid);
        send(id, { type, ...done() });
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        send(id, { type, ...done(error.code, error.message) });
      }
    };
    switch (operation.type) {
      case 'bindRequest':
        send(id, { type: 'bindResponse', ...done() });
        return;
      case 'searchRequest':
        if (findControl(controls, controlOids.syncRequest) !== undefined) this.#follow(id, controls, send, over);
        else this.#search(id, operation, send);
        return;
      case 'extendedRequest':
        send(id, { type: 'extendedResponse', ...done(), oid: undefined, value: this.#authority(operation.value) });
        return;
      case 'addRequest':
        attempt('addResponse', () => this.#add(operation.dn, operation.attributes));
        return;
      case 'modifyRequest':
        attempt('modifyResponse', () => this.#modify(operation.dn, operation.changes, controls));
        return;
      case 'modifyDnRequest':
        attempt('modifyDnResponse', () => this.#rename(operation, controls));
        return;
      case 'deleteRequest':
        attempt('deleteResponse', () => this.#delete(operation.dn, controls));
        return;
      default:
    }
  }

  #authority(value: Buffer | undefined): Buffer {
    const request = JSON.parse(value?.toString('utf8') ?? '{}') as AuthorityRequest;
    let isDone = true;
    if (request.op === 'keep') {
      isDone = Object.entries(request.expect ?? {}).every(([name, wanted]) => (this.kept.get(name) ?? null) === wanted);
      if (isDone) for (const [name, text] of Object.entries(request.set)) this.kept.set(name, text ?? '');
    }
    return Buffer.from(JSON.stringify({ kept: Object.fromEntries(this.kept), isDone }));
  }

  #search(id: number, request: SearchRequest, send: (id: number, operation: LdapOperation) => void): void {
    const result = (code: number): void => send(id, { type: 'searchResultDone', resultCode: code, matchedDn: '', diagnosticMessage: '' });
    if (request.baseDn === '') {
      const root = [attribute('supportedControl', controlOids.assertion), attribute('supportedExtension', authorityOid)];
      send(id, { type: 'searchResultEntry', dn: '', attributes: root });
      result(0);
      return;
    }
    const base = this.#find(request.baseDn);
    if (base === undefined) {
      result(resultCodes.noSuchObject);
      return;
    }
    for (const entry of this.entries.values()) {
      const isThere = request.scope === 'base' ? entry === base : request.scope === 'one' ? entry.parent === base.uuid : true;
      if (!isThere || !this.#matches(entry, request.filter)) continue;
      send(id, { type: 'searchResultEntry', dn: this.dnOf(entry), attributes: this.#shown(entry) });
    }
    result(0);
  }

  #follow(
    id: number,
    controls: readonly Control[],
    send: (id: number, operation: LdapOperation, controls?: readonly Control[]) => void,
    over: (() => void)[],
  ): void {
    const cookie = readSyncRequest(findControl(controls, controlOids.syncRequest)?.value)?.cookie;
    const makeCookie = (csn: string): Buffer => {
      this.lastCookie = Buffer.from(`rid=000,csn=${csn}`);
      return this.lastCookie;
    };
    const info = (value: SyncInfo): void =>
      send(id, { type: 'intermediateResponse', oid: controlOids.syncInfo, value: encodeSyncInfo(value) });
    const put = (entry: SimEntry, state: 'add' | 'modify', csn: string | undefined): void =>
      send(id, { type: 'searchResultEntry', dn: this.dnOf(entry), attributes: this.#shown(entry) }, [
        makeSyncState({ state, uuid: entry.uuid, cookie: csn === undefined ? undefined : makeCookie(csn) }),
      ]);
    const from = /csn=([^,]+)/.exec(cookie?.toString('latin1') ?? '')?.[1];
    if (from !== undefined) {
      const at = this.log.findIndex((one) => one.csn > from);
      if (at >= 0 && at < this.forgottenUntil) {
        send(id, {
          type: 'searchResultDone',
          resultCode: 4096,
          matchedDn: '',
          diagnosticMessage: 'the session log does not reach back so far',
        });
        return;
      }
      const changed = new Set((at < 0 ? [] : this.log.slice(at)).map((one) => one.uuid));
      const gone = [...changed].filter((uuid) => !this.entries.has(uuid));
      if (gone.length > 0) info({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: true, uuids: gone });
      for (const uuid of changed) {
        const entry = this.entries.get(uuid);
        if (entry !== undefined) put(entry, 'add', undefined);
      }
      info({ kind: 'refreshDelete', cookie: makeCookie(this.contextCsn), refreshDone: true });
    } else {
      for (const entry of this.entries.values()) put(entry, 'add', undefined);
      info({ kind: 'refreshPresent', cookie: makeCookie(this.contextCsn), refreshDone: true });
    }
    const tell = (change: SimChange): void => {
      const entry = this.entries.get(change.uuid);
      // An entry is sent as it is when its turn comes.
      if (entry !== undefined) put(entry, this.log.find((one) => one.uuid === change.uuid) === change ? 'add' : 'modify', change.csn);
      else {
        send(id, { type: 'searchResultEntry', dn: change.dn ?? '', attributes: [] }, [
          makeSyncState({ state: 'delete', uuid: change.uuid, cookie: makeCookie(change.csn) }),
        ]);
      }
    };
    this.#followers.add(tell);
    over.push(() => this.#followers.delete(tell));
  }

  #add(dn: string, given: readonly Attribute[]): string {
    const attributes = new Map(given.map((one) => [one.type.toLowerCase(), one.values.map((value) => value.toString('utf8'))] as const));
    const uuid = attributes.get('entryuuid')?.[0] ?? this.#world.chance.port().uuid();
    const csn = attributes.get('entrycsn')?.[0] ?? '';
    const split = splitDn(dn);
    const isSuffix = normalizeDnText(dn) === suffix;
    const parent = isSuffix ? undefined : this.#find(split?.parent ?? '');
    if (!isSuffix && parent === undefined) throw new Refused(resultCodes.noSuchObject, `no parent of ${dn}`);
    if (this.#find(dn) !== undefined) throw new Refused(resultCodes.entryAlreadyExists, dn);
    if (this.entries.has(uuid)) throw new Refused(resultCodes.constraintViolation, `entryUUID ${uuid} is taken`);
    for (const type of ['entryuuid', 'entrycsn']) attributes.delete(type);
    this.entries.set(uuid, { uuid, rdn: isSuffix ? dn : (split?.rdn ?? ''), parent: parent?.uuid, csn, attributes: new Map(attributes) });
    return uuid;
  }

  #modify(dn: string, changes: readonly Modification[], controls: readonly Control[]): string {
    const entry = this.#require(dn, controls);
    for (const { attribute: one } of changes) {
      const type = one.type.toLowerCase();
      const values = one.values.map((value) => value.toString('utf8'));
      if (type === 'contextcsn') {
        this.contextCsn = values[0] ?? '';
        this.onContextCsn(this.contextCsn);
        if (changes.length === 1) return '';
      } else if (type === 'entrycsn') entry.csn = values[0] ?? '';
      else if (type === 'entryuuid') {
        this.entries.delete(entry.uuid);
        for (const below of this.#childrenOf(entry.uuid)) below.parent = values[0];
        entry.uuid = values[0] ?? '';
        this.entries.set(entry.uuid, entry);
      } else if (values.length === 0) entry.attributes.delete(type);
      else entry.attributes.set(type, values);
    }
    return entry.uuid;
  }

  #rename(
    operation: { dn: string; newRdn: string; deleteOldRdn: boolean; newSuperior: string | undefined },
    controls: readonly Control[],
  ): string {
    const entry = this.#require(operation.dn, controls);
    const parent = operation.newSuperior === undefined ? entry.parent : this.#find(operation.newSuperior)?.uuid;
    if (operation.newSuperior !== undefined && parent === undefined) throw new Refused(resultCodes.noSuchObject, operation.newSuperior);
    const holder = this.#byRdn(parent, operation.newRdn);
    if (holder !== undefined && holder !== entry) throw new Refused(resultCodes.entryAlreadyExists, operation.newRdn);
    entry.rdn = operation.newRdn;
    entry.parent = parent;
    const [naming] = parseDn(operation.newRdn)?.[0] ?? [];
    if (naming !== undefined) entry.attributes.set(naming.type.toLowerCase(), [naming.value]);
    return entry.uuid;
  }

  #delete(dn: string, controls: readonly Control[]): string {
    const entry = this.#require(dn, controls);
    if (this.#childrenOf(entry.uuid).length > 0) throw new Refused(resultCodes.notAllowedOnNonLeaf, dn);
    this.entries.delete(entry.uuid);
    return entry.uuid;
  }

  #require(dn: string, controls: readonly Control[]): SimEntry {
    const entry = this.#find(dn);
    if (entry === undefined) throw new Refused(resultCodes.noSuchObject, dn);
    const asserted = findControl(controls, controlOids.assertion);
    const filter = asserted === undefined ? undefined : readAssertion(asserted.value);
    if (filter !== undefined && !this.#matches(entry, filter)) throw new Refused(resultCodes.assertionFailed, dn);
    return entry;
  }

  #find(dn: string): SimEntry | undefined {
    const wanted = normalizeDnText(dn);
    for (const entry of this.entries.values()) if (normalizeDnText(this.dnOf(entry)) === wanted) return entry;
    return undefined;
  }

  #byRdn(parent: string | undefined, rdn: string): SimEntry | undefined {
    const wanted = normalizeDnText(rdn);
    for (const entry of this.entries.values()) if (entry.parent === parent && normalizeDnText(entry.rdn) === wanted) return entry;
    return undefined;
  }

  #childrenOf(uuid: string): SimEntry[] {
    return [...this.entries.values()].filter((entry) => entry.parent === uuid);
  }

  #shown(entry: SimEntry): Attribute[] {
    const shown = [...entry.attributes].map(([type, values]) => attribute(type, ...values));
    shown.push(attribute('entryUUID', entry.uuid), attribute('entryCSN', entry.csn));
    if (entry.parent === undefined && this.contextCsn !== '') shown.push(attribute('contextCSN', this.contextCsn));
    return shown;
  }

  #matches(entry: SimEntry, filter: Filter): boolean {
    switch (filter.kind) {
      case 'and':
        return filter.filters.every((one) => this.#matches(entry, one));
      case 'or':
        return filter.filters.some((one) => this.#matches(entry, one));
      case 'not':
        return !this.#matches(entry, filter.filter);
      case 'present':
        return filter.attribute.toLowerCase() === 'objectclass' || entry.attributes.has(filter.attribute.toLowerCase());
      case 'equal': {
        const wanted = filter.value.toString('utf8').toLowerCase();
        const type = filter.attribute.toLowerCase();
        if (type === 'entryuuid') return entry.uuid === wanted;
        return entry.attributes.get(type)?.some((value) => value.toLowerCase() === wanted) ?? false;
      }
      default:
        return false;
    }
  }
}
