/**
 * What a peer is told, by the kind of an error: one table per protocol. A peer gets a short, plain sentence with no names of ours in it.
 * Before login `not-found` and `auth` must look alike, so that nobody can list accounts by trying.
 */
import type { ErrorKind } from '#common/errors/platform-error.ts';

/** IMAP response code and text for a tagged NO or BAD (RFC 5530 §3). */
export const imapReplies: Record<ErrorKind, { status: 'NO' | 'BAD'; code: string; text: string }> = {
  auth: { status: 'NO', code: 'AUTHENTICATIONFAILED', text: 'Authentication failed' },
  'not-found': { status: 'NO', code: 'NONEXISTENT', text: 'No such object' },
  conflict: { status: 'NO', code: 'ALREADYEXISTS', text: 'Already exists' },
  moved: { status: 'NO', code: 'UNAVAILABLE', text: 'Temporarily unavailable, try again' },
  unavailable: { status: 'NO', code: 'UNAVAILABLE', text: 'Temporarily unavailable, try again' },
  limit: { status: 'NO', code: 'LIMIT', text: 'A limit was reached' },
  protocol: { status: 'BAD', code: 'CLIENTBUG', text: 'Command not understood' },
  denied: { status: 'NO', code: 'NOPERM', text: 'Not permitted' },
  config: { status: 'NO', code: 'SERVERBUG', text: 'Internal error' },
  bug: { status: 'NO', code: 'SERVERBUG', text: 'Internal error' },
};

/** POP3 response code and text after `-ERR` (RFC 2449 §8, RFC 3206 §4). */
export const pop3Replies: Record<ErrorKind, { code: string | undefined; text: string }> = {
  auth: { code: 'AUTH', text: 'Authentication failed' },
  'not-found': { code: 'AUTH', text: 'Authentication failed' },
  conflict: { code: undefined, text: 'Not possible' },
  moved: { code: 'SYS/TEMP', text: 'Temporarily unavailable, try again' },
  unavailable: { code: 'SYS/TEMP', text: 'Temporarily unavailable, try again' },
  limit: { code: 'SYS/TEMP', text: 'A limit was reached, try again later' },
  protocol: { code: undefined, text: 'Command not understood' },
  denied: { code: undefined, text: 'Not permitted' },
  config: { code: 'SYS/PERM', text: 'Internal error' },
  bug: { code: 'SYS/PERM', text: 'Internal error' },
};

/** ManageSieve response code and text after `NO` (RFC 5804 §1.3). */
export const sieveReplies: Record<ErrorKind, { code: string | undefined; text: string }> = {
  auth: { code: undefined, text: 'Authentication failed' },
  'not-found': { code: 'NONEXISTENT', text: 'No such script' },
  conflict: { code: 'ALREADYEXISTS', text: 'Already exists' },
  moved: { code: 'TRYLATER', text: 'Temporarily unavailable, try again' },
  unavailable: { code: 'TRYLATER', text: 'Temporarily unavailable, try again' },
  limit: { code: 'QUOTA', text: 'A limit was reached' },
  protocol: { code: undefined, text: 'Command not understood' },
  denied: { code: undefined, text: 'Not permitted' },
  config: { code: undefined, text: 'Internal error' },
  bug: { code: undefined, text: 'Internal error' },
};

/** SMTP and LMTP reply code, enhanced status code (RFC 3463) and text. */
export const smtpReplies: Record<ErrorKind, { code: number; enhanced: string; text: string }> = {
  auth: { code: 535, enhanced: '5.7.8', text: 'Authentication credentials invalid' },
  'not-found': { code: 550, enhanced: '5.1.1', text: 'No such recipient here' },
  conflict: { code: 451, enhanced: '4.3.0', text: 'Not possible now, try again later' },
  moved: { code: 451, enhanced: '4.3.0', text: 'Temporarily unavailable, try again later' },
  unavailable: { code: 451, enhanced: '4.3.0', text: 'Temporarily unavailable, try again later' },
  limit: { code: 452, enhanced: '4.2.2', text: 'A limit was reached, try again later' },
  protocol: { code: 501, enhanced: '5.5.4', text: 'Syntax error' },
  denied: { code: 550, enhanced: '5.7.1', text: 'Not permitted' },
  config: { code: 554, enhanced: '5.3.0', text: 'Internal error' },
  bug: { code: 554, enhanced: '5.3.0', text: 'Internal error' },
};

/** LDAP result code (RFC 4511 Appendix A). */
export const ldapResultCodes: Record<ErrorKind, number> = {
  auth: 49,
  'not-found': 32,
  conflict: 68,
  moved: 10,
  unavailable: 52,
  limit: 11,
  protocol: 2,
  denied: 50,
  config: 80,
  bug: 80,
};

/** HTTP status. */
export const httpStatuses: Record<ErrorKind, number> = {
  auth: 401,
  'not-found': 404,
  conflict: 409,
  moved: 307,
  unavailable: 503,
  limit: 429,
  protocol: 400,
  denied: 403,
  config: 500,
  bug: 500,
};
