/**
 * GETQUOTA and GETQUOTAROOT (RFC 9208): one root, named by the empty string, which covers every mailbox; an account without a quota has no
 * root, because the grammar has no root without a resource. Quotas are set in the directory.
 */
import { ResponseWriter } from '#protocol/imap/response.ts';
import { type Command, type ImapSession, no, ok } from './command.ts';

/** `undefined`: the account has no quota. RFC 9208 §5.1: STORAGE counts units of 1024 octets. */
function quotaLine(session: ImapSession): string | undefined {
  const { usedBytes, limitBytes } = session.account.quota();
  return limitBytes === undefined ? undefined : `* QUOTA "" (STORAGE ${Math.ceil(usedBytes / 1024)} ${Math.floor(limitBytes / 1024)})`;
}

/** RFC 9208 §4.1.1. */
export const getQuota: Command = {
  async run(session, reader) {
    const root = reader.astring();
    reader.end();
    const line = quotaLine(session);
    if (root.length > 0 || line === undefined) return no('NONEXISTENT', 'No such quota root');
    await session.out.line(line);
    return ok('GETQUOTA completed');
  },
};

/** RFC 9208 §4.1.2. */
export const getQuotaRoot: Command = {
  async run(session, reader) {
    const name = reader.mailbox();
    reader.end();
    if (session.account.mailbox(name) === undefined) return no('NONEXISTENT', 'No such mailbox');
    const line = quotaLine(session);
    const response = new ResponseWriter().text('* QUOTAROOT ').mailbox(name);
    await session.out.send((line === undefined ? response : response.text(' ""')).finish());
    if (line !== undefined) await session.out.line(line);
    return ok('GETQUOTAROOT completed');
  },
};

/** RFC 9208 §4.1.3. */
export const setQuota: Command = {
  run() {
    return no('NOPERM', 'Quotas are not set over IMAP');
  },
};
