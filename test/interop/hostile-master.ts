/** A master on a real socket that sends what a test tells it to, right or wrong. What it is asked besides it answers from its entries. */
import { createServer, type Server, type Socket } from 'node:net';
import { Secret } from '#common/secret.ts';
import { controlOids, encodeSyncInfo, findControl, makeSyncState, readSyncRequest, type SyncInfo } from '#protocol/ldap/controls.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { formatFilter } from '#protocol/ldap/filter.ts';
import { type Attribute, attribute, type Control, type LdapMessage, type LdapResponse } from '#protocol/ldap/messages.ts';

const success = { resultCode: 0, matchedDn: '', diagnosticMessage: '' };

/** An entry that the master has. */
export interface HostileEntry {
  readonly uuid: string;
  readonly dn: string;
  readonly attributes: readonly Attribute[];
}

/** A UUID by number. */
export const uuidOf = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;

/** The CSN of a change by number. */
export const csnOf = (n: number): string => `20260101000000.${String(n).padStart(6, '0')}Z#000000#001#000000`;

/** A cookie as slapd makes it. */
export const cookieOf = (n: number): Buffer => Buffer.from(`rid=000,csn=${csnOf(n)}`);

/** The entry of the suffix. */
export function suffixEntry(): HostileEntry {
  return entryOf(1, 'o=mail', [attribute('objectClass', 'top', 'organization'), attribute('o', 'mail')]);
}

/** One of the entries below it, by number. */
export function roleEntry(n: number, dn = `cn=a${n},o=mail`, description = 'as it was'): HostileEntry {
  const name = /^cn=([^,]*)/.exec(dn)?.[1] ?? '';
  return entryOf(n, dn, [
    attribute('objectClass', 'top', 'organizationalRole'),
    attribute('cn', name),
    attribute('description', description),
  ]);
}

function entryOf(n: number, dn: string, attributes: readonly Attribute[]): HostileEntry {
  const uuid = uuidOf(n);
  const stamps = ['create', 'modify'].map((what) => attribute(`${what}Timestamp`, '20260101000000Z'));
  const names = ['creators', 'modifiers'].map((what) => attribute(`${what}Name`, 'cn=root,o=mail'));
  const known = [attribute('entryUUID', uuid), attribute('entryCSN', csnOf(n))];
  return { uuid, dn, attributes: [...attributes, ...known, ...stamps, ...names] };
}

/** One search that persists. */
export class HostileStream {
  readonly cookie: Buffer | undefined;
  readonly socket: Socket;
  readonly #id: number;

  constructor(socket: Socket, message: LdapMessage) {
    this.socket = socket;
    this.#id = message.id;
    this.cookie = readSyncRequest(findControl(message.controls, controlOids.syncRequest)?.value)?.cookie;
  }

  send(operation: LdapResponse, controls: readonly Control[] = []): void {
    this.socket.write(encodeMessage({ id: this.#id, operation, controls }));
  }

  entry(entry: HostileEntry, state: 'add' | 'modify' | 'delete' = 'add', cookie?: Buffer): void {
    const { uuid, dn, attributes } = entry;
    const shown = state === 'delete' ? [] : attributes;
    this.send({ type: 'searchResultEntry', dn, attributes: shown }, [makeSyncState({ state, uuid, cookie })]);
  }

  info(info: SyncInfo): void {
    this.send({ type: 'intermediateResponse', oid: controlOids.syncInfo, value: encodeSyncInfo(info) });
  }

  refreshed(cookie: Buffer | undefined, kind: 'refreshDelete' | 'refreshPresent' = 'refreshDelete'): void {
    this.info({ kind, cookie, refreshDone: true });
  }

  end(resultCode: number): void {
    this.send({ type: 'searchResultDone', ...success, resultCode });
  }
}

/** See the header of this file. */
export class HostileMaster implements AsyncDisposable {
  readonly rootDn = 'cn=root,o=mail';
  readonly rootPassword = new Secret('root-secret');
  entries: readonly HostileEntry[] = [];
  /** Told by the suffix entry, where set. */
  contextCsn: string | undefined;
  /** What it does with a search that persists. */
  onStream: (stream: HostileStream) => void = () => {};
  readonly streams: HostileStream[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<HostileMaster> {
    const server = createServer({ noDelay: true });
    const master = new HostileMaster(server);
    server.on('connection', (socket) => master.#accept(socket));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return master;
  }

  get url(): string {
    return `ldap://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** The stream that was asked for last. */
  get stream(): HostileStream {
    const last = this.streams.at(-1);
    if (last === undefined) throw new Error('nobody has asked for a stream');
    return last;
  }

  /** Ends every connection. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => {});
    const decoder = new LdapDecoder({ messageBytesMax: 4_000_000 });
    socket.on('data', (chunk: Buffer) => {
      decoder.push(chunk);
      for (let next = decoder.next(); next.outcome === 'message'; next = decoder.next()) this.#answer(socket, next.message);
    });
  }

  #answer(socket: Socket, message: LdapMessage): void {
    const { id, operation } = message;
    const send = (answer: LdapResponse): void => {
      socket.write(encodeMessage({ id, operation: answer, controls: [] }));
    };
    if (operation.type === 'bindRequest') send({ type: 'bindResponse', ...success });
    if (operation.type !== 'searchRequest') return;
    if (findControl(message.controls, controlOids.syncRequest) !== undefined) {
      const stream = new HostileStream(socket, message);
      this.streams.push(stream);
      this.onStream(stream);
      return;
    }
    const filter = formatFilter(operation.filter).toLowerCase();
    const found = this.entries.filter((entry) => isMeant(entry, operation.baseDn, operation.scope, filter));
    const isMissing = operation.baseDn !== '' && !this.entries.some(({ dn }) => dn === operation.baseDn);
    for (const { dn, attributes } of found) {
      const shown =
        dn === 'o=mail' && this.contextCsn !== undefined ? [...attributes, attribute('contextCSN', this.contextCsn)] : attributes;
      send({ type: 'searchResultEntry', dn, attributes: shown });
    }
    send({ type: 'searchResultDone', ...success, resultCode: isMissing ? 32 : 0 });
  }
}

function isMeant({ dn, uuid }: HostileEntry, baseDn: string, scope: string, filter: string): boolean {
  if (scope === 'base') return dn === baseDn;
  return dn.endsWith(baseDn) && (!filter.includes('entryuuid=') || filter.includes(uuid));
}
