/**
 * GETQUOTA and GETQUOTAROOT (RFC 9208): one root, named by the empty string, which covers every mailbox. Quotas are set in the directory.
 */
import { ResponseWriter } from '#protocol/imap/response.ts';
import { type Command, type ImapSession, no, ok } from './command.ts';

function quotaLine(session: ImapSession): string {
  const { usedBytes, limitBytes } = session.account.quota();
  // RFC 9208 §5.1: STORAGE counts units of 1024 octets.
  const storage = limitBytes === undefined ? '' : `STORAGE ${Math.ceil(usedBytes / 1024)} ${Math.floor(limitBytes / 1024)}`;
  return `* QUOTA "" (${storage})`;
}

/** RFC 9208 §4.1.1. */
export const getQuota: Command = {
  async run(session, reader) {
    const root = reader.astring();
    reader.end();
    if (root.length > 0) return no('NONEXISTENT', 'No such quota root');
    await session.out.line(quotaLine(session));
    return ok('GETQUOTA completed');
  },
};

/** RFC 9208 §4.1.2. */
export const getQuotaRoot: Command = {
  async run(session, reader) {
    const name = reader.mailbox();
    reader.end();
    if (session.account.mailbox(name) === undefined) return no('NONEXISTENT', 'No such mailbox');
    await session.out.send(new ResponseWriter().text('* QUOTAROOT ').mailbox(name).text(' ""').finish());
    await session.out.line(quotaLine(session));
    return ok('GETQUOTAROOT completed');
  },
};

/** RFC 9208 §4.1.3. */
export const setQuota: Command = {
  run() {
    return no('NOPERM', 'Quotas are not set over IMAP');
  },
};
