/**
 * Mail for the world outside goes to one configured relay. This file is the adapter to nodemailer's SMTP client, which brings its own
 * sockets; nothing else in the queue knows it.
 */
import SmtpConnection, { type SMTPEnvelope } from 'nodemailer/lib/smtp-connection';
import type { RecipientResult } from './lmtp-client.ts';
import { Slots } from './slots.ts';

/** Sends to the world outside. */
export interface RelayTransport {
  /** Never rejects. Results are in the order of the recipients. */
  send(message: { sender: string; recipients: readonly string[]; raw: Buffer }): Promise<readonly RecipientResult[]>;
}

/** Connections to the relay at a time. */
const connectionsMax = 4;
const connectMaxMs = 15_000;
const greetingMaxMs = 30_000;
const silenceMaxMs = 120_000;

interface SmtpFailure {
  readonly recipient?: string;
  readonly responseCode?: number;
  readonly response?: string;
  readonly message: string;
}

/** A relay at `host:port`, spoken to with TLS where it offers it. */
export function createRelay(options: { host: string; port: number; hostName: string }): RelayTransport {
  const slots = new Slots(connectionsMax);
  return { send: (message) => slots.run(() => sendOnce(options, message)) };
}

function sendOnce(
  options: { host: string; port: number; hostName: string },
  message: { sender: string; recipients: readonly string[]; raw: Buffer },
): Promise<readonly RecipientResult[]> {
  return new Promise((resolve) => {
    const connection = new SmtpConnection({
      host: options.host,
      port: options.port,
      name: options.hostName,
      connectionTimeout: connectMaxMs,
      greetingTimeout: greetingMaxMs,
      socketTimeout: silenceMaxMs,
      opportunisticTLS: true,
      // Between mail servers TLS without a verified name is better than none (RFC 7435), and a relay has no way to be named otherwise.
      tls: { rejectUnauthorized: false },
    });
    const settle = (results: readonly RecipientResult[]): void => {
      resolve(results);
      connection.close();
    };
    const all = (failure: SmtpFailure): void => settle(message.recipients.map(() => resultOf(failure)));
    connection.on('error', (error: Error) => all(error as SmtpFailure));
    connection.once('end', () => all({ message: 'The relay closed the connection' }));
    connection.connect((error) => {
      if (error) return all(error as SmtpFailure);
      const from: string | false = message.sender === '' ? false : message.sender;
      const envelope: SMTPEnvelope = { from, to: [...message.recipients], size: message.raw.length, use8BitMime: true };
      connection.send(envelope, message.raw, (failure, info) => {
        const rejected = new Map<string, SmtpFailure>();
        const errors = (failure as { rejectedErrors?: SmtpFailure[] } | null)?.rejectedErrors ?? info?.rejectedErrors ?? [];
        for (const entry of errors as readonly SmtpFailure[]) if (entry.recipient !== undefined) rejected.set(entry.recipient, entry);
        settle(
          message.recipients.map((recipient) => {
            const refusal = rejected.get(recipient) ?? (failure as SmtpFailure | null) ?? undefined;
            return refusal === undefined ? { kind: 'delivered' } : resultOf(refusal);
          }),
        );
      });
    });
  });
}

function resultOf(failure: SmtpFailure): RecipientResult {
  const code = failure.responseCode ?? 0;
  const enhanced = /^[0-9]{3}[ -]([245]\.[0-9]{1,3}\.[0-9]{1,3}) /.exec(failure.response ?? '')?.[1];
  const text = failure.response ?? failure.message;
  return code >= 500 && code < 600
    ? { kind: 'permanent', status: enhanced ?? '5.0.0', text }
    : { kind: 'temporary', status: enhanced ?? '4.4.1', text };
}
