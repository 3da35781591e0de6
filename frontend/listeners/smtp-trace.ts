/**
 * What a frontend puts before a message that it accepts: Received (RFC 5321 §4.4), and for submitted mail Date and Message-ID where they
 * are missing (RFC 6409 §8).
 */
import { mailDate } from '../queue/bounce.ts';

/** Received lines from which a message is taken to go round in circles (RFC 5321 §6.3). */
export const hopsMax = 100;

/** Facts of one accepted message. */
export interface TraceFacts {
  readonly clientName: string;
  readonly clientAddress: string;
  readonly hostName: string;
  /** `ESMTPS`, `ESMTPSA` ... (RFC 3848). */
  readonly protocol: string;
  readonly queueId: string;
  readonly sessionId: string;
  readonly nowMs: number;
}

/** The Received header with CRLF line ends. Client-given text is reduced to what cannot break a header. */
export function receivedHeader(facts: TraceFacts): Buffer {
  const clientName = /^[A-Za-z0-9.:[\]_-]{1,255}$/.test(facts.clientName) ? facts.clientName : 'unknown';
  return Buffer.from(
    [
      `Received: from ${clientName} ([${facts.clientAddress}])`,
      `\tby ${facts.hostName} with ${facts.protocol} id ${facts.queueId}`,
      `\t(session ${facts.sessionId}); ${mailDate(facts.nowMs)}`,
      '',
    ].join('\r\n'),
  );
}

/** Date and Message-ID for a submitted message that has none. */
export function missingHeaders(raw: Buffer, facts: { nowMs: number; queueId: string; hostName: string }): Buffer {
  const names = headerNames(raw);
  const lines: string[] = [];
  if (!names.includes('date')) lines.push(`Date: ${mailDate(facts.nowMs)}\r\n`);
  if (!names.includes('message-id')) lines.push(`Message-ID: <${facts.queueId}@${facts.hostName}>\r\n`);
  return Buffer.from(lines.join(''));
}

/** How many servers the message says it has been through. */
export function hopCount(raw: Buffer): number {
  return headerNames(raw).filter((name) => name === 'received').length;
}

/** Names of the header fields, lower case, in order; looks no further than the first 256 kB. */
function headerNames(raw: Buffer): string[] {
  const end = raw.subarray(0, 2).toString() === '\r\n' ? 0 : raw.indexOf('\r\n\r\n');
  const header = raw.subarray(0, Math.min(end < 0 ? raw.length : end, 256 * 1024)).toString('latin1');
  const names: string[] = [];
  for (const line of header.split('\r\n')) {
    const match = /^([!-9;-~]+)[ \t]*:/.exec(line);
    if (match !== null) names.push((match[1] as string).toLowerCase());
  }
  return names;
}
