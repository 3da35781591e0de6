/**
 * Replies of SMTP and LMTP (RFC 5321 §4.2), made and read. Enhanced status codes (RFC 3463) stand before the text, as RFC 2034 wants.
 */
import type { ErrorKind } from '#common/errors/platform-error.ts';
import { smtpReplies } from '#common/errors/wire.ts';

/** Longest reply line with its CRLF (RFC 5321 §4.5.3.1.5), and most lines of one reply that a reader takes. */
export const replyLineBytesMax = 512;
export const replyLinesMax = 100;

/** A reply as read: the enhanced code is taken off the text. */
export interface SmtpReply {
  readonly code: number;
  readonly enhanced: string | undefined;
  /** Lines of text, joined by line feeds. */
  readonly text: string;
}

/** One line, or several when `lines` is an array. */
export function formatReply(code: number, enhanced: string | undefined, lines: string | readonly string[]): string {
  const texts = typeof lines === 'string' ? [lines] : lines;
  const prefix = enhanced === undefined ? '' : `${enhanced} `;
  return texts.map((text, i) => `${code}${i === texts.length - 1 ? ' ' : '-'}${prefix}${oneLine(text)}\r\n`).join('');
}

/** The reply for an error of this kind. */
export function replyForKind(kind: ErrorKind): string {
  const reply = smtpReplies[kind];
  return formatReply(reply.code, reply.enhanced, reply.text);
}

/** One line as read: `undefined` when it is none. */
export function parseReplyLine(line: string): { readonly code: number; readonly isLast: boolean; readonly text: string } | undefined {
  const match = /^([2-5][0-9]{2})(?:([ -])(.*))?$/.exec(line);
  if (match === null) return undefined;
  return { code: Number(match[1]), isLast: match[2] !== '-', text: match[3] ?? '' };
}

/** Several lines of one reply as one. */
export function joinReply(code: number, texts: readonly string[]): SmtpReply {
  let enhanced: string | undefined;
  const lines = texts.map((text) => {
    const match = /^([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: (.*))?$/.exec(text);
    if (match === null) return text;
    enhanced ??= match[1];
    return match[2] ?? '';
  });
  return { code, enhanced, text: lines.join('\n') };
}

function oneLine(text: string): string {
  const clean = text.replace(/[\r\n]+/g, ' ');
  return clean.length > 450 ? clean.slice(0, 450) : clean;
}
