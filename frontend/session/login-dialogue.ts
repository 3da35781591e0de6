/**
 * What the dialogues before login have in common, whatever the protocol: they read bounded input, do one thing at a time, give up after
 * a while, and hand the connection to the relay when a member has taken the session.
 *
 * States: `talking` (reading), `busy` (a login or a handshake is under way and the client is not read), `relaying`, `closing` (the last
 * words were written), `closed`. There is no way back from the last three.
 */

import type { NoticeListener, SessionChannel } from '#backend-cluster/client/cluster-client.ts';
import type { DomainName } from '#common/account-name.ts';
import type { Clock, Timer } from '#common/clock.ts';
import type { PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Connection, TlsServerOptions } from '#common/network/network.ts';
import type { Seat } from '#common/roster.ts';
import type { FrontendSession } from '#frontend/client/status.ts';
import type { FrontendListener } from '#frontend/config.ts';
import { type Splice, type SpliceEnd, type SpliceOwner, splice } from '#frontend/relay/splice.ts';
import type { Credentials, SaslSettings } from './credentials.ts';
import { type ClientFacts, isWrongLogin, type LoginResult, type MailService, type SaltAnswer, type SessionOpener } from './open-session.ts';

/** Bytes that a client may send before it is logged in. */
export const loginBytesMax = 65_536;
/** Bytes taken while a login is being answered and the client should not have been read; then the client is sent away. */
const bytesWhileBusyMax = 262_144;
/** Commands that a client may send before it is logged in. */
export const loginCommandsMax = 20;
/** Wrong logins after which a connection is closed. */
export const wrongLoginsMax = 5;
/** Time for the client to hang up after the last words, milliseconds. */
const closeMs = 2000;
const nothing = Buffer.alloc(0);

/** What a dialogue is made of. */
export interface DialogueOptions {
  readonly opener: SessionOpener;
  readonly listener: FrontendListener;
  /** Certificate for STARTTLS; `undefined` when there is none. */
  readonly tls: TlsServerOptions | undefined;
  readonly loginTimeoutMs: number;
  /** Domain of login names that have none, by the address that the client reached. */
  readonly defaultDomain?: (localAddress: string) => DomainName | undefined;
  /** What is taken beside passwords; nothing where it is missing. */
  readonly sasl?: SaslSettings;
  readonly ports: Pick<Ports, 'clock' | 'random' | 'log'>;
}

/** What a client is told of its login. */
export interface LoginReplies {
  /** The words; or `hold` when it has been asked something first, after which `settleLogin` or `abandonLogin` is called. */
  judged(result: LoginResult): string | 'hold';
  /** The words after that. */
  settled(result: LoginResult): string;
}

type Opened = Extract<LoginResult, { ok: true }>;

/** What is kept of a login: a session is not to hold for its whole life what has been told to the client. */
type Judged =
  | Exclude<LoginResult, Opened>
  | (Pick<Opened, 'ok' | 'accountName' | 'cluster' | 'member'> & { readonly ended: Opened['ended'] });

/** The states; see the header of this file. */
export const dialogueStates = { talking: 'talking', busy: 'busy', relaying: 'relaying', closing: 'closing', closed: 'closed' } as const;
type DialogueState = (typeof dialogueStates)[keyof typeof dialogueStates];

/** One client's connection, from its greeting to its end. */
export abstract class LoginDialogue implements SpliceOwner, NoticeListener {
  abstract readonly protocol: MailService;
  readonly sessionId: string;
  /** Where its listener keeps it. */
  seat: Seat | undefined;
  readonly connection: Connection;
  protected readonly options: DialogueOptions;
  #state: DialogueState = dialogueStates.talking;
  #bytes = 0;
  #commands = 0;
  #wrongLogins = 0;
  #hasClientEnded = false;
  /** A TLS handshake is under way. */
  #isSecuring = false;
  /** What the dialogue is at, for the log line when it ends there. */
  #step = 'greeting';
  #outcome: string | undefined;
  #timer: Timer | undefined;
  readonly #ended: (dialogue: LoginDialogue) => void;
  readonly #startedAtMs: number;
  readonly #startedWallMs: number;
  #login: Judged | undefined;
  #relay: Splice | undefined;
  /** With which the session may go on elsewhere. */
  #ticket: string | undefined;
  /** A login that was judged, of a client that has to hear something before it is told. */
  #held: { readonly result: LoginResult; readonly replies: LoginReplies } | undefined;

  /** @param ended called once, when the connection is gone */
  constructor(connection: Connection, options: DialogueOptions, ended: (dialogue: LoginDialogue) => void) {
    this.connection = connection;
    this.options = options;
    this.#ended = ended;
    this.sessionId = options.opener.newSessionId();
    this.#startedAtMs = options.ports.clock.monotonicMs();
    this.#startedWallMs = options.ports.clock.nowMs();
  }

  /** Greets the client and begins to listen. */
  start(): void {
    this.#timer = this.clock.after(this.options.loginTimeoutMs, () => this.#tooLate());
    this.connection.handle({
      data: (chunk) => this.#data(chunk),
      end: () => this.#clientEnded(),
      close: (error) => this.#closed(error),
    });
    this.greet();
  }

  /** The session as status pages show it; `undefined` before login. */
  snapshot(): FrontendSession | undefined {
    if (this.#relay === undefined || this.#login?.ok !== true) return undefined;
    return {
      sessionId: this.sessionId,
      protocol: this.protocol,
      account: this.#login.accountName,
      clientAddress: this.connection.remoteAddress,
      cluster: this.#login.cluster,
      member: this.#login.member,
      startedAtMs: this.#startedWallMs,
      bytesIn: this.#relay.bytesIn,
      bytesOut: this.#relay.bytesOut,
    };
  }

  /** The frontend stops: a client that is not logged in yet is told to come back, a session under way is ended in good order. */
  stop(): void {
    if (this.#relay !== undefined) this.#relay.close();
    else if (this.#isSecuring) this.drop();
    else this.finish(this.farewell('unavailable', 'Shutting down, connect again'), 'frontend-stopped');
  }

  /** Ends it in good order while the frontend goes on: a session that is logged in hears its bye from the member, between two answers. */
  async bye(text: string): Promise<void> {
    const login = this.#login;
    if (this.#relay === undefined || login?.ok !== true) {
      this.stop();
      return;
    }
    this.#outcome = 'frontend-drained';
    const isAsked = await this.options.opener.bye({ sessionId: this.sessionId, cluster: login.cluster, member: login.member, text });
    // A member that cannot be asked, or knows nothing of it: the connection ends without words.
    if (!isAsked) this.#relay?.close();
  }

  get clock(): Clock {
    return this.options.ports.clock;
  }

  spliceEnded(by: SpliceEnd, error: Error | undefined): void {
    this.#outcome ??= error === undefined ? `ended-by-${by}` : `lost-by-${by}`;
    this.#closed(error);
  }

  /** Drops whatever is left. */
  drop(): void {
    this.#outcome ??= 'frontend-stopped';
    if (this.#relay !== undefined) this.#relay.destroy();
    else this.connection.destroy();
  }

  protected abstract greet(): void;
  /** Takes bytes in. */
  protected abstract push(chunk: Buffer): void;
  /** Handles the next whole thing the client said; `false` when more bytes are needed. */
  protected abstract advance(): boolean;
  /** Bytes after the last command that was handled; nothing is left behind, and nothing is read here afterwards. */
  protected abstract takeRest(): Buffer | undefined;
  /** Starts anew after a TLS handshake: nothing said before it counts (RFC 9051 §6.2.1, RFC 2595 §4). */
  protected abstract reset(): void;
  /** TLS has been started on command. */
  protected secured(): void {}
  /** The last words to a client that is sent away. */
  protected abstract farewell(why: 'timeout' | 'limit' | 'unavailable' | 'protocol', text: string): string;
  /** A protocol in which a server speaks only when it is asked has none. */
  lastWords(_piece: Buffer | undefined): string | undefined {
    return undefined;
  }

  protected write(text: string): void {
    if (this.#state === dialogueStates.talking || this.#state === dialogueStates.busy) this.connection.write(text);
  }

  /** Whether passwords may be sent on this connection as it is. */
  protected get mayLogIn(): boolean {
    return (
      this.connection.tls !== undefined || this.options.listener.allowPlaintextLogin || isLoopbackAddress(this.connection.remoteAddress)
    );
  }

  protected get maySecure(): boolean {
    return this.connection.tls === undefined && this.options.listener.tls === 'starttls' && this.options.tls !== undefined;
  }

  /** Counts a command; `false` when it was one too many and the client has been sent away. */
  protected countCommand(step: string): boolean {
    this.#step = step;
    this.#commands += 1;
    if (this.#commands <= loginCommandsMax) return true;
    this.finish(this.farewell('limit', 'Too many commands before login'), 'too-many-commands');
    return false;
  }

  /** Writes the last words and closes. */
  protected finish(lastWords: string, outcome: string): void {
    if (this.#state !== dialogueStates.talking && this.#state !== dialogueStates.busy) return;
    this.write(lastWords);
    this.#state = dialogueStates.closing;
    this.#outcome ??= outcome;
    this.takeRest();
    this.connection.end();
    this.connection.resume();
    this.#timer?.cancel();
    this.#timer = this.clock.after(closeMs, () => this.connection.destroy());
  }

  /** Logs in and, when a member took the session, relays. The client is not read meanwhile. */
  protected login(loginName: string, credentials: Credentials, replies: LoginReplies): void {
    const { connection } = this;
    this.#become(dialogueStates.busy);
    const client = clientFacts(connection);
    const defaultDomain = this.options.defaultDomain?.(connection.localAddress);
    const request = { service: this.protocol, sessionId: this.sessionId, loginName, defaultDomain, credentials, client };
    void this.options.opener.open(request).then((result) => {
      this.#login = judged(result);
      if (this.#state !== dialogueStates.busy) {
        // The client left while the member was being asked.
        if (result.ok) giveUp(result);
        return;
      }
      const words = replies.judged(result);
      if (words === 'hold') {
        this.#held = { result, replies };
        this.#become(dialogueStates.talking);
      } else this.#settle(result, words);
    });
  }

  /** The client has heard what its mechanism had to say after the judgement. */
  protected settleLogin(): void {
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined) this.#settle(held.result, held.replies.settled(held.result));
  }

  /** A client that was to hear more before its login is settled gave up. */
  protected abandonLogin(): void {
    const held = this.#held;
    this.#held = undefined;
    if (held?.result.ok === true) giveUp(held.result);
  }

  /** Finds what a SCRAM exchange begins with; the client is not read meanwhile. */
  protected scramSalt(loginName: string, then: (answer: SaltAnswer) => void): void {
    this.#become(dialogueStates.busy);
    const client = clientFacts(this.connection);
    const defaultDomain = this.options.defaultDomain?.(this.connection.localAddress);
    void this.options.opener.scramSalt({ loginName, defaultDomain, client }).then((answer) => {
      if (this.#state !== dialogueStates.busy) return;
      then(answer);
      this.#become(dialogueStates.talking);
    });
  }

  #settle(result: LoginResult, words: string): void {
    const { connection } = this;
    if (result.ok) {
      connection.write(words);
      if (result.early !== undefined && result.early.length > 0) connection.write(result.early);
      this.#startRelay(result.channel);
      return;
    }
    const { error } = result;
    const fields = { sessionId: this.sessionId, protocol: this.protocol, errCode: error.code, hostServer: result.cluster };
    if (isWrongLogin(error) || error.kind === 'limit') this.options.ports.log.debug(fields, `login refused: ${error.message}`);
    else this.options.ports.log.warn(fields, `login not possible: ${error.message}`);
    this.#outcome = error.code;
    this.write(words);
    if (isWrongLogin(error)) this.#wrongLogins += 1;
    if (this.#wrongLogins >= wrongLoginsMax) this.finish(this.farewell('limit', 'Too many failed logins'), error.code);
    else if (this.#state === dialogueStates.busy) this.#become(dialogueStates.talking);
  }

  /** Goes over to TLS; `go` is what the client waits for. */
  protected startTls(go: string): void {
    const { tls } = this.options;
    if (tls === undefined) return;
    this.#become(dialogueStates.busy);
    this.connection.write(go);
    // Whatever came with the command was sent in clear, by anybody: the decoder forgets it, the connection drops the rest.
    this.reset();
    this.#isSecuring = true;
    this.connection.startTls(tls).then(
      () => {
        this.#isSecuring = false;
        if (this.#state !== dialogueStates.busy) return;
        this.secured();
        this.#become(dialogueStates.talking);
      },
      (error: PlatformError) => {
        this.#outcome = error.code;
        this.#closed(error);
      },
    );
  }

  #become(state: 'talking' | 'busy'): void {
    this.#state = state;
    if (state === 'busy') {
      this.connection.pause();
      return;
    }
    this.connection.resume();
    this.#run();
  }

  #data(chunk: Buffer): void {
    if (this.#state !== dialogueStates.talking && this.#state !== dialogueStates.busy) return;
    this.#bytes += chunk.length;
    this.push(chunk);
    if (this.#state === dialogueStates.talking) this.#run();
    else if (this.#bytes > bytesWhileBusyMax) this.#tooMuch();
  }

  #run(): void {
    while (this.#state === dialogueStates.talking && this.advance());
    if (this.#state !== dialogueStates.talking) return;
    // What follows a login that is being answered is not counted before it has failed: it is meant for the member.
    if (this.#bytes > loginBytesMax) this.#tooMuch();
    else if (this.#hasClientEnded) this.#hangUp();
  }

  #tooMuch(): void {
    this.finish(this.farewell('limit', 'Too much before login'), 'too-many-bytes');
  }

  #startRelay(channel: SessionChannel): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#state = dialogueStates.relaying;
    this.#outcome = undefined;
    this.#relay = splice(this, this.connection, channel, this.takeRest() ?? nothing);
    if (this.#hasClientEnded) channel.end();
    else channel.onNotice?.(this);
  }

  /** The account may go to another member: the session goes along, and the client sees a pause. */
  channelNotice(notice: Record<string, unknown>): void {
    if (notice.kind === 'ticket' && typeof notice.ticket === 'string') this.#ticket = notice.ticket;
    if (notice.kind === 'move') this.#relay?.move(() => this.#goOn());
  }

  /** Opens the session at another member; `undefined` when it ends here. */
  async #goOn(): Promise<SessionChannel | undefined> {
    const login = this.#login;
    const ticket = this.#ticket;
    this.#ticket = undefined;
    if (ticket === undefined || login?.ok !== true) return undefined;
    const { accountName, cluster, member } = login;
    const client = clientFacts(this.connection);
    const moved = { service: this.protocol, sessionId: this.sessionId, client, accountName, cluster, member, ticket };
    const reached = await this.options.opener.resume(moved);
    if (reached === undefined) {
      this.#outcome = 'lost-in-move';
      this.connection.write(this.farewell('unavailable', 'The mailbox is not available at this moment, connect again'));
      return undefined;
    }
    const told = { sessionId: this.sessionId, protocol: this.protocol, from: member, member: reached.member };
    this.options.ports.log.info(told, 'session moved');
    this.#login = { ...login, member: reached.member };
    reached.channel.onNotice?.(this);
    return reached.channel;
  }

  #clientEnded(): void {
    // A client that has said its last word may still be waiting for the answer to it.
    this.#hasClientEnded = true;
    if (this.#state !== dialogueStates.busy) this.#hangUp();
  }

  #hangUp(): void {
    this.#outcome ??= 'client-closed';
    this.connection.end();
  }

  #tooLate(): void {
    this.#outcome = 'login-timeout';
    // In a handshake nothing can be said.
    if (this.#isSecuring) this.connection.destroy();
    else this.finish(this.farewell('timeout', 'Too slow to log in'), 'login-timeout');
  }

  #closed(error: Error | undefined): void {
    if (this.#state === dialogueStates.closed) return;
    this.#state = dialogueStates.closed;
    this.#timer?.cancel();
    const login = this.#login;
    if (this.#relay !== undefined && login?.ok === true) login.ended?.();
    this.abandonLogin();
    const fields = {
      sessionId: this.sessionId,
      protocol: this.protocol,
      clientIp: this.connection.remoteAddress,
      tls: this.connection.tls?.protocol ?? 'none',
      tlsCipher: this.connection.tls?.cipher,
      tlsServerName: this.connection.tls?.serverName,
      tlsClientName: this.connection.tls?.peerNames[0],
      account: login?.accountName,
      hostServer: login?.cluster,
      member: login?.member,
      bytesIn: this.#relay?.bytesIn ?? 0,
      bytesOut: this.#relay?.bytesOut ?? 0,
      durationMs: Math.round(this.clock.monotonicMs() - this.#startedAtMs),
      outcome: this.#outcome ?? (error === undefined ? 'client-closed' : 'client-lost'),
      wrongLogins: this.#wrongLogins,
    };
    if (this.#relay !== undefined || this.#commands > 0) this.options.ports.log.info(fields, 'session ended');
    // Port scans and load balancers' probes come by the thousand and say nothing.
    else this.options.ports.log.debug(fields, `connection ended in ${this.#step}`);
    this.#ended(this);
  }
}

function judged(result: LoginResult): Judged {
  if (!result.ok) return result;
  const { ok, accountName, cluster, member, ended } = result;
  return { ok, accountName, cluster, member, ended };
}

/** Gives back a session that nobody will use. */
function giveUp(session: Extract<LoginResult, { ok: true }>): void {
  session.channel.destroy();
  session.ended?.();
}

/** The client, as members and logs are told of it. */
function clientFacts({ remoteAddress, remotePort, localAddress, tls }: Connection): ClientFacts {
  const plain = { address: remoteAddress, port: remotePort, tls: tls !== undefined, localAddress };
  if (tls === undefined) return plain;
  const facts = { ...plain, tlsProtocol: tls.protocol, tlsCipher: tls.cipher };
  const serverName = tls.serverName === undefined ? facts : { ...facts, tlsServerName: tls.serverName };
  return tls.peerNames[0] === undefined ? serverName : { ...serverName, tlsClientName: tls.peerNames[0] };
}

function isLoopbackAddress(address: string): boolean {
  return address.startsWith('127.') || address === '::1';
}
