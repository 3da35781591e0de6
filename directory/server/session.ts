/**
 * One LDAP connection: bytes in, operations started in order, answers out, and the limits of both.
 *
 *   bytes ──► decoder ──► pump: one message after the other ──► dispatch ──► send ──► one write per turn
 *                          └ waits while: an exclusive operation runs (bind, StartTLS, a password being hashed),
 *                            too many operations are outstanding, or the client does not read its answers
 *
 * Order: an operation starts after all before it have started, so a child's add behind its parent's add finds the parent; answers come as
 * they are ready. A malformed or oversized message ends the connection with a notice of disconnection (RFC 4511 §4.4.1) and nothing else.
 */
import type { Clock } from '#common/clock.ts';
import { asPlatformError, messageOf } from '#common/errors/platform-error.ts';
import { ldapResultCodes } from '#common/errors/wire.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Connection, TlsServerOptions } from '#common/network/network.ts';
import { controlOids, findControl } from '#protocol/ldap/controls.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import {
  type Control,
  extendedOids,
  type LdapMessage,
  type LdapOperation,
  type LdapRequest,
  type LdapResult,
} from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { type AccessControl, anonymous, type Requester } from '../access/access.ts';
import type { View } from '../access/view.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Operation } from './operation.ts';
import { type OperationHost, RunningOperation } from './running-operation.ts';

/** Largest message before bind, bytes. */
export const messageBytesBeforeBind = 65_536;
/** Operations of one connection that may run at a time; more wait in the socket. */
const outstandingMax = 256;
/** Unread answers above which a connection's requests and searches wait, bytes. */
const unreadBytesMax = 1_048_576;

/** What a session hands requests to. */
export interface Dispatcher {
  /**
   * Starts an operation. `done` settles when it has been answered, and is missing when it has been already; requests behind it wait until `started`
   * resolves, where that is there.
   */
  dispatch(session: LdapSession, request: LdapRequest, operation: Operation): { done?: Promise<void>; started?: Promise<unknown> };
}

/** What a session is made with. */
export interface SessionOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly dispatcher: Dispatcher;
  readonly access: AccessControl;
  readonly messageBytesMax: number;
  /** For StartTLS, where it is on offer. */
  readonly startTls: TlsServerOptions | undefined;
  closed(session: LdapSession): void;
}

/** See the header of this file. */
export class LdapSession implements OperationHost {
  readonly #connection: Connection;
  readonly #options: SessionOptions;
  readonly #decoder = new LdapDecoder({ messageBytesMax: messageBytesBeforeBind });
  readonly #running = new Map<number, RunningOperation>();
  #out: Buffer[] = [];
  #outBytes = 0;
  #flushPending = false;
  /** Requests are being started; what is answered meanwhile leaves when they all are. */
  #isPumping = false;
  #held = false;
  #paused = false;
  #closed = false;
  #requester: Requester = anonymous;
  #view: { readonly who: Requester; readonly generation: number; readonly view: View } | undefined;
  #waiting: (() => void)[] = [];
  #aloneAgain: (() => void) | undefined;
  /** Monotonic time of the last request. */
  lastRequestAtMs: number;

  constructor(connection: Connection, options: SessionOptions) {
    this.#connection = connection;
    this.#options = options;
    this.lastRequestAtMs = options.clock.monotonicMs();
    connection.handle({
      data: (chunk) => {
        this.#decoder.push(chunk);
        this.#pump();
      },
      end: () => this.close(),
      drain: () => this.#drained(),
      close: () => this.#gone(),
    });
  }

  get requester(): Requester {
    return this.#requester;
  }

  /** Sets who is bound; the limit of messages follows. */
  set requester(requester: Requester) {
    this.#requester = requester;
    this.#decoder.setMessageBytesMax(requester.rights === 'anonymous' ? messageBytesBeforeBind : this.#options.messageBytesMax);
  }

  get outstanding(): number {
    return this.#running.size;
  }

  get startTls(): TlsServerOptions | undefined {
    return this.#connection.tls === undefined ? this.#options.startTls : undefined;
  }

  get remoteAddress(): string {
    return this.#connection.remoteAddress;
  }

  get isTls(): boolean {
    return this.#connection.tls !== undefined;
  }

  /** Strength of TLS in bits, by the cipher's name; 0 without. */
  get tlsSsf(): number {
    const cipher = this.#connection.tls?.cipher;
    if (cipher === undefined) return 0;
    return /AES_?256|CHACHA20/.test(cipher) ? 256 : 128;
  }

  /** Kept while neither who is bound nor the rules nor TLS change. */
  viewOf(who: Requester): View {
    const { access } = this.#options;
    const { generation } = access;
    const known = this.#view;
    if (known !== undefined && known.who === who && known.generation === generation) return known.view;
    const view = access.viewOf(who, this);
    this.#view = { who, generation, view };
    return view;
  }

  /** TLS, loopback or a Unix socket (which has no address). */
  get isProtected(): boolean {
    return this.isTls || /^(?:127\.|::1$|$)/.test(this.#connection.remoteAddress);
  }

  /** Names in the client's verified certificate. */
  get peerNames(): readonly string[] {
    return this.#connection.tls?.peerNames ?? [];
  }

  /** Abandons a running operation; the client gets no answer to it any more (RFC 4511 §4.11). */
  abandon(id: number): void {
    const running = this.#running.get(id);
    // RFC 4511 §4.11: bind and StartTLS cannot be abandoned.
    if (running === undefined || running.request.type === 'bindRequest') return;
    if (running.request.type === 'extendedRequest' && running.request.oid === extendedOids.startTls) return;
    running.abort();
  }

  /**
   * Resolves when this operation is the only one that runs; `undefined` when it is. Followers, which would never end, are abandoned: RFC 4511 §4.2.1
   * has all operations before a bind completed or abandoned, so that none goes on with the rights of who was bound.
   */
  alone(operation: Operation): Promise<void> | undefined {
    for (const running of this.#running.values()) {
      if (running.id !== operation.id && findControl(running.controls, controlOids.syncRequest) !== undefined) running.abort();
    }
    if (this.#running.size <= 1) return undefined;
    return new Promise((resolve) => {
      this.#aloneAgain = resolve;
    });
  }

  /**
   * Ends a running search with an answer of its own (RFC 3909); what came of it. A write is in its transaction as soon as it runs, and bind and
   * StartTLS cannot be cancelled (§2.2).
   */
  cancel(id: number): 'success' | 'noSuchOperation' | 'tooLate' | 'cannotCancel' {
    const running = this.#running.get(id);
    if (running === undefined || running.isAborted) return 'noSuchOperation';
    const { request } = running;
    if (request.type === 'bindRequest' || request.type === 'extendedRequest') return 'cannotCancel';
    if (request.type !== 'searchRequest') return 'tooLate';
    running.send({
      type: 'searchResultDone',
      resultCode: resultCodes.canceled,
      matchedDn: '',
      diagnosticMessage: 'canceled by the client',
    });
    running.abort();
    return 'success';
  }

  /** The client's bytes after the StartTLS request are dropped; the answer goes out in clear, then the handshake follows. */
  async upgrade(answer: () => void): Promise<void> {
    const options = this.startTls;
    if (options === undefined) throw new Refusal('protocolError', 'StartTLS is not on offer here');
    answer();
    this.#write();
    this.#decoder.discard();
    await this.#connection.startTls(options);
    this.requester = anonymous;
    this.#view = undefined;
  }

  /** Ends the connection with a notice of disconnection. */
  disconnect(result: keyof typeof resultCodes, message: string): void {
    if (this.#closed) return;
    this.answer(0, {
      type: 'extendedResponse',
      resultCode: resultCodes[result],
      matchedDn: '',
      diagnosticMessage: message,
      oid: extendedOids.noticeOfDisconnection,
    });
    this.close();
  }

  /** Sends what is queued and closes. */
  close(): void {
    if (this.#closed) return;
    this.#write();
    this.#connection.end();
    this.#gone();
    // A client that never reads its last answers does not keep the socket.
    this.#options.clock.after(5000, () => this.#connection.destroy());
  }

  #pump(): void {
    // Within itself it is called when something ended that held requests back: the loop that runs sees to those.
    const isOutermost = !this.#isPumping;
    this.#isPumping = true;
    try {
      this.#startAll();
    } finally {
      if (isOutermost) {
        this.#isPumping = false;
        this.#write();
      }
    }
  }

  #startAll(): void {
    while (!this.#closed && !this.#mustWait()) {
      const next = this.#decoder.next();
      if (next.outcome === 'needs-more') break;
      if (next.outcome === 'message') {
        this.#start(next.message);
        continue;
      }
      if (next.outcome === 'over-limit' && !this.#running.has(next.id)) {
        const result = { resultCode: resultCodes.adminLimitExceeded, matchedDn: '', diagnosticMessage: next.detail };
        this.answer(next.id, { type: 'searchResultDone', ...result });
        continue;
      }
      this.#options.log.debug({ clientIp: this.#connection.remoteAddress, detail: next.detail }, 'LDAP message refused');
      this.disconnect('protocolError', next.detail);
      return;
    }
    const mustWait = this.#mustWait();
    if (mustWait !== this.#paused && !this.#closed) {
      this.#paused = mustWait;
      if (mustWait) this.#connection.pause();
      else this.#connection.resume();
    }
  }

  #mustWait(): boolean {
    return this.#held || this.#running.size >= outstandingMax || this.#unreadBytes() > unreadBytesMax;
  }

  #start(message: LdapMessage): void {
    this.lastRequestAtMs = this.#options.clock.monotonicMs();
    const { id, operation: request, controls } = message;
    if (request.type === 'unbindRequest') {
      this.close();
      return;
    }
    if (!request.type.endsWith('Request') || id === 0) {
      this.disconnect('protocolError', `a ${request.type} with message ID ${id} cannot be asked here`);
      return;
    }
    if (request.type === 'abandonRequest') {
      this.abandon(request.abandonedId);
      return;
    }
    if (this.#running.has(id)) {
      this.disconnect('protocolError', `message ID ${id} is in use by an operation that still runs`);
      return;
    }
    const operation = new RunningOperation(this, id, request as LdapRequest, controls);
    this.#running.set(id, operation);
    const { done, started } = this.#options.dispatcher.dispatch(this, request as LdapRequest, operation);
    if (done === undefined) {
      this.#ended(id);
      return;
    }
    const over = (): void => {
      this.#ended(id);
      if (this.#paused) this.#pump();
    };
    done.then(over, (error: unknown) => {
      this.#fail(request as LdapRequest, operation, error);
      over();
    });
    // Registered last: the answer of a bind that fails goes out before what waited for it is started.
    if (started !== undefined) {
      this.#held = true;
      const release = (): void => {
        this.#held = false;
        this.#pump();
      };
      started.then(release, release);
    }
  }

  #ended(id: number): void {
    this.#running.delete(id);
    if (this.#running.size > 1 || this.#aloneAgain === undefined) return;
    this.#aloneAgain();
    this.#aloneAgain = undefined;
  }

  // The one place where a failure becomes an answer.
  #fail(request: LdapRequest, operation: Operation, error: unknown): void {
    const type = answerType(request);
    if (type === undefined) return;
    if (error instanceof Refusal) {
      operation.send({ type, ...resultOf(error) }, error.controls);
      return;
    }
    const failure = asPlatformError(error);
    const busy = failure.code === 'DIR_BUSY' || failure.code === 'AUTH_BUSY';
    if (failure.kind === 'bug') {
      this.#options.log.error({ errCode: failure.code, err: error, operation: request.type }, 'an LDAP operation failed unexpectedly');
    } else {
      this.#options.log.warn({ errCode: failure.code, detail: messageOf(failure), operation: request.type }, 'an LDAP operation failed');
    }
    if (failure.code === 'LIMIT_CONNECTIONS') {
      this.#connection.destroy();
      return;
    }
    operation.send({
      type,
      resultCode: busy ? resultCodes.busy : ldapResultCodes[failure.kind],
      matchedDn: '',
      diagnosticMessage: failure.kind === 'bug' ? 'internal error' : failure.message,
    });
  }

  /** Queues an answer. Those to requests that came together, and those of one turn, leave in one write. */
  answer(id: number, operation: LdapOperation, controls: readonly Control[] = []): void {
    if (!this.#closed) this.answerEncoded(encodeMessage({ id, operation, controls }));
  }

  /** The same for answers that are encoded already. */
  answerEncoded(bytes: Buffer): void {
    if (this.#closed) return;
    this.#out.push(bytes);
    this.#outBytes += bytes.length;
    if (this.#outBytes > unreadBytesMax / 4) {
      this.#write();
    } else if (!this.#flushPending && !this.#isPumping) {
      this.#flushPending = true;
      setImmediate(() => {
        this.#flushPending = false;
        this.#write();
      });
    }
  }

  flush(): void {
    if (!this.#isPumping) this.#write();
  }

  #write(): void {
    if (this.#out.length === 0 || this.#closed) return;
    const parts = this.#out;
    this.#out = [];
    this.#outBytes = 0;
    this.#connection.write(parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts));
  }

  #unreadBytes(): number {
    return this.#outBytes + this.#connection.bufferedBytes;
  }

  /** Resolves when the client has taken enough for the next answer; `undefined` when it has. */
  room(operation: Operation): Promise<void> | undefined {
    if (this.#closed || this.#unreadBytes() <= unreadBytesMax) return undefined;
    this.#write();
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      operation.signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  #drained(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
    if (this.#paused) this.#pump();
  }

  #gone(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const operation of this.#running.values()) operation.abort();
    this.#drained();
    this.#options.closed(this);
  }
}

function resultOf(refusal: Refusal): LdapResult {
  return {
    resultCode: refusal.resultCode,
    matchedDn: refusal.matchedDn,
    diagnosticMessage: refusal.message,
    ...(refusal.referrals === undefined ? {} : { referrals: refusal.referrals }),
  };
}

const answerTypes = {
  bindRequest: 'bindResponse',
  searchRequest: 'searchResultDone',
  modifyRequest: 'modifyResponse',
  addRequest: 'addResponse',
  deleteRequest: 'deleteResponse',
  modifyDnRequest: 'modifyDnResponse',
  compareRequest: 'compareResponse',
  extendedRequest: 'extendedResponse',
} as const;

function answerType(request: LdapRequest) {
  return request.type in answerTypes ? answerTypes[request.type as keyof typeof answerTypes] : undefined;
}
