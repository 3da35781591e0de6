/**
 * The IMAP server of a member: one session from after login until its end.
 *
 *   connection ─data─► decoder ─next()─► one command ─► its handler ─► updates that may go out now ─► tagged reply
 *        ▲                                   │ only then the next one
 *        └──────── output (waits when full) ◄┘
 *
 * What always holds: commands are answered in the order they came; a response is never cut by another; nothing is read from the client
 * while `unreadBytesMax` octets wait to be executed; a client that says nothing for `autologoutMs` outside a command is logged out, one that
 * reads nothing is cut (output.ts), one that only makes mistakes is sent away after `badCommandsMax` of them in a row.
 *
 * The account may be closed under the session (deposed, draining, removed): then the client hears `* BYE [UNAVAILABLE]` and reconnects.
 * A rename of the account changes nothing here: the session holds the account, not its name.
 */
import type { Mailbox } from '#backend-cluster/mailboxes/open-account.ts';
import type { RunningSession, SessionContext, SessionServer } from '#backend-cluster/sessions/session.ts';
import type { Clock, Timer } from '#common/clock.ts';
import { asPlatformError } from '#common/errors/platform-error.ts';
import type { Connection } from '#common/network/network.ts';
import {
  CommandDecoder,
  type CommandPiece,
  type LiteralAnnounced,
  lineBytesMax,
  literalBytesOf,
  skippedLiteralBytesMax,
} from '#protocol/imap/decoder.ts';
import { CommandReader } from '#protocol/imap/reader.ts';
import { stateBytesMax } from '../handovers.ts';
import { refusalOf } from './append.ts';
import { logout } from './basic.ts';
import type { Command, ImapSession, TaggedReply } from './command.ts';
import { commands, uidCommands } from './commands.ts';
import { fetch } from './fetch.ts';
import { idleUntilDone, restsInIdle } from './idle.ts';
import type { MessageContent } from './message-content.ts';
import { MessageRoom, type RoomShare } from './message-room.ts';
import { ImapOutput } from './output.ts';
import { replyFor, taggedLine } from './replies.ts';
import { type SelectedImage, SelectedMailbox } from './selected.ts';

export { imapCapabilities } from './capabilities.ts';

/** RFC 9051 §5.4: at least thirty minutes. */
export const autologoutMs = 30 * 60_000;
/** Octets of commands that wait for the one before them; beyond, the client is held back. */
export const unreadBytesMax = 131_072;
/** Commands in a row that are answered BAD before the session is ended. */
export const badCommandsMax = 20;
/** Time for the client to close its side after our last line. */
const lingerMs = 5_000;

/** A session at rest, for another member to go on with. */
interface ImapState {
  /** Tag of the IDLE in which it rests. */
  readonly idleTag: string | undefined;
  readonly isCondstore: boolean;
  readonly selected: SelectedImage | undefined;
  /** The beginning of a line that has come, each octet as a character. */
  readonly held: string;
}

/** Makes the IMAP server of a member: it serves connections whose clients are authenticated, and they share one room for messages. */
export function createImapServer(): SessionServer {
  const room = new MessageRoom();
  return (connection, context, ended) => new Session(connection, context, room, ended);
}

class Session implements RunningSession, ImapSession {
  readonly account: SessionContext['account'];
  readonly clock: Clock;
  readonly out: ImapOutput;
  selected: SelectedMailbox | undefined;
  lastContent: MessageContent | undefined;
  isCondstore = false;
  isLoggingOut = false;
  readonly #connection: Connection;
  readonly #context: SessionContext;
  readonly #decoder = new CommandDecoder();
  readonly #room: MessageRoom;
  readonly #share: RoomShare;
  /** Set once the session is to go on at another member. */
  #moving: PromiseWithResolvers<object | undefined> | undefined;
  /** It has come to rest and says nothing more. */
  #isAtRest = false;
  /** Octets of literals of the command that runs. */
  #runningBytes = 0;
  readonly #stopListening: () => void;
  #isPaused = false;
  #inputEnded = false;
  #hasNews = false;
  #wake: (() => void) | undefined;
  #bads = 0;
  #commands = 0;
  #outcome: string | undefined;
  #lingering: Timer | undefined;

  constructor(connection: Connection, context: SessionContext, room: MessageRoom, ended: () => void) {
    this.#connection = connection;
    this.#context = context;
    this.account = context.account;
    this.#room = room;
    this.#share = room.share(context.account.uuid);
    this.clock = context.clock;
    this.out = new ImapOutput(connection, context.clock);
    this.#stopListening = this.account.onChange((change) => this.#onChange(change));
    connection.handle({
      data: (chunk) => this.#onData(chunk),
      end: () => {
        this.#inputEnded = true;
        this.#signal();
      },
      drain: () => this.out.drained(),
      close: () => {
        this.#outcome ??= this.#howItWentAway();
        this.#inputEnded = true;
        this.#lingering?.cancel();
        this.#stopListening();
        this.#share.hold(0);
        this.out.closed();
        this.#moving?.resolve(undefined);
        this.#signal();
        ended();
      },
    });
    void this.#run(context.resume as ImapState | undefined);
  }

  get isMoving(): boolean {
    return this.#moving !== undefined;
  }

  moveAway(): Promise<object | undefined> {
    this.#moving ??= Promise.withResolvers();
    this.#signal();
    return this.#moving.promise;
  }

  bye(text: string): void {
    if (this.#isAtRest) return;
    this.#end('ended by the server', `* BYE [UNAVAILABLE] ${text}`);
  }

  summary(): { readonly commands: number; readonly outcome: string } {
    return { commands: this.#commands, outcome: this.#outcome ?? 'running' };
  }

  async sync(mayExpunge: boolean): Promise<void> {
    const { selected, out } = this;
    if (selected === undefined) return;
    const mailbox: Mailbox | undefined = this.account.mailboxById(selected.id);
    if (mailbox === undefined) {
      // RFC 2180 §3.3: sessions on a deleted mailbox may be ended; the client's numbers mean nothing any more.
      this.#end('selected mailbox deleted', '* BYE The selected mailbox was deleted');
      return;
    }
    const updates = selected.collect(mailbox, mayExpunge);
    if (updates.flags !== undefined) await out.line(`* FLAGS (${updates.flags.join(' ')})`);
    for (const sequence of updates.expunged) await out.line(`* ${sequence} EXPUNGE`);
    if (updates.exists !== undefined) await out.line(`* ${updates.exists} EXISTS`);
    for (const { sequence, info } of updates.changed) {
      const modseq = this.isCondstore ? ` MODSEQ (${info.modseq})` : '';
      await out.line(`* ${sequence} FETCH (UID ${info.uid} FLAGS (${info.flags.join(' ')})${modseq})`);
    }
  }

  nextLine(): Buffer | undefined {
    return this.#decoder.nextLine();
  }

  /** Waits for bytes, a change or the end; ends the session when the client stays silent too long. False: no more input. */
  async wait(): Promise<boolean> {
    if (this.#isPaused) {
      this.#isPaused = false;
      this.#connection.resume();
    }
    if (!this.#hasNews && !this.#inputEnded && !this.out.isClosed) {
      const timer = this.clock.after(autologoutMs, () => this.#end('autologout', '* BYE Autologout: idle for too long'));
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      timer.cancel();
    }
    this.#hasNews = false;
    return !this.out.isClosed && !this.#inputEnded;
  }

  #onData(chunk: Buffer): void {
    if (this.out.isClosed) return;
    this.#decoder.push(chunk);
    if (!this.#holdLiterals()) {
      this.#end('no room for messages', '* BYE [UNAVAILABLE] Too much mail is coming in at this moment, please try again later');
      return;
    }
    if (this.#decoder.heldBytes > unreadBytesMax && !this.#isPaused && this.#wake === undefined) {
      this.#isPaused = true;
      this.#connection.pause();
    }
    this.#signal();
  }

  #holdLiterals(): boolean {
    return this.#share.hold(this.#runningBytes + this.#decoder.literalBytes);
  }

  #onChange(change: { readonly mailboxIds: readonly number[]; readonly closed: boolean }): void {
    if (change.closed || !this.account.isOpen) this.bye('The account was closed here, please connect again');
    else if (this.selected !== undefined && change.mailboxIds.includes(this.selected.id)) this.#signal();
  }

  #signal(): void {
    this.#hasNews = true;
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #howItWentAway(): string {
    return this.out.hasStalled ? 'client did not read' : 'client hung up';
  }

  #end(outcome: string, lastLine: string | undefined): void {
    this.#outcome ??= outcome;
    if (this.out.isClosed) return;
    this.out.finish(lastLine);
    this.#lingering ??= this.clock.after(lingerMs, () => this.#connection.destroy());
    this.#signal();
  }

  async #run(resumed: ImapState | undefined): Promise<void> {
    try {
      if (resumed !== undefined) await this.#resume(resumed);
      while (!this.out.isClosed && !this.#isAtRest) {
        const event = this.#decoder.next();
        if (event === undefined) {
          await this.out.flush();
          if (this.#inputEnded && this.#moving !== undefined) this.#rest(undefined);
          else if (this.#inputEnded) break;
          else await this.wait();
        } else if (event.kind === 'command') {
          this.#runningBytes = literalBytesOf(event.pieces);
          await this.#command(event.pieces);
          this.#runningBytes = 0;
          if (!this.out.isClosed) this.#holdLiterals();
        } else if (event.kind === 'literal') await this.#literal(event);
        else await this.#reply(tagOf(event.pieces), { status: 'BAD', code: 'TOOBIG', text: event.why });
      }
      if (!this.#isAtRest) this.#end('client hung up', undefined);
    } catch (thrown) {
      // The connection went away under a response, or a handler broke a promise: this session ends, nothing else.
      const error = asPlatformError(thrown);
      if (error.code !== 'NET_CLOSED') this.#context.log.error({ errCode: error.code, error: error.message }, 'IMAP session broke');
      this.#end(error.code === 'NET_CLOSED' ? this.#howItWentAway() : 'broken', '* BYE [SERVERBUG] Internal error');
    }
  }

  async #literal(event: LiteralAnnounced): Promise<void> {
    const refusal = this.#refusalOf(event);
    if (refusal === undefined) {
      this.#decoder.acceptLiteral();
      if (event.waits) {
        await this.out.line('+ Ready for literal data');
        await this.out.flush();
      }
      return;
    }
    if (!event.waits && event.sizeBytes > skippedLiteralBytesMax) {
      this.#end('literal too large', '* BYE [TOOBIG] The literal is too large');
      return;
    }
    this.#decoder.refuseLiteral();
    await this.#reply(tagOf(event.pieces), refusal);
  }

  #refusalOf({ pieces, sizeBytes }: LiteralAnnounced): TaggedReply | undefined {
    try {
      const name = nameOf(pieces);
      if (name === 'APPEND') {
        const { isMessage, reply } = refusalOf(this.account, pieces, sizeBytes);
        if (isMessage && reply === undefined && !this.#room.hasRoom(this.account.uuid, sizeBytes)) {
          return { status: 'NO', code: 'UNAVAILABLE', text: 'Too much mail is coming in at this moment, try again later' };
        }
        if (isMessage) return reply;
      }
    } catch (thrown) {
      return replyFor(asPlatformError(thrown));
    }
    if (literalBytesOf(pieces) + sizeBytes <= lineBytesMax) return undefined;
    return { status: 'BAD', code: 'TOOBIG', text: `The literals of a command are longer than ${lineBytesMax} octets` };
  }

  async #command(pieces: readonly CommandPiece[]): Promise<void> {
    const reader = new CommandReader(pieces);
    let tag: string | undefined;
    let command: Command | undefined;
    let isUid = false;
    let reply: TaggedReply;
    this.#commands += 1;
    try {
      tag = reader.tag();
      reader.space();
      let name = reader.keyword();
      if (name === 'UID') {
        isUid = true;
        reader.space();
        name = reader.keyword();
      }
      command = isUid && !uidCommands.has(name) ? undefined : commands.get(name);
      reply = command === undefined ? unknownCommand : await this.#execute(command, reader, { tag, isUid });
    } catch (thrown) {
      const error = asPlatformError(thrown);
      if (error.code === 'NET_CLOSED') throw error;
      if (error.kind === 'bug')
        this.#context.log.error({ errCode: error.code, error: error.message, cause: error.cause }, 'IMAP command failed');
      else this.#context.log.debug({ errCode: error.code, error: error.message }, 'IMAP command refused');
      reply = replyFor(error);
    }
    if (this.out.isClosed) return;
    if (reply === restsInIdle) {
      this.#rest(tag);
      return;
    }
    if (command?.inSelected !== undefined || reply.status === 'OK') await this.sync(isUid || command?.holdsExpunge === undefined);
    if (!this.out.isClosed) await this.#reply(tag, reply);
    if (this.isLoggingOut) this.#end('logout', undefined);
    else if (!this.account.isOpen) this.bye('The account was closed here, please connect again');
  }

  /** Comes to rest, in IDLE if its tag is given; what is in the middle of a literal cannot, and is told goodbye. */
  #rest(idleTag: string | undefined): void {
    const { selected } = this;
    const mailbox = selected === undefined ? undefined : this.account.mailboxById(selected.id);
    const held = this.#decoder.takeBeginning();
    const state: ImapState = {
      idleTag,
      isCondstore: this.isCondstore,
      selected: selected === undefined || mailbox === undefined ? undefined : selected.image(mailbox.uidValidity),
      held: held?.toString('latin1') ?? '',
    };
    const canMove = held !== undefined && (selected === undefined || mailbox !== undefined);
    if (!canMove || JSON.stringify(state).length > stateBytesMax) {
      this.#end('cannot be moved', '* BYE [UNAVAILABLE] The account is served elsewhere now, connect again');
      this.#moving?.resolve(undefined);
      return;
    }
    this.#isAtRest = true;
    this.#outcome ??= 'moved to another member';
    this.#stopListening();
    this.#moving?.resolve(state);
  }

  /** Goes on where the session came to rest at another member. */
  async #resume(state: ImapState): Promise<void> {
    this.isCondstore = state.isCondstore;
    if (state.selected !== undefined) {
      const mailbox = this.account.mailboxById(state.selected.id);
      if (mailbox === undefined || mailbox.uidValidity !== state.selected.uidValidity) {
        this.#end('selected mailbox deleted', '* BYE The selected mailbox was deleted');
        return;
      }
      this.selected = SelectedMailbox.restore(mailbox, state.selected);
    }
    if (state.held !== '') this.#decoder.push(Buffer.from(state.held, 'latin1'));
    if (state.idleTag === undefined) return;
    const reply = await idleUntilDone(this);
    if (reply === restsInIdle) {
      this.#rest(state.idleTag);
      return;
    }
    await this.sync(true);
    if (!this.out.isClosed) await this.#reply(state.idleTag, reply);
  }

  async #execute(command: Command, reader: CommandReader, call: { tag: string; isUid: boolean }): Promise<TaggedReply> {
    if (command.inSelected !== undefined && this.selected === undefined) {
      return { status: 'BAD', code: 'CLIENTBUG', text: 'No mailbox is selected' };
    }
    if (command !== fetch) this.lastContent = undefined;
    if (command !== logout) await this.#context.refresh();
    // Arguments, if any, follow one space.
    reader.take(' ');
    return await command.run(this, reader, call);
  }

  async #reply(tag: string | undefined, reply: TaggedReply): Promise<void> {
    this.#bads = reply.status === 'BAD' ? this.#bads + 1 : 0;
    await this.out.line(taggedLine(tag ?? '*', reply));
    if (this.#bads >= badCommandsMax) this.#end('too many bad commands', '* BYE Too many commands were not understood');
  }
}

const unknownCommand: TaggedReply = { status: 'BAD', code: 'CLIENTBUG', text: 'Unknown command' };

function tagOf(pieces: readonly CommandPiece[]): string | undefined {
  try {
    return new CommandReader(pieces).tag();
  } catch {
    return undefined;
  }
}

function nameOf(pieces: readonly CommandPiece[]): string {
  const reader = new CommandReader(pieces);
  reader.tag();
  reader.space();
  return reader.keyword();
}
