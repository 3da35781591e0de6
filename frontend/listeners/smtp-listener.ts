/**
 * One SMTP or submission listener: the adapter to the smtp-server library, which brings its own sockets. The dialogue is the library's
 * (strict CRLF.CRLF, nothing survives STARTTLS); limits, policy and the queue are ours.
 *
 *   connect ─► limits ─► [STARTTLS, AUTH] ─► MAIL ─► RCPT: router ─► DATA: into the queue, fsynced ─► 250
 *
 * The library's own enhanced status codes are off: it derives them from the reply code and would call every 550 an unknown address.
 * Ours stand in the text of each refusal.
 */
import type { Server, Socket } from 'node:net';
import { SMTPServer, type SMTPServerDataStream, type SMTPServerSession } from 'smtp-server';
import { type AccountName, type AccountUuid, type DomainName, tryParseDomainName } from '#common/account-name.ts';
import { sleep, type Timer } from '#common/clock.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { smtpReplies } from '#common/errors/wire.ts';
import type { Logger } from '#common/log/logger.ts';
import { boundAnew } from '#common/network/listening-sockets.ts';
import type { TlsFacts } from '#common/network/network.ts';
import { tlsOfSocket } from '#common/network/secure-contexts.ts';
import { normaliseLineEnds } from '#protocol/mime/summary.ts';
import type { FrontendStatus } from '../client/status.ts';
import type { FrontendListener } from '../config.ts';
import type { QueuedRecipient } from '../queue/envelope.ts';
import type { MailQueue } from '../queue/queue.ts';
import { type Credentials, mechanismsOf } from '../session/credentials.ts';
import { defaultDomains } from '../session/default-domains.ts';
import type { ListenerLimits } from '../subset/settings.ts';
import type { EndableSession } from '../subset/withdrawal.ts';
import type { MailLogin, SmtpOptions } from './smtp-contract.ts';
import { SmtpGuests } from './smtp-guests.ts';
import type { Receiving } from './smtp-message.ts';
import { judgeRecipient, judgeSubmissionSender, type PolicyOptions, type Refusal, refused } from './smtp-policy.ts';
import { type JudgedLogin, openSaslDoor } from './smtp-sasl.ts';
import { smtpTlsOptions, takeContextsOf } from './smtp-tls.ts';
import { hopCount, hopsMax, missingHeaders, receivedHeader } from './smtp-trace.ts';

/** Recipients of one message: five times what every client may count on (RFC 5321 §4.5.3.1.8); more get 452 and come in another message. */
export const recipientsMax = 500;
/** Failed logins of one connection. */
const loginFailuresMax = 3;
/** Refused commands of one connection: beyond this it is trying out addresses. */
const refusalsMax = 100;
/** A client that sends nothing for so long is closed (RFC 5321 §4.5.3.2.7). */
const silenceMaxMs = 5 * 60_000;
/** Time for a client that was told 421 to read it and hang up, milliseconds. */
const farewellMs = 1_000;
const lookEveryMs = 20;
/** RFC 4954 §4: of AUTH with a response; other commands are far shorter. */
const commandBytesMax = 12_288;
/** Commands of the library that no server should offer. */
const neverCommands = ['XCLIENT', 'XFORWARD', 'WIZ', 'SHELL', 'KILL', 'HELP'];

/** What we know of a session beyond the library. */
interface SessionState {
  readonly sessionId: string;
  readonly startedAtMs: number;
  readonly log: Logger;
  /** Ends a submission session that does not log in. */
  readonly loginDeadline: Timer | undefined;
  tls: Omit<TlsFacts, 'channelBinding'> | undefined;
  login: { readonly name: AccountName; readonly uuid: AccountUuid | undefined } | undefined;
  loginFailures: number;
  /** Accepted recipients of the open transaction, by address as the library keeps it. */
  recipients: Map<string, QueuedRecipient>;
  /** RCPT commands that were accepted: by LMTP each has an answer of its own, also of an address that is named twice (RFC 2033 §4.2). */
  acceptedRcpts: number;
  messages: number;
  refusals: number;
  /** What it hears once its transaction is over, after which it is closed. */
  farewell: string | undefined;
  /** The same one each time it is asked for. */
  endable: EndableSession | undefined;
}

type ServerConnection = SMTPServer['connections'] extends Set<infer T> ? T : never;

/** See the header of this file. */
export class SmtpListener implements AsyncDisposable {
  readonly #options: SmtpOptions;
  readonly #listener: FrontendListener;
  readonly #queue: MailQueue;
  readonly #receiving: Receiving;
  readonly #policy: PolicyOptions;
  readonly #isSubmission: boolean;
  readonly #defaultDomain: (localAddress: string) => DomainName | undefined;
  readonly #server: SMTPServer;
  /** What listens. */
  readonly #door: Server;
  readonly #log: Logger;
  readonly #sessions = new Map<string, SessionState>();
  readonly #guests: SmtpGuests;
  /** As configured, then as bound. */
  #port: number;
  #limits: ListenerLimits;
  #isStopping = false;

  private constructor(options: SmtpOptions, listener: FrontendListener, queue: MailQueue, receiving: Receiving) {
    this.#options = options;
    this.#listener = listener;
    this.#queue = queue;
    this.#receiving = receiving;
    this.#isSubmission = listener.protocol === 'submission';
    this.#log = options.ports.log.child({ component: listener.protocol, protocol: listener.protocol });
    const { config } = options;
    const defaultDomain = config.defaultDomain === undefined ? undefined : tryParseDomainName(config.defaultDomain);
    this.#defaultDomain = defaultDomains(config, listener);
    this.#policy = { router: options.router, defaultDomain, hasRelay: config.relay !== undefined };
    this.#port = listener.port;
    this.#limits = options.settings.limits(listener);
    this.#server = this.#createServer();
    const { server } = this.#server;
    this.#door = options.ports.network.serverFor?.(server) ?? server;
    this.#guests = this.#watchGuests();
  }

  /** Listens. Rejects with `NET_CONNECT_FAILED` when the address cannot be bound. */
  static async start(options: SmtpOptions, listener: FrontendListener, queue: MailQueue, receiving: Receiving): Promise<SmtpListener> {
    const started = new SmtpListener(options, listener, queue, receiving);
    await started.#listen();
    return started;
  }

  status(): FrontendStatus['listeners'][number] {
    const { protocol, tls } = this.#listener;
    return { protocol, tls, address: this.#listener.address, port: this.#port, sessions: this.#sessions.size };
  }

  get connections(): number {
    return this.#guests.size;
  }

  /** Closes the port or opens it again; sessions go on. Rejects when it is somebody else's by now. */
  async setAccepting(isAccepting: boolean): Promise<void> {
    if (isAccepting === this.#door.listening) return;
    await (isAccepting ? this.#listen() : this.#shut());
  }

  /** Limits and sizes as they are now, for what comes from now on. */
  applySettings(): void {
    const { settings } = this.#options;
    this.#limits = settings.limits(this.#listener);
    const { options } = this.#server;
    options.maxClients = this.#limits.connectionsMax;
    options.size = settings.messageBytesMax;
    options.closeTimeout = Math.max(1, settings.drainMs);
  }

  /** Sessions that have been greeted. One in a transaction may finish it before it hears its bye. */
  *sessions(): IterableIterator<EndableSession> {
    for (const connection of this.#server.connections) {
      const state = this.#sessions.get(connection.id);
      if (state !== undefined) yield this.#endable(connection, state);
    }
  }

  /**
   * Accepts no more; every session hears 421 (RFC 5321 §3.8), one in a transaction after it or when `drainMs` are over. So do those that have not been
   * greeted, instead of the greeting, once their handshake is over if that comes first.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    const { ports, settings } = this.#options;
    this.#isStopping = true;
    await this.#shut();
    for (const session of [...this.sessions()]) void session.bye(stoppingText);
    const until = async (isLeft: () => boolean, atMs: number): Promise<void> => {
      while (isLeft() && ports.clock.monotonicMs() < atMs) await sleep(ports.clock, lookEveryMs);
    };
    await until(() => this.#sessions.size > 0, ports.clock.monotonicMs() + settings.drainMs);
    for (const session of [...this.sessions()]) session.drop();
    await until(() => this.#guests.size > 0, ports.clock.monotonicMs() + farewellMs);
    // Ends those that still have no session, and what the library keeps.
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#guests.destroy();
    });
    await until(() => this.#guests.size > 0, ports.clock.monotonicMs() + farewellMs);
  }

  #createServer(): SMTPServer {
    const { config, settings, tls } = this.#options;
    const mode = tls === undefined ? 'none' : this.#listener.tls;
    const server = new SMTPServer({
      name: config.name,
      banner: 'ready',
      heloResponse: '%s',
      secure: mode === 'implicit',
      lmtp: this.#listener.protocol === 'lmtp',
      ...(tls === undefined ? {} : smtpTlsOptions(tls)),
      disabledCommands: this.#disabledCommands(),
      hideENHANCEDSTATUSCODES: true,
      authMethods: [...mechanismsOf(this.#options.sasl ?? {}, undefined)],
      // Whether a password may come in clear is decided for each session in #connected: AUTH is then not offered at all.
      allowInsecureAuth: true,
      authRequiredMessage: '5.7.0 Log in first',
      maxAllowedUnauthenticatedCommands: 30,
      size: settings.messageBytesMax,
      maxRecipients: recipientsMax,
      maxClients: this.#limits.connectionsMax,
      maxCommandLength: commandBytesMax,
      disableReverseLookup: true,
      socketTimeout: silenceMaxMs,
      closeTimeout: Math.max(1, settings.drainMs),
      logger: false,
      onConnect: (session, done) => this.#connected(session, done),
      onSecure: (socket, session, done) => this.#secured(socket, session, done),
      onMailFrom: (address, session, done) => this.#answer(session, done, this.#mail(session, address.address)),
      onRcptTo: (address, session, done) => this.#answer(session, done, this.#rcpt(session, address.address)),
      onData: (stream, session, done) => {
        const answer = (result: string | Error): void => {
          // A client that has gone hears nothing.
          const { acceptedRcpts = 0 } = this.#sessions.get(session.id) ?? {};
          if (this.#listener.protocol === 'lmtp') done(null, Array<string | Error>(acceptedRcpts).fill(result));
          else if (typeof result === 'string') done(null, result);
          else done(result);
        };
        const settled = this.#data(stream, session).then(answer, answer);
        void settled.then(() => this.#transactionOver(session));
      },
      onClose: (session) => this.#closed(session),
    });
    if (tls !== undefined) takeContextsOf(server, tls);
    openSaslDoor(server, {
      exchange: { settings: this.#options.sasl ?? {}, tls: undefined, random: this.#options.ports.random, hasFinalData: false },
      salt: (session, loginName) => this.#options.scramSalt({ loginName, ...this.#clientOf(session) }),
      logIn: (session, loginName, credentials) => this.#login(session, loginName, credentials),
    });
    // Of clients: resets, failed handshakes. They end their own session only.
    server.on('error', (error) => this.#log.debug({ err: error }, `connection failed: ${messageOf(error)}`));
    return server;
  }

  #watchGuests(): SmtpGuests {
    const { ports, rules, tls } = this.#options;
    const { protocol, proxyFrom = [] } = this.#listener;
    const connections = ports.metrics.counter('archipelago_frontend_connections_total', 'Connections accepted or refused, by protocol.', [
      'protocol',
      'outcome',
    ]);
    const guests = new SmtpGuests({
      clock: ports.clock,
      rules,
      proxyFrom,
      isTlsFirst: tls !== undefined && this.#listener.tls === 'implicit',
      limits: () => this.#limits,
      judged: (clientIp, outcome) => {
        connections.add({ protocol, outcome });
        if (outcome === 'refused') this.#log.debug({ clientIp, errCode: 'LIMIT_CONNECTIONS' }, 'connection refused: over a limit');
      },
      headerless: (clientIp, why) => this.#log.debug({ clientIp }, `a load balancer’s connection was dropped: ${why}`),
    });
    guests.watch(this.#server);
    return guests;
  }

  async #listen(): Promise<void> {
    const { address } = this.#listener;
    const sockets = this.#options.ports.sockets ?? boundAnew;
    try {
      ({ port: this.#port } = await sockets.listen(this.#door, { host: address, port: this.#port }));
    } catch (error) {
      throw new PlatformError('NET_CONNECT_FAILED', `cannot listen on ${address}:${this.#port}: ${messageOf(error)}`, { cause: error });
    }
  }

  /** The port is free once this is over. */
  async #shut(): Promise<void> {
    this.#door.close();
    await new Promise((freed) => setImmediate(freed));
  }

  /** `isClear`: the session has no TLS yet, so that a password would be read on the way. */
  #disabledCommands(isClear = false): string[] {
    const disabled = [...neverCommands];
    if (this.#options.tls === undefined || this.#listener.tls !== 'starttls') disabled.push('STARTTLS');
    if (!this.#isSubmission || isClear) disabled.push('AUTH');
    return disabled;
  }

  #endable(connection: ServerConnection, state: SessionState): EndableSession {
    state.endable ??= {
      bye: async (text) => {
        state.farewell = text;
        // In a transaction it would be the answer to a command, or fall into a message.
        if (connection.session.envelope.mailFrom === false) connection.send(421, `4.3.2 ${text}`);
      },
      drop: () => connection.send(421, `4.3.2 ${state.farewell ?? stoppingText}`),
    };
    return state.endable;
  }

  /** The transaction is over: a session that is to go hears so. */
  #transactionOver(session: SMTPServerSession): void {
    const farewell = this.#sessions.get(session.id)?.farewell;
    if (farewell === undefined) return;
    for (const connection of this.#server.connections) if (connection.id === session.id) connection.send(421, `4.3.2 ${farewell}`);
  }

  #connected(session: SMTPServerSession, done: (error?: Error) => void): void {
    const address = session.remoteAddress;
    if (this.#isStopping) {
      done(replyError(421, '4.3.2', stoppingText));
      return;
    }
    const sessionId = this.#options.ports.random.uuid();
    this.#sessions.set(session.id, {
      sessionId,
      startedAtMs: this.#options.ports.clock.monotonicMs(),
      log: this.#log.child({ sessionId, clientIp: address }),
      loginDeadline: this.#isSubmission ? this.#startLoginDeadline(session) : undefined,
      tls: this.#tlsBefore(session),
      login: undefined,
      loginFailures: 0,
      recipients: new Map(),
      acceptedRcpts: 0,
      messages: 0,
      refusals: 0,
      farewell: undefined,
      endable: undefined,
    });
    const mayLogInClear = session.secure || isLoopback(address) || this.#listener.allowPlaintextLogin;
    session.disabledCommands = this.#disabledCommands(!mayLogInClear);
    done();
  }

  /** A load balancer may have ended the client's TLS itself, and said so: then the session has it. */
  #tlsBefore(session: SMTPServerSession): SessionState['tls'] {
    const tls = this.#guests.tlsBefore(session.id);
    if (tls === undefined) return undefined;
    session.secure = true;
    for (const connection of this.#server.connections) if (connection.id === session.id) connection.secure = true;
    const { commonName, ...facts } = tls;
    return { ...facts, peerNames: commonName === undefined ? [] : [commonName] };
  }

  #startLoginDeadline(session: SMTPServerSession): Timer {
    return this.#options.ports.clock.after(this.#options.settings.loginTimeoutMs, () => {
      this.#log.info({ clientIp: session.remoteAddress }, 'no login in time');
      // The library closes a connection that is sent 421.
      for (const connection of this.#server.connections) if (connection.id === session.id) connection.send(421, '4.4.2 No login in time');
    });
  }

  #secured(socket: Socket, session: SMTPServerSession, done: (error?: Error) => void): void {
    session.disabledCommands = this.#disabledCommands();
    const state = this.#sessions.get(session.id);
    if (state !== undefined) {
      // RFC 3207 §4.2: what was known before the handshake is forgotten.
      state.login = undefined;
      state.tls = tlsOfSocket(socket) ?? state.tls;
    }
    done();
  }

  #closed(session: SMTPServerSession): void {
    this.#guests.left(session.id);
    const state = this.#sessions.get(session.id);
    if (state === undefined) return;
    this.#sessions.delete(session.id);
    state.loginDeadline?.cancel();
    const durationMs = Math.round(this.#options.ports.clock.monotonicMs() - state.startedAtMs);
    const { messages, refusals, login, tls } = state;
    const tlsFacts = {
      tls: tls?.protocol ?? 'none',
      tlsCipher: tls?.cipher,
      tlsServerName: tls?.serverName,
      tlsClientName: tls?.peerNames[0],
    };
    state.log.info({ durationMs, messages, refusals, account: login?.name, ...tlsFacts }, 'session ended');
  }

  #clientOf(session: SMTPServerSession): Pick<MailLogin, 'client' | 'defaultDomain'> {
    const client = { address: session.remoteAddress, port: session.remotePort, tls: session.secure };
    return { client, defaultDomain: this.#defaultDomain(session.localAddress) };
  }

  async #login(session: SMTPServerSession, loginName: string, credentials: Credentials): Promise<JudgedLogin> {
    const state = this.#sessions.get(session.id);
    if (state === undefined) return { result: { ok: false, error: new PlatformError('NET_CLOSED', 'the client has gone') }, reply: putOff };
    const login = { loginName, credentials, sessionId: state.sessionId, ...this.#clientOf(session) };
    const result = await this.#options.authenticate(login);
    if (result.ok) {
      state.loginDeadline?.cancel();
      const route = await this.#options.router.resolve(result.name);
      state.login = { name: result.name, uuid: route.kind === 'local' ? route.uuid : undefined };
      return { result, reply: putOff };
    }
    state.loginFailures += 1;
    const { error } = result;
    state.log.info({ errCode: error.code, failures: state.loginFailures }, 'login refused');
    if (state.loginFailures >= loginFailuresMax) return { result, reply: { code: 421, text: '4.7.0 Too many failed logins' } };
    const isWrong = error.kind === 'auth' || error.kind === 'not-found' || error.kind === 'denied' || error.kind === 'protocol';
    return { result, reply: isWrong ? { code: 535, text: `5.7.8 ${smtpReplies.auth.text}` } : putOff };
  }

  async #mail(session: SMTPServerSession, sender: string): Promise<Refusal | undefined> {
    const state = this.#stateOf(session);
    state.recipients = new Map();
    state.acceptedRcpts = 0;
    if (state.farewell !== undefined) return refused(421, '4.3.2', state.farewell);
    if (!this.#isSubmission) return undefined;
    // The library asks for a login only where it offers AUTH; in clear it does not.
    if (state.login === undefined) return refused(530, '5.7.0', session.secure ? 'Log in first' : 'Use STARTTLS and log in first');
    const verdict = await judgeSubmissionSender(sender, state.login, this.#policy);
    return verdict.kind === 'refused' ? verdict : undefined;
  }

  async #rcpt(session: SMTPServerSession, address: string): Promise<Refusal | undefined> {
    const state = this.#stateOf(session);
    const verdict = await judgeRecipient(address, this.#isSubmission, this.#policy);
    if (verdict.kind === 'refused') return verdict;
    state.recipients.set(address.toLowerCase(), verdict.recipient);
    state.acceptedRcpts += 1;
    return undefined;
  }

  /** The text of the 250, or rejects with the refusal. */
  async #data(stream: SMTPServerDataStream, session: SMTPServerSession): Promise<string> {
    const { config, ports, settings } = this.#options;
    const { messageBytesMax } = settings;
    const state = this.#stateOf(session);
    const { envelope } = session;
    // The library forgets recipients at RSET; what it kept counts.
    const recipients = envelope.rcptTo
      .map((entry) => state.recipients.get(entry.address.toLowerCase()))
      .filter((entry) => entry !== undefined);
    const { text, release } = await this.#receiving.read(stream, messageBytesMax);
    try {
      if (recipients.length !== envelope.rcptTo.length)
        throw new PlatformError('BUG_UNEXPECTED', 'a recipient was accepted and is not known');
      if (text.kind === 'lost') throw replyError(421, '4.4.2', 'Connection lost');
      if (text.kind === 'busy') throw replyError(452, '4.3.1', 'Too much mail is coming in at this moment, try again later');
      if (text.kind === 'too-big') throw replyError(552, '5.3.4', `Message is larger than ${messageBytesMax} bytes`);
      const body = normaliseLineEnds(text.raw);
      if (hopCount(body) > hopsMax)
        throw replyError(554, '5.4.6', 'Message has been through too many servers; it seems to go round in circles');
      const queueId = this.#queue.newId();
      const nowMs = ports.clock.nowMs();
      const trace = receivedHeader({
        clientName: session.hostNameAppearsAs,
        clientAddress: session.remoteAddress,
        hostName: config.name,
        protocol: session.transmissionType,
        queueId,
        sessionId: state.sessionId,
        nowMs,
      });
      const completed = this.#isSubmission ? missingHeaders(body, { nowMs, queueId, hostName: config.name }) : Buffer.alloc(0);
      await this.#queue.accept({
        id: queueId,
        sender: envelope.mailFrom === false ? '' : envelope.mailFrom.address,
        recipients,
        sessionId: state.sessionId,
        raw: Buffer.concat([trace, completed, body]),
      });
      state.messages += 1;
      return `2.0.0 Queued as ${queueId}`;
    } catch (thrown) {
      if (isReplyError(thrown)) throw thrown;
      const error = asPlatformError(thrown);
      state.log.warn({ errCode: error.code, err: error }, `message was not queued: ${error.message}`);
      // Whatever went wrong here is ours and may be mended: the client keeps the message.
      if (error.kind === 'limit') throw replyError(452, '4.3.1', 'The queue is full, try again later');
      throw replyError(451, '4.3.0', smtpReplies.unavailable.text);
    } finally {
      release();
    }
  }

  /** Turns a decision into the library's callback. */
  #answer(session: SMTPServerSession, done: (error?: Error) => void, decision: Promise<Refusal | undefined>): void {
    decision.then(
      (refusal) => {
        if (refusal === undefined) return done();
        const state = this.#sessions.get(session.id);
        if (state !== undefined) state.refusals += 1;
        const isTooMany = (state?.refusals ?? 0) >= refusalsMax;
        done(isTooMany ? replyError(421, '4.7.0', 'Too many refused commands') : replyError(refusal.code, refusal.enhanced, refusal.text));
      },
      (thrown: unknown) => {
        const error = asPlatformError(thrown);
        this.#log.error({ errCode: error.code, err: error }, `command failed unexpectedly: ${error.message}`);
        done(replyError(451, '4.3.0', smtpReplies.unavailable.text));
      },
    );
  }

  #stateOf(session: SMTPServerSession): SessionState {
    const state = this.#sessions.get(session.id);
    if (state === undefined) throw new PlatformError('BUG_UNEXPECTED', `session ${session.id} is not known`);
    return state;
  }
}

const stoppingText = 'Shutting down, connect again';

/** RFC 4954 §6: 454 asks the client to try again and not for another password. */
const putOff = { code: 454, text: '4.7.0 Temporary authentication failure, try again later' } as const;

/** An error that the library answers with: the code from `responseCode`, the rest is its message. */
type ReplyError = Error & { readonly responseCode: number };

function replyError(code: number, enhanced: string, text: string): ReplyError {
  return Object.assign(new Error(`${enhanced} ${text}`), { responseCode: code });
}

function isReplyError(thrown: unknown): thrown is ReplyError {
  return thrown instanceof Error && 'responseCode' in thrown;
}

function isLoopback(address: string): boolean {
  return address === '::1' || /^(?:::ffff:)?127\./.test(address);
}
