/** What TOP sends of a message (RFC 1939 §7): the header, the empty line, and so many lines of the body. */

const headerEnd = Buffer.from('\r\n\r\n');
const lineEnd = Buffer.from('\r\n');

/** The part of `raw` that TOP sends; shares its memory. A message without a body is sent whole. */
export function topOf(raw: Buffer, bodyLines: number): Buffer {
  // A message may begin with the empty line: then it has no header.
  const headEnd = raw.subarray(0, 2).equals(lineEnd) ? 2 : raw.indexOf(headerEnd) + headerEnd.length;
  if (headEnd < headerEnd.length && headEnd !== 2) return raw;
  let end = headEnd;
  for (let line = 0; line < bodyLines; line += 1) {
    const at = raw.indexOf(lineEnd, end);
    if (at < 0) return raw;
    end = at + lineEnd.length;
  }
  return raw.subarray(0, end);
}
