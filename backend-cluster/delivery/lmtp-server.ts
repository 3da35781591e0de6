/**
 * LMTP on a member (RFC 2033): a frontend's queue hands over a message for several accounts and gets one answer for each. The channel
 * belongs to a frontend that its certificate let in, so there is no login; what it sends is still checked and limited.
 *
 *   LHLO ─► MAIL FROM:<s> XDELIVERYID=q ─► RCPT TO:<a> RCPT TO:<b> ─► DATA … CRLF.CRLF ─► 250 for a, 451 for b
 *
 * `XDELIVERYID` is ours: the token by which a repeated delivery is known again. An account takes one message of an id, so a message that
 * reaches an account by two of its names is stored once.
 */
import { type AccountName, tryParseAccountName } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { asPlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { LineChannel } from '#common/network/line-channel.ts';
import type { Connection } from '#common/network/network.ts';
import { DotDecoder } from '#protocol/smtp/dot-stuffing.ts';
import { parsePathAndParameters } from '#protocol/smtp/path.ts';
import { formatReply, replyForKind } from '#protocol/smtp/reply.ts';
import type { RunningSession } from '../sessions/session.ts';
import type { DeliveredMessage } from './deliver.ts';
import { traceHeaders } from './trace-headers.ts';

/** What the server asks of its member. */
export interface LmtpContext {
  /** Rejects with a `PlatformError` when mail for this account cannot be taken here now (kind `unavailable`, `moved`) or ever (`not-found`). */
  checkRecipient(name: AccountName): Promise<void>;
  /** Stores the message; resolves once it is durable. */
  deliver(recipient: AccountName, message: DeliveredMessage): Promise<void>;
  readonly log: Logger;
  readonly clock: Clock;
  /** This member's name. */
  readonly hostName: string;
  /** Largest message, bytes; default 100 MiB, twice what frontends accept by default. */
  readonly messageBytesMax?: number;
}

const defaultMessageBytesMax = 100 * 1024 * 1024;
/** Longest command line: a path and its parameters fit many times over (RFC 5321 §4.5.3.1.4 asks for 512). */
const commandBytesMax = 2048;
const recipientsMax = 1000;
/** Kept connections are idle between messages; the frontend closes them first. */
const idleMaxMs = 10 * 60_000;
const dataStallMaxMs = 5 * 60_000;
const badCommandsMax = 20;
/** Accounts that one message is stored into at the same time. */
const parallelDeliveries = 8;

interface Transaction {
  readonly sender: string;
  readonly deliveryId: string;
  readonly recipients: AccountName[];
}

/** Reply to one command; those that are `isBad` are counted. */
interface Answer {
  readonly reply: string;
  readonly isBad: boolean;
}

function ok(enhanced: string, text: string): Answer {
  return { reply: formatReply(250, enhanced, text), isBad: false };
}

function refused(code: number, enhanced: string, text: string): Answer {
  return { reply: formatReply(code, enhanced, text), isBad: false };
}

function bad(code: number, enhanced: string, text: string): Answer {
  return { reply: formatReply(code, enhanced, text), isBad: true };
}

/** Serves one LMTP connection. `ended` is called exactly once. */
export function serveLmtp(connection: Connection, context: LmtpContext, ended: () => void): RunningSession {
  return new LmtpSession(connection, context, ended);
}

class LmtpSession implements RunningSession {
  readonly #channel: LineChannel;
  readonly #context: LmtpContext;
  readonly #messageBytesMax: number;
  #clientName: string | undefined;
  #transaction: Transaction | undefined;
  #commands = 0;
  #badCommands = 0;
  #isDelivering = false;
  #byeText: string | undefined;
  #outcome: string | undefined;

  constructor(connection: Connection, context: LmtpContext, ended: () => void) {
    this.#channel = new LineChannel(connection, context.clock);
    this.#context = context;
    this.#messageBytesMax = context.messageBytesMax ?? defaultMessageBytesMax;
    this.#channel.onClose((error) => {
      this.#outcome ??= error === undefined ? 'closed by client' : 'connection lost';
      ended();
    });
    this.#channel.write(formatReply(220, undefined, `${context.hostName} LMTP`));
    void this.#run();
  }

  /** While a message is being stored its answers go out first, so that it need not be sent again. */
  bye(text: string): void {
    if (this.#isDelivering) this.#byeText = text;
    else this.#close('ended by server', formatReply(421, '4.3.2', text));
  }

  summary(): { readonly commands: number; readonly outcome: string } {
    return { commands: this.#commands, outcome: this.#outcome ?? 'open' };
  }

  async #run(): Promise<void> {
    try {
      while (this.#outcome === undefined) await this.#next();
    } catch (thrown) {
      const error = asPlatformError(thrown);
      this.#context.log.error({ errCode: error.code, err: error }, `LMTP session failed: ${error.message}`);
      this.#close('failed', formatReply(421, '4.3.0', 'Internal error'));
    }
  }

  async #next(): Promise<void> {
    const result = await this.#channel.readLine({ bytesMax: commandBytesMax, timeoutMs: idleMaxMs, strict: true });
    if (this.#outcome !== undefined) return;
    if (result.kind === 'ended') return this.#close('closed by client');
    if (result.kind === 'timeout') return this.#close('idle too long', formatReply(421, '4.4.2', 'Idle too long'));
    if (result.kind === 'too-long') return this.#close('line too long', formatReply(500, '5.5.2', 'Line too long'));
    this.#commands += 1;
    const line = result.line.toString('utf8');
    const space = line.indexOf(' ');
    const verb = (space < 0 ? line : line.slice(0, space)).toUpperCase();
    const rest = space < 0 ? '' : line.slice(space + 1);
    switch (verb) {
      case 'LHLO':
        return this.#answer(this.#lhlo(rest));
      case 'MAIL':
        return this.#answer(this.#mail(rest));
      case 'RCPT':
        return this.#answer(await this.#rcpt(rest));
      case 'DATA':
        return await this.#data(rest);
      case 'RSET':
        this.#transaction = undefined;
        return this.#answer(ok('2.0.0', 'OK'));
      case 'NOOP':
        return this.#answer(ok('2.0.0', 'OK'));
      case 'QUIT':
        return this.#close('quit', formatReply(221, '2.0.0', 'Bye'));
      case 'HELO':
      case 'EHLO':
        // RFC 2033 §4.1: these commands must not be used.
        return this.#answer(bad(500, '5.5.1', 'This is LMTP, use LHLO'));
      default:
        return this.#answer(bad(500, '5.5.1', 'Command not understood'));
    }
  }

  #lhlo(name: string): Answer {
    if (!/^[A-Za-z0-9.:[\]_-]{1,255}$/.test(name)) return bad(501, '5.5.4', 'LHLO needs a host name');
    this.#clientName = name;
    this.#transaction = undefined;
    const extensions = ['PIPELINING', 'ENHANCEDSTATUSCODES', '8BITMIME', 'SMTPUTF8', `SIZE ${this.#messageBytesMax}`, 'XDELIVERYID'];
    return { reply: formatReply(250, undefined, [this.#context.hostName, ...extensions]), isBad: false };
  }

  #mail(rest: string): Answer {
    if (this.#clientName === undefined) return bad(503, '5.5.1', 'LHLO first');
    if (this.#transaction !== undefined) return bad(503, '5.5.1', 'A transaction is open');
    if (!/^from:/i.test(rest)) return bad(501, '5.5.4', 'Expected MAIL FROM:<path>');
    const parsed = parsePathAndParameters(rest.slice(5), 'reverse');
    if (!parsed.ok) return bad(501, '5.1.7', parsed.problem);
    for (const [key, value] of parsed.parameters) {
      if (key === 'SIZE' && value !== undefined && /^[0-9]{1,15}$/.test(value)) {
        if (Number(value) > this.#messageBytesMax) return refused(552, '5.3.4', 'Message is too large');
      } else if (key === 'BODY' && (value === '7BIT' || value === '8BITMIME')) {
        // Stored as it comes in either case.
      } else if (key === 'SMTPUTF8' && value === undefined) {
        // Addresses are read as UTF-8 in any case.
      } else if (key !== 'XDELIVERYID' || value === undefined || !/^[A-Za-z0-9._-]{1,100}$/.test(value)) {
        return bad(555, '5.5.4', 'Parameter not understood');
      }
    }
    const deliveryId = parsed.parameters.get('XDELIVERYID');
    if (deliveryId === undefined) return bad(555, '5.5.4', 'XDELIVERYID is required');
    this.#transaction = { sender: parsed.path.address, deliveryId, recipients: [] };
    return ok('2.1.0', 'OK');
  }

  async #rcpt(rest: string): Promise<Answer> {
    const transaction = this.#transaction;
    if (transaction === undefined) return bad(503, '5.5.1', 'MAIL first');
    if (!/^to:/i.test(rest)) return bad(501, '5.5.4', 'Expected RCPT TO:<path>');
    const parsed = parsePathAndParameters(rest.slice(3), 'forward');
    if (!parsed.ok) return bad(501, '5.1.3', parsed.problem);
    if (parsed.parameters.size > 0) return bad(555, '5.5.4', 'Parameter not understood');
    if (transaction.recipients.length >= recipientsMax) return refused(452, '4.5.3', 'Too many recipients');
    const name = tryParseAccountName(parsed.path.address);
    if (name === undefined) return refused(550, '5.1.1', 'No such recipient here');
    try {
      await this.#context.checkRecipient(name);
    } catch (thrown) {
      return { reply: this.#refusal(thrown, name), isBad: false };
    }
    transaction.recipients.push(name);
    return ok('2.1.5', 'OK');
  }

  async #data(rest: string): Promise<void> {
    const transaction = this.#transaction;
    if (rest !== '') return this.#answer(bad(501, '5.5.4', 'DATA takes no argument'));
    if (transaction === undefined) return this.#answer(bad(503, '5.5.1', 'MAIL first'));
    // RFC 2033 §4.2: DATA fails with 503 when no recipient was accepted, so that pipelining stays safe.
    if (transaction.recipients.length === 0) return this.#answer(bad(503, '5.5.1', 'No valid recipients'));
    this.#channel.write(formatReply(354, undefined, 'End data with <CR><LF>.<CR><LF>'));
    const decoder = new DotDecoder(this.#messageBytesMax);
    const isWhole = await this.#receive(decoder);
    if (!isWhole) return;
    this.#transaction = undefined;
    if (decoder.isTooBig) {
      this.#channel.write(formatReply(552, '5.3.4', 'Message is too large').repeat(transaction.recipients.length));
      return;
    }
    await this.#deliver(transaction, decoder.text());
  }

  async #receive(decoder: DotDecoder): Promise<boolean> {
    for (;;) {
      const chunk = await this.#channel.readChunk(dataStallMaxMs);
      if (this.#outcome !== undefined) return false;
      if (chunk === undefined) {
        this.#close(this.#channel.hasEnded ? 'closed by client in data' : 'stalled in data');
        return false;
      }
      const result = decoder.push(chunk);
      if (result.kind === 'needs-more') continue;
      this.#channel.unread(result.rest);
      return true;
    }
  }

  /** Stores for all recipients, some at a time; answers in the order of RCPT (RFC 2033 §4.2), each as soon as those before it are known. */
  async #deliver(transaction: Transaction, raw: Buffer): Promise<void> {
    this.#isDelivering = true;
    const receivedAtMs = this.#context.clock.nowMs();
    const { sender, deliveryId, recipients } = transaction;
    const store = async (recipient: AccountName): Promise<string> => {
      const facts = { sender, recipient, from: this.#clientName ?? 'unknown', by: this.#context.hostName, deliveryId, receivedAtMs };
      try {
        await this.#context.deliver(recipient, { raw: Buffer.concat([traceHeaders(facts), raw]), deliveryId, sender, receivedAtMs });
        return formatReply(250, '2.1.5', `<${recipient}> delivered`);
      } catch (thrown) {
        return this.#refusal(thrown, recipient);
      }
    };
    for (let at = 0; at < recipients.length; at += parallelDeliveries) {
      for (const reply of await Promise.all(recipients.slice(at, at + parallelDeliveries).map(store))) this.#channel.write(reply);
    }
    this.#isDelivering = false;
    if (this.#byeText !== undefined) this.bye(this.#byeText);
  }

  #refusal(thrown: unknown, recipient: AccountName): string {
    const error = asPlatformError(thrown);
    this.#context.log.info({ account: recipient, errCode: error.code }, `LMTP recipient refused: ${error.message}`);
    // A fault of ours says nothing about the recipient: the frontend keeps the message and tries again.
    return replyForKind(error.kind === 'bug' || error.kind === 'config' ? 'unavailable' : error.kind);
  }

  #answer(answer: Answer): void {
    if (answer.isBad) this.#badCommands += 1;
    if (this.#badCommands < badCommandsMax) this.#channel.write(answer.reply);
    else this.#close('too many bad commands', formatReply(421, '4.7.0', 'Too many bad commands'));
  }

  #close(outcome: string, lastReply?: string): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = outcome;
    if (lastReply !== undefined) this.#channel.write(lastReply);
    this.#channel.end();
  }
}
