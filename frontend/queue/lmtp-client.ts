/**
 * LMTP to a member, or to a server that is not ours (RFC 2033), pipelined (RFC 2920): MAIL, all RCPT and DATA go out in one piece, then the message, then one answer for each
 * accepted recipient is read. One message at a time; the connection is kept for the next. Parameters go out as far as the server offers them.
 *
 * `send` never rejects. When the connection breaks, recipients without an answer are `temporary`: they may have been delivered, and the
 * delivery id keeps the next attempt from storing them twice (a foreign server knows none, and may).
 */
import type { AccountName } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { LineChannel } from '#common/network/line-channel.ts';
import type { Delivery } from '#frontend/listeners/smtp-contract.ts';
import { dotStuffed } from '#protocol/smtp/dot-stuffing.ts';
import { joinReply, parseReplyLine, replyLineBytesMax, replyLinesMax, type SmtpReply } from '#protocol/smtp/reply.ts';

/** What became of one recipient. */
export type RecipientResult =
  | { readonly kind: 'delivered' }
  | { readonly kind: 'temporary'; readonly status: string; readonly text: string }
  | { readonly kind: 'permanent'; readonly status: string; readonly text: string };

/** A message for recipients of one cluster. */
export interface LmtpMessage {
  readonly sender: string;
  readonly deliveryId: string;
  readonly recipients: readonly AccountName[];
  readonly raw: Buffer;
}

/** Results in the order of the recipients. `usable` false: open another connection for the next message. */
export interface LmtpOutcome {
  readonly results: readonly RecipientResult[];
  readonly usable: boolean;
  /** True when nothing of the message can have reached the member: the connection had been closed while it was idle. */
  readonly wasStale: boolean;
}

const greetingMaxMs = 15_000;
const commandMaxMs = 60_000;
/** The member commits to shared storage for every recipient before it answers. */
const finalMaxMs = 180_000;
const writeMaxMs = 120_000;
const chunkBytes = 64 * 1024;

/** A connection to a member, kept between messages. */
export class LmtpClient {
  readonly #channel: LineChannel;
  /** Extensions, by their keywords: a server that is not ours offers fewer. */
  readonly #offers = new Set<string>();

  private constructor(channel: LineChannel) {
    this.#channel = channel;
  }

  /** Greets the member. `undefined` when it does not answer as an LMTP server does; the connection is then closed. */
  static async greet(delivery: Delivery, clock: Clock, hostName: string): Promise<LmtpClient | undefined> {
    const client = new LmtpClient(new LineChannel(delivery.connection, clock));
    const greeting = delivery.isGreeted ? undefined : await client.#reply(greetingMaxMs);
    if (delivery.isGreeted || greeting?.code === 220) {
      client.#channel.write(`LHLO ${hostName}\r\n`);
      const hello = await client.#reply(greetingMaxMs);
      for (const line of hello?.text.split('\n') ?? []) client.#offers.add((line.split(' ')[0] ?? '').toUpperCase());
      if (hello?.code === 250) return client;
    }
    client.#channel.destroy();
    return undefined;
  }

  get isClosed(): boolean {
    return this.#channel.hasEnded;
  }

  onClose(listener: () => void): void {
    this.#channel.onClose(listener);
  }

  async send(message: LmtpMessage): Promise<LmtpOutcome> {
    // A member that drains says 421 to connections that are idle: that line is the answer to nothing of ours.
    if (this.#channel.hasEnded || this.#channel.hasUnread) {
      this.#channel.destroy();
      return { results: message.recipients.map(() => noAnswer), usable: false, wasStale: true };
    }
    const isUtf8 = /[^\u0020-\u007e]/.test(message.sender + message.recipients.join(''));
    const parameters = [
      ['SIZE', ` SIZE=${message.raw.length}`],
      ['8BITMIME', ' BODY=8BITMIME'],
      ['SMTPUTF8', isUtf8 ? ' SMTPUTF8' : ''],
      ['XDELIVERYID', ` XDELIVERYID=${message.deliveryId}`],
    ].flatMap(([keyword, parameter]) => (this.#offers.has(keyword as string) ? [parameter] : []));
    this.#channel.write(
      [`MAIL FROM:<${message.sender}>${parameters.join('')}`, ...message.recipients.map((name) => `RCPT TO:<${name}>`), 'DATA', ''].join(
        '\r\n',
      ),
    );
    const mail = await this.#reply(commandMaxMs);
    if (mail === undefined)
      return this.#broken(
        message.recipients.map(() => undefined),
        true,
      );
    const results: (RecipientResult | undefined)[] = [];
    for (const _ of message.recipients) {
      const reply = await this.#reply(commandMaxMs);
      if (reply === undefined) return this.#broken(results.concat(message.recipients.slice(results.length).map(() => undefined)));
      // RCPT after a refused MAIL says only that: what counts is why MAIL was refused.
      results.push(reply.code === 250 ? undefined : resultOf(mail.code === 250 ? reply : mail));
    }
    const data = await this.#reply(commandMaxMs);
    if (data === undefined) return this.#broken(results);
    if (data.code !== 354) {
      this.#channel.write('RSET\r\n');
      const reset = await this.#reply(commandMaxMs);
      const refusal = results.map((result) => result ?? resultOf(mail.code === 250 ? data : mail));
      return { results: refusal, usable: reset?.code === 250, wasStale: false };
    }
    if (!(await this.#text(message.raw))) return this.#broken(results);
    for (let i = 0; i < results.length; i += 1) {
      if (results[i] !== undefined) continue;
      const reply = await this.#reply(finalMaxMs);
      if (reply === undefined) return this.#broken(results);
      results[i] = resultOf(reply);
    }
    return { results: results.map((result) => result ?? noAnswer), usable: !this.isClosed, wasStale: false };
  }

  /** Says goodbye and closes. */
  quit(): void {
    this.#channel.write('QUIT\r\n');
    this.#channel.end();
  }

  destroy(): void {
    this.#channel.destroy();
  }

  async #text(raw: Buffer): Promise<boolean> {
    for (const part of dotStuffed(raw)) {
      for (let at = 0; at < part.length; at += chunkBytes) {
        if (!(await this.#channel.writeAndWait(part.subarray(at, at + chunkBytes), writeMaxMs))) return false;
      }
    }
    return true;
  }

  /** One reply with all its lines; `undefined` when none came or what came is no reply. */
  async #reply(timeoutMs: number): Promise<SmtpReply | undefined> {
    const texts: string[] = [];
    for (;;) {
      const result = await this.#channel.readLine({ bytesMax: replyLineBytesMax, timeoutMs, strict: true });
      const line = result.kind === 'line' ? parseReplyLine(result.line.toString('utf8')) : undefined;
      if (line === undefined || texts.length >= replyLinesMax) return undefined;
      texts.push(line.text);
      if (line.isLast) return joinReply(line.code, texts);
    }
  }

  #broken(results: readonly (RecipientResult | undefined)[], isFirstReply = false): LmtpOutcome {
    const wasStale = isFirstReply && this.#channel.hasEnded;
    this.#channel.destroy();
    return { results: results.map((result) => result ?? noAnswer), usable: false, wasStale };
  }
}

const noAnswer: RecipientResult = { kind: 'temporary', status: '4.4.2', text: 'The connection ended before an answer came' };

/**
 * 5.1.1 is no verdict: the directory, not the member, says who exists. Protocol errors (500 to 504, 555) are ours to mend, and the message
 * waits for that.
 */
function resultOf(reply: SmtpReply): RecipientResult {
  const text = reply.text === '' ? `Reply ${reply.code}` : reply.text;
  if (reply.code >= 200 && reply.code < 300) return { kind: 'delivered' };
  const isVerdict = reply.code >= 550 && reply.code !== 555 && reply.enhanced !== '5.1.1';
  if (isVerdict) return { kind: 'permanent', status: reply.enhanced ?? '5.0.0', text };
  return { kind: 'temporary', status: reply.enhanced?.replace(/^5/, '4') ?? '4.3.0', text };
}
