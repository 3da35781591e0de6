/**
 * The message that tells a sender what could not be delivered: a delivery status notification (RFC 3464) inside multipart/report
 * (RFC 6522). It goes out with an empty sender, so that it is never answered by another (RFC 5321 §6.1).
 */

/** A recipient that failed for good. */
export interface FailedRecipient {
  readonly address: string;
  /** RFC 3463. */
  readonly status: string;
  readonly text: string;
}

/** What a notification says. */
export interface BounceFacts {
  readonly hostName: string;
  /** Queue id of the notification itself. */
  readonly id: string;
  readonly originalId: string;
  readonly sender: string;
  readonly failed: readonly FailedRecipient[];
  readonly originalRaw: Buffer;
  readonly acceptedAtMs: number;
  readonly nowMs: number;
}

/** Header of the original that is sent back, octets. */
const headerBytesMax = 16 * 1024;

/** The notification, with CRLF line ends. */
export function bounceMessage(facts: BounceFacts): Buffer {
  const boundary = `=_${facts.id}`;
  const isPlain = /^[\u0020-\u007e]*$/.test(facts.sender + facts.failed.map((entry) => entry.address + entry.text).join(''));
  const lines = [
    `Date: ${mailDate(facts.nowMs)}`,
    `From: Mail Delivery System <MAILER-DAEMON@${facts.hostName}>`,
    `To: <${facts.sender}>`,
    'Subject: Your message could not be delivered',
    `Message-ID: <${facts.id}@${facts.hostName}>`,
    'Auto-Submitted: auto-replied',
    'MIME-Version: 1.0',
    `Content-Type: multipart/report; report-type=delivery-status; boundary="${boundary}"`,
    '',
    `--${boundary}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Transfer-Encoding: ${isPlain ? '7bit' : '8bit'}`,
    '',
    `This is the mail server ${facts.hostName}.`,
    '',
    'Your message could not be delivered to:',
    '',
    ...facts.failed.flatMap((entry) => [`  ${oneLine(entry.address)}`, `    ${oneLine(entry.text)} (${entry.status})`, '']),
    'Nothing more will be tried for these addresses. The header of your message follows.',
    '',
    `--${boundary}`,
    'Content-Type: message/delivery-status',
    '',
    `Reporting-MTA: dns; ${facts.hostName}`,
    `X-Queue-ID: ${facts.originalId}`,
    `Arrival-Date: ${mailDate(facts.acceptedAtMs)}`,
    '',
    ...facts.failed.flatMap((entry) => [
      `Final-Recipient: ${typedAddress(entry.address)}`,
      'Action: failed',
      `Status: ${entry.status}`,
      `Diagnostic-Code: smtp; ${ascii(oneLine(entry.text))}`,
      '',
    ]),
    `--${boundary}`,
    'Content-Type: text/rfc822-headers',
    'Content-Transfer-Encoding: 8bit',
    '',
    '',
  ];
  return Buffer.concat([Buffer.from(lines.join('\r\n')), headerOf(facts.originalRaw), Buffer.from(`\r\n--${boundary}--\r\n`)]);
}

/** Date and time of RFC 5322 §3.3, in UTC. */
export function mailDate(atMs: number): string {
  return new Date(atMs).toUTCString().replace('GMT', '+0000');
}

/** The header of the original without its empty line, cut at a line end when it is long. */
function headerOf(raw: Buffer): Buffer {
  const end = raw.indexOf('\r\n\r\n');
  const header = end < 0 ? raw : raw.subarray(0, end + 2);
  if (header.length <= headerBytesMax) return header;
  return header.subarray(0, header.lastIndexOf('\r\n', headerBytesMax) + 2);
}

/** RFC 3464 §2.3.2; addresses beyond ASCII in the form of RFC 6533 §3. */
function typedAddress(address: string): string {
  const clean = oneLine(address);
  return /^[\u0020-\u007e]*$/.test(clean) ? `rfc822; ${clean}` : `utf-8; ${ascii(clean)}`;
}

function ascii(text: string): string {
  return text.replace(/[^\u0020-\u007e]/gu, (char) => `\\x{${(char.codePointAt(0) as number).toString(16).toUpperCase()}}`);
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').slice(0, 400);
}
