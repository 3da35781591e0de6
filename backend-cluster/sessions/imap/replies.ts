/**
 * From a failure to the tagged reply that the client is given (RFC 5530; common/errors/wire.ts holds the table by kind).
 */
import type { PlatformError } from '#common/errors/platform-error.ts';
import { imapReplies } from '#common/errors/wire.ts';
import { BadCharset } from '#protocol/imap/search-grammar.ts';
import type { TaggedReply } from './command.ts';

/** The reply for a failure. Sentences of syntax errors are made for the client; all other messages are for the operator only. */
export function replyFor(error: PlatformError): TaggedReply {
  if (error instanceof BadCharset) return { status: 'NO', code: 'BADCHARSET (UTF-8 US-ASCII)', text: 'Charset not supported' };
  switch (error.code) {
    case 'PROTO_SYNTAX':
    case 'PROTO_TOO_LONG':
      return { status: 'BAD', code: 'CLIENTBUG', text: error.message };
    case 'MBOX_NOT_FOUND':
      return { status: 'NO', code: 'NONEXISTENT', text: 'No such mailbox' };
    case 'MBOX_EXISTS':
      return { status: 'NO', code: 'ALREADYEXISTS', text: 'Mailbox already exists' };
    case 'MBOX_NAME_INVALID':
      return { status: 'NO', code: 'CANNOT', text: 'The mailbox name is not allowed' };
    case 'MBOX_OVER_QUOTA':
      return { status: 'NO', code: 'OVERQUOTA', text: 'Quota exceeded' };
    default:
      return imapReplies[error.kind];
  }
}

/** The tagged line. */
export function taggedLine(tag: string, reply: TaggedReply): string {
  return `${tag} ${reply.status} ${reply.code === undefined ? '' : `[${reply.code}] `}${reply.text}`;
}
