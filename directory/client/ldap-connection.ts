/**
 * An LDAPv3 client connection (RFC 4511): requests are pipelined, answers are matched by message ID, what is asked in one turn of the
 * event loop leaves in one write.
 *
 * Whatever ends the connection ends every request on it with one error. A request that is not answered within `timeoutMs` is abandoned
 * and fails with `NET_TIMEOUT`; the connection goes on. A search hands its items out one by one; when its reader is slow the whole
 * connection stops reading, so long searches have a connection of their own.
 */
import type { Clock, Timer } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Connection, Network } from '#common/network/network.ts';
import type { Secret } from '#common/secret.ts';
import { Secret as SecretBox } from '#common/secret.ts';
import { errorFromResult } from '#directory/client/ldap-errors.ts';
import { type SearchItem, type SearchOptions, SearchStream } from '#directory/client/search-stream.ts';
import { BerWriter } from '#protocol/ldap/ber.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { writeOperation } from '#protocol/ldap/encode.ts';
import { imageBatchOid } from '#protocol/ldap/image-batch.ts';
import {
  type Attribute,
  type Control,
  extendedOids,
  type LdapMessage,
  type LdapRequest,
  type LdapResult,
  type Modification,
  type ModifyDnRequest,
  operationTags,
} from '#protocol/ldap/messages.ts';
import { plainSuccessId } from '#protocol/ldap/plain-success.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { parseLdapUrl } from '#protocol/ldap/url.ts';

/** Where and how to connect. */
export interface LdapConnectionOptions {
  /** `ldaps://`: TLS from the first byte. `ldap://`: StartTLS when `ca` is given, else in clear. */
  readonly url: string;
  /** PEM of the CA that the server's certificate must come from. */
  readonly ca?: string | undefined;
  /** Time for one answer, and for connecting; default 5 seconds. */
  readonly timeoutMs?: number;
  /** Largest message taken from the server; default 16 MiB. */
  readonly messageBytesMax?: number;
  /** Entries that are found keep their attributes as they came (`attributesBer`): for those who pass most of them on. */
  readonly entriesAreLazy?: boolean;
}

/** Answer to a request that is no search: success, or `compareTrue` and `compareFalse`. */
export interface LdapAnswer {
  readonly result: LdapResult;
  readonly controls: readonly Control[];
  /** Value of an extended response. */
  readonly value: Buffer | undefined;
}

/** What stands between a connection's user and its writes. */
export interface WriteGuard {
  /** Sent along with every write. */
  readonly controls: readonly Control[];
  /** Why a write must not be sent now; asked at the last moment. */
  refusal(): PlatformError | undefined;
}

/** Requests that may wait for their answer at a time; one more fails with `DIR_BUSY`. */
const outstandingMax = 10_000;

/** Who waits for an answer; one of the two is called, once. */
export interface AnswerTaker {
  /** What waits, for messages; else it is told from the request. */
  readonly what?: string;
  settle(answer: LdapAnswer): void;
  fail(error: PlatformError): void;
}

interface Pending {
  /** `undefined` where the taker says it: few of very many are ever named. */
  readonly what: string | undefined;
  readonly deadlineMs: number;
  readonly taker: AnswerTaker;
}

const plainSuccess: LdapAnswer = {
  result: { resultCode: resultCodes.success, matchedDn: '', diagnosticMessage: '', referrals: undefined },
  controls: [],
  value: undefined,
};

/** See the header of this file. */
export class LdapConnection implements AsyncDisposable {
  readonly url: string;
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #decoder: LdapDecoder;
  readonly #writer = new BerWriter();
  readonly #pending = new Map<number, Pending>();
  readonly #searches = new Map<number, SearchStream>();
  readonly #sweep: Timer;
  readonly #closed = Promise.withResolvers<PlatformError>();
  #flushPlanned = false;
  #lastId = 0;
  #lastHeardMs: number;
  /** Nothing is read because of us; what the server sends meanwhile is not seen. */
  #isPaused = false;
  /** When the message began that has come in part. */
  #unfinishedSinceMs: number | undefined;
  #error: PlatformError | undefined;
  #resting: Timer | undefined;
  #guard: WriteGuard | undefined;
  /** Of the search that has `takeEarly`. */
  #takeEarly: ((bytes: Buffer, from: number, to: number) => boolean) | undefined;

  private constructor(url: string, connection: Connection, clock: Clock, options: LdapConnectionOptions) {
    this.url = url;
    this.#connection = connection;
    this.#clock = clock;
    this.#timeoutMs = options.timeoutMs ?? 5000;
    this.#decoder = new LdapDecoder({
      messageBytesMax: options.messageBytesMax ?? 16_777_216,
      entriesAreLazy: options.entriesAreLazy ?? false,
    });
    this.#decoder.early = (bytes, from, to) => this.#takeEarly?.(bytes, from, to) === true || this.#takeSuccess(bytes, from, to);
    this.#lastHeardMs = clock.monotonicMs();
    this.#sweep = clock.every(Math.max(10, this.#timeoutMs / 4), () => this.#expire());
    connection.handle({
      data: (chunk) => this.#onData(chunk),
      close: (error) => this.#end(new PlatformError('NET_CLOSED', `${url} closed the connection${error ? `: ${messageOf(error)}` : ''}`)),
    });
  }

  /** Connects, with TLS where the options ask for it. Rejects with `NET_…`, `CONFIG_INVALID` or what the server says to StartTLS. */
  static async open(network: Network, clock: Clock, options: LdapConnectionOptions): Promise<LdapConnection> {
    const url = parseLdapUrl(options.url);
    if (url === undefined) {
      throw new PlatformError('CONFIG_INVALID', `"${options.url}" is no LDAP URL; expected ldap://host:port or ldaps://host:port`);
    }
    const host = url.host === '' ? '127.0.0.1' : url.host;
    const tls = { serverName: host, ...(options.ca === undefined ? {} : { ca: options.ca }) };
    const connection = await network.connect({
      host,
      port: url.port,
      timeoutMs: options.timeoutMs ?? 5000,
      ...(url.scheme === 'ldaps' ? { tls } : {}),
    });
    const ldap = new LdapConnection(options.url, connection, clock, options);
    if (url.scheme === 'ldaps' || options.ca === undefined) return ldap;
    try {
      await ldap.extended(extendedOids.startTls);
      if (connection.startTlsAsClient === undefined) throw new PlatformError('NET_TLS_FAILED', `${options.url} cannot be secured`);
      ldap.#decoder.discard();
      await connection.startTlsAsClient(tls);
      return ldap;
    } catch (error) {
      ldap.destroy();
      throw error;
    }
  }

  /** Whether requests can still be made. */
  get isOpen(): boolean {
    return this.#error === undefined;
  }

  /** Resolves, never rejects, with why the connection ended. */
  get closed(): Promise<PlatformError> {
    return this.#closed.promise;
  }

  /** Milliseconds since the last byte from the server; none while nothing is read. */
  get silentMs(): number {
    return this.#isPaused ? 0 : this.#clock.monotonicMs() - this.#lastHeardMs;
  }

  /** Milliseconds since the beginning of a message that has not come to its end; none while nothing is read. */
  get unfinishedMs(): number {
    return this.#isPaused || this.#unfinishedSinceMs === undefined ? 0 : this.#clock.monotonicMs() - this.#unfinishedSinceMs;
  }

  /**
   * Simple bind. An empty password is refused here: servers take it for an anonymous bind and answer success (RFC 4513 §5.1.2),
   * so that a wrong login would pass.
   */
  async bind(dn: string, password: Secret<string>): Promise<void> {
    const bytes = Buffer.from(password.reveal());
    if (dn === '' || bytes.length === 0) {
      throw new PlatformError('CONFIG_INVALID', `a bind to ${this.url} needs a DN and a password; one of them is empty`);
    }
    await this.request({
      type: 'bindRequest',
      version: 3,
      name: dn,
      authentication: { method: 'simple', password: new SecretBox(bytes) },
    });
  }

  /** Sends a request that has one answer and waits for it; a result that is no success rejects (see ldap-errors.ts). */
  request(
    operation: Exclude<LdapRequest, { type: 'searchRequest' | 'unbindRequest' | 'abandonRequest' }>,
    controls: readonly Control[] = [],
  ): Promise<LdapAnswer> {
    const what = describe(operation);
    return this.exchange(operation, controls).then((answer) => {
      const { resultCode } = answer.result;
      if (resultCode === resultCodes.success || resultCode === resultCodes.compareTrue || resultCode === resultCodes.compareFalse)
        return answer;
      throw errorFromResult(answer.result, what, this.url);
    });
  }

  /** Sends a request that has one answer and waits for it, whatever its result. */
  exchange(
    operation: Exclude<LdapRequest, { type: 'searchRequest' | 'unbindRequest' | 'abandonRequest' }>,
    controls: readonly Control[] = [],
  ): Promise<LdapAnswer> {
    return new Promise((settle, fail) => this.exchangeFor({ settle, fail }, operation, controls));
  }

  /** The same without a promise, for those who send very many. */
  exchangeFor(
    taker: AnswerTaker,
    operation: Exclude<LdapRequest, { type: 'searchRequest' | 'unbindRequest' | 'abandonRequest' }>,
    controls: readonly Control[],
  ): void {
    const guard = isWrite(operation) ? this.#guard : undefined;
    const all = guard === undefined || guard.controls.length === 0 ? controls : [...controls, ...guard.controls];
    const id = guard?.refusal() ?? this.#send(operation, all);
    if (typeof id !== 'number') taker.fail(id);
    else
      this.#pending.set(id, {
        what: 'what' in taker ? undefined : describe(operation),
        deadlineMs: this.#clock.monotonicMs() + this.#timeoutMs,
        taker,
      });
  }

  /** From now on every write is asked about and carries the guard's controls. */
  guardWrites(guard: WriteGuard | undefined): void {
    this.#guard = guard;
  }

  /** Starts a search; iterate over what it gives. Leaving the loop early abandons it. */
  search(search: SearchOptions, controls: readonly Control[] = []): SearchStream {
    const stream = new SearchStream(search, {
      clock: this.#clock,
      server: this.url,
      timeoutMs: search.timeoutMs ?? this.#timeoutMs,
      pause: () => this.#pause(),
      resume: () => this.#resume(),
      abandon: () => this.#abandonSearch(id),
    });
    const id = this.#send(stream.request, controls);
    if (typeof id !== 'number') stream.fail(id);
    else {
      this.#searches.set(id, stream);
      const { takeEarly, roomEarly } = search;
      if (takeEarly !== undefined) {
        const start = entryStart(id);
        let isHeld = false;
        this.#takeEarly = (bytes, from, to) => {
          if (!stream.isReadUp || !start(bytes, from) || !takeEarly(bytes, from, to)) return false;
          const room = isHeld ? undefined : roomEarly?.();
          if (room === undefined) return true;
          isHeld = true;
          this.#pause();
          void room.then(() => {
            isHeld = false;
            this.#resume();
          });
          return true;
        };
      }
    }
    return stream;
  }

  /** All entries of a search that is known to be small: `limit` bounds it. */
  async searchAll(search: SearchOptions, limit = 1000, controls: readonly Control[] = []): Promise<SearchEntry[]> {
    const entries: SearchEntry[] = [];
    for await (const item of this.search(search, controls)) {
      if (item.kind === 'entry') entries.push(item);
      if (entries.length >= limit) break;
    }
    return entries;
  }

  /** The entry of that name; `undefined` when there is none or it does not match. */
  async readEntry(dn: string, attributes: readonly string[], search: Partial<SearchOptions> = {}): Promise<SearchEntry | undefined> {
    try {
      return (await this.searchAll({ baseDn: dn, scope: 'base', attributes, ...search }, 1))[0];
    } catch (error) {
      if (error instanceof PlatformError && error.code === 'DIR_NOT_FOUND') return undefined;
      throw error;
    }
  }

  add(dn: string, attributes: readonly Attribute[], controls?: readonly Control[]): Promise<LdapAnswer> {
    return this.request({ type: 'addRequest', dn, attributes }, controls);
  }

  modify(dn: string, changes: readonly Modification[], controls?: readonly Control[]): Promise<LdapAnswer> {
    return this.request({ type: 'modifyRequest', dn, changes }, controls);
  }

  modifyDn(rename: Omit<ModifyDnRequest, 'type'>, controls?: readonly Control[]): Promise<LdapAnswer> {
    return this.request({ type: 'modifyDnRequest', ...rename }, controls);
  }

  delete(dn: string, controls?: readonly Control[]): Promise<LdapAnswer> {
    return this.request({ type: 'deleteRequest', dn }, controls);
  }

  extended(oid: string, value?: Buffer, writeValue?: (writer: BerWriter) => void): Promise<LdapAnswer> {
    return this.request({ type: 'extendedRequest', oid, value, ...(writeValue === undefined ? {} : { writeValue }) });
  }

  /** Reads nothing for so long: of many small answers that come meanwhile none wakes this process, and they are read at once. */
  rest(forMs: number): void {
    if (this.#error !== undefined || this.#resting !== undefined) return;
    this.#pause();
    this.#resting = this.#clock.after(forMs, () => {
      this.#resting = undefined;
      this.#resume();
    });
  }

  /** Drops the connection; every request on it fails. */
  destroy(why = 'the connection was given up here'): void {
    this.#end(new PlatformError('NET_CLOSED', `${this.url}: ${why}`));
    this.#connection.destroy();
  }

  /** Says good-bye (RFC 4511 §4.3) and closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#error !== undefined) return;
    this.#send({ type: 'unbindRequest' }, []);
    this.#flush();
    this.#end(new PlatformError('NET_CLOSED', `${this.url}: the connection was closed here`));
    this.#connection.end();
    this.#connection.resume();
  }

  #send(operation: LdapRequest, controls: readonly Control[]): number | PlatformError {
    if (this.#error !== undefined) return this.#error;
    if (this.#pending.size + this.#searches.size >= outstandingMax) {
      return new PlatformError('DIR_BUSY', `${outstandingMax} requests to ${this.url} wait for their answers already`);
    }
    // RFC 4511 §4.1.1.1: an ID must not be one of a request still under way; 0 is kept for the server's notices.
    do this.#lastId = this.#lastId === 0x7fffffff ? 1 : this.#lastId + 1;
    while (this.#pending.has(this.#lastId) || this.#searches.has(this.#lastId));
    writeOperation(this.#writer, this.#lastId, operation, controls);
    if (!this.#flushPlanned) {
      this.#flushPlanned = true;
      queueMicrotask(() => this.#flush());
    }
    return this.#lastId;
  }

  #flush(): void {
    this.#flushPlanned = false;
    if (this.#writer.length > 0) this.#connection.write(this.#writer.take());
  }

  #abandonSearch(id: number | PlatformError): void {
    if (typeof id !== 'number' || !this.#searches.delete(id)) return;
    this.#takeEarly = undefined;
    this.#send({ type: 'abandonRequest', abandonedId: id }, []);
    this.#resume();
  }

  #pause(): void {
    this.#isPaused = true;
    this.#connection.pause();
  }

  // Another search may still be full; it stops the connection again with its next item.
  #resume(): void {
    if (this.#isPaused) {
      this.#isPaused = false;
      // The silence was ours.
      this.#lastHeardMs = this.#clock.monotonicMs();
      if (this.#unfinishedSinceMs !== undefined) this.#unfinishedSinceMs = this.#lastHeardMs;
    }
    this.#connection.resume();
  }

  #onData(chunk: Buffer): void {
    this.#lastHeardMs = this.#clock.monotonicMs();
    const unread = this.#decoder.bufferedBytes + chunk.length;
    this.#decoder.push(chunk);
    for (;;) {
      const next = this.#decoder.next();
      if (next.outcome === 'needs-more') {
        const { bufferedBytes } = this.#decoder;
        if (bufferedBytes === 0) this.#unfinishedSinceMs = undefined;
        else if (bufferedBytes < unread || this.#unfinishedSinceMs === undefined) this.#unfinishedSinceMs = this.#lastHeardMs;
        return;
      }
      if (next.outcome !== 'message') {
        this.#end(new PlatformError('PROTO_SYNTAX', `${this.url} sent something that is no LDAP message: ${next.detail}`));
        this.#connection.destroy();
        return;
      }
      this.#onMessage(next.message, next.bytes);
      if (this.#error !== undefined) return;
    }
  }

  #takeSuccess(bytes: Buffer, from: number, to: number): boolean {
    const id = plainSuccessId(bytes, from, to);
    const pending = id === undefined ? undefined : this.#pending.get(id);
    if (id === undefined || pending === undefined) return false;
    this.#pending.delete(id);
    pending.taker.settle(plainSuccess);
    return true;
  }

  #onMessage({ id, operation, controls }: LdapMessage, bytes: number): void {
    const search = this.#searches.get(id);
    if (search !== undefined) {
      if (search.take(operation, controls, bytes)) this.#searches.delete(id);
      return;
    }
    if (operation.type === 'extendedResponse' && id === 0) {
      // RFC 4511 §4.4.1: the server says why before it hangs up. It is no answer to what was asked, which may be done or not.
      const { code, kind, message } = errorFromResult(operation, 'our connection (notice of disconnection)', this.url);
      this.#end(new PlatformError(kind === 'unavailable' ? 'NET_CLOSED' : code, message));
      this.#connection.destroy();
      return;
    }
    const pending = this.#pending.get(id);
    // The late answer to something abandoned.
    if (pending === undefined || operation.type === 'intermediateResponse') return;
    this.#pending.delete(id);
    if (!('resultCode' in operation)) {
      pending.taker.fail(new PlatformError('PROTO_SYNTAX', `${this.url} answered ${operation.type} to ${whatOf(pending)}`));
    } else {
      pending.taker.settle({ result: operation, controls, value: operation.type === 'extendedResponse' ? operation.value : undefined });
    }
  }

  #expire(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [id, pending] of this.#pending) {
      // Deadlines are in the order of the requests.
      if (pending.deadlineMs > nowMs) break;
      this.#pending.delete(id);
      this.#send({ type: 'abandonRequest', abandonedId: id }, []);
      pending.taker.fail(new PlatformError('NET_TIMEOUT', `${this.url} did not answer ${whatOf(pending)} within ${this.#timeoutMs} ms`));
    }
    for (const [id, search] of this.#searches) {
      if (!search.isOverdue(nowMs)) continue;
      this.#searches.delete(id);
      this.#send({ type: 'abandonRequest', abandonedId: id }, []);
      search.fail(new PlatformError('NET_TIMEOUT', `${this.url} did not answer ${search.what} in time`));
    }
  }

  #end(error: PlatformError): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#sweep.cancel();
    this.#resting?.cancel();
    for (const pending of this.#pending.values()) pending.taker.fail(error);
    this.#pending.clear();
    for (const search of this.#searches.values()) search.fail(error);
    this.#searches.clear();
    this.#closed.resolve(error);
  }
}

type SearchEntry = Extract<SearchItem, { kind: 'entry' }>;

/** Whether a message that starts there is an entry for the request of this ID, as far as its first octets tell. */
function entryStart(id: number): (bytes: Buffer, from: number) => boolean {
  const writer = new BerWriter();
  writer.integer(id);
  const wanted = Buffer.concat([writer.take(), Buffer.from([operationTags.searchResultEntry])]);
  return (bytes, from) => {
    const first = bytes[from + 1] as number;
    const at = from + 2 + (first < 0x80 ? 0 : first & 0x7f);
    for (let i = 0; i < wanted.length; i += 1) if (bytes[at + i] !== wanted[i]) return false;
    return true;
  };
}

function isWrite(operation: LdapRequest): boolean {
  return (
    operation.type === 'addRequest' ||
    operation.type === 'modifyRequest' ||
    operation.type === 'modifyDnRequest' ||
    operation.type === 'deleteRequest' ||
    (operation.type === 'extendedRequest' && operation.oid === imageBatchOid)
  );
}

function whatOf({ what, taker }: Pending): string {
  return what ?? taker.what ?? 'a request';
}

function describe(operation: LdapRequest): string {
  if (operation.type === 'bindRequest') return `a bind as "${operation.name}"`;
  if (operation.type === 'extendedRequest') return `extended operation ${operation.oid}`;
  if ('dn' in operation) return `${operation.type.replace('Request', '')} of "${operation.dn}"`;
  return operation.type;
}
