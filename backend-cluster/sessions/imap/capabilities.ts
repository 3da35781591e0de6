/**
 * What this server can do once the client is authenticated (RFC 9051 §7.2.2). Only what works is named. The frontend adds what concerns
 * login (`AUTH=`, `STARTTLS`, `SASL-IR`) before authentication.
 */

/** Largest message that APPEND takes, octets (RFC 7889). */
export const appendBytesMax = 50 * 1024 * 1024;

/** Capabilities after authentication, in the order they are sent. */
export const imapCapabilities: readonly string[] = [
  'IMAP4rev1',
  'LITERAL+',
  'ID',
  'ENABLE',
  'IDLE',
  'NAMESPACE',
  'CHILDREN',
  'UNSELECT',
  'UIDPLUS',
  'MOVE',
  'MULTIAPPEND',
  'SPECIAL-USE',
  'CREATE-SPECIAL-USE',
  'LIST-EXTENDED',
  'LIST-STATUS',
  'STATUS=SIZE',
  'ESEARCH',
  'WITHIN',
  'CONDSTORE',
  'OBJECTID',
  'QUOTA',
  'QUOTA=RES-STORAGE',
  `APPENDLIMIT=${appendBytesMax}`,
];
