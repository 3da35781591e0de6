/**
 * Line ends of a message. Everything stored has CRLF (RFC 5322 §2.3): sizes, offsets and line counts that clients see are of that form.
 */

const cr = 13;
const lf = 10;

/** The message with every bare CR and bare LF made CRLF. Gives back the same buffer when there is nothing to change. */
export function normaliseLineEnds(raw: Buffer): Buffer {
  let extra = 0;
  let firstAt = -1;
  for (let at = nextBareEnd(raw, 0); at >= 0; at = nextBareEnd(raw, at + 1)) {
    if (firstAt < 0) firstAt = at;
    extra += 1;
  }
  if (extra === 0) return raw;
  const out = Buffer.allocUnsafe(raw.length + extra);
  let read = 0;
  let write = 0;
  for (let at = firstAt; at >= 0; at = nextBareEnd(raw, at + 1)) {
    write += raw.copy(out, write, read, at);
    out[write] = cr;
    out[write + 1] = lf;
    write += 2;
    read = at + 1;
  }
  raw.copy(out, write, read);
  return out;
}

function nextBareEnd(raw: Buffer, from: number): number {
  for (let at = from; at < raw.length; at += 1) {
    const byte = raw[at];
    if (byte === lf && raw[at - 1] !== cr) return at;
    if (byte === cr && raw[at + 1] !== lf) return at;
  }
  return -1;
}

/** How many lines `raw[start, end)` has: its line feeds. */
export function countLines(raw: Buffer, start: number, end: number): number {
  let lines = 0;
  // Octet by octet: one call of indexOf for each line would cost far more in a body of short lines.
  for (let at = start; at < end; at += 1) if (raw[at] === lf) lines += 1;
  return lines;
}
