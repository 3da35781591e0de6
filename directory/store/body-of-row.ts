/** The attributes in a column that SQLite gave. */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { decodeBody } from './entry-body.ts';

/** `undefined` when the octets are no entry. */
export function attributesOf(body: Uint8Array): Attribute[] | undefined {
  try {
    return decodeBody(Buffer.from(body.buffer, body.byteOffset, body.byteLength));
  } catch {
    return undefined;
  }
}
