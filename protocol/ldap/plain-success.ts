/**
 * Recognises the answer that most writes get, success and nothing else to say, without making anything of it: for those who wait for very
 * many. Whatever is not exactly of that form is left to parse.ts.
 */
import { berTags } from '#protocol/ldap/ber.ts';
import { operationTags } from '#protocol/ldap/messages.ts';

const tags: ReadonlySet<number> = new Set([
  operationTags.addResponse,
  operationTags.modifyResponse,
  operationTags.deleteResponse,
  operationTags.modifyDnResponse,
]);
/** Success, no matched name, no text. */
const body = Buffer.from([7, berTags.enumerated, 1, 0, berTags.octets, 0, berTags.octets, 0]);

/** The message ID when the message is such an answer to an add, modify, delete or modify DN; else `undefined`. */
export function plainSuccessId(bytes: Buffer, start: number, end: number): number | undefined {
  const idLength = bytes[start + 3] as number;
  const at = start + 4 + idLength;
  if (end - at !== body.length + 1 || bytes[start + 2] !== berTags.integer || idLength > 4 || !tags.has(bytes[at] as number))
    return undefined;
  for (let i = 0; i < body.length; i += 1) if (bytes[at + 1 + i] !== body[i]) return undefined;
  return bytes.readIntBE(start + 4, idLength);
}
