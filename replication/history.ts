/**
 * Telling a master that was restored from an older backup: it says less than it has said before.
 *
 *   our cookie's CSN ≤ the master's contextCSN ──► the same history, or one that went on
 *   our cookie's CSN >  the master's contextCSN ──► it went back. Content equal at both: a crash cost it its contextCSN only; go on.
 *                                                   Content differs: what the replica has, the master lost. Stop; an operator decides.
 *
 * Going on by itself would undo at every replica what was lost at the master, and hand out again what had been removed.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { textsOf } from '#protocol/ldap/messages.ts';
import type { Scope } from '#replication/scope.ts';
import { compareServers, describeReport } from '#replication/verify.ts';

/** The latest change that a server says to hold; `undefined` when it does not say. */
export async function contextCsnOf(connection: Pick<LdapConnection, 'readEntry'>, suffix: string): Promise<string | undefined> {
  const entry = await connection.readEntry(suffix, ['contextCSN']);
  return textsOf(entry?.attributes ?? [], 'contextCSN')
    .sort()
    .at(-1);
}

/**
 * Whether a replica of ours that has stored everything up to that CSN has less now. It says how far it is before the checkpoint does; so only
 * an older copy in its place, or none, can say less.
 */
export async function hasLess(replica: LdapConnection, suffix: string, csn: string | undefined, log: Logger): Promise<boolean> {
  const present = (await contextCsnOf(replica, suffix)) ?? '';
  if (csn === undefined || present >= csn) return false;
  log.warn(
    { contextCsn: present },
    'the replica has less than it had stored before: an older copy was put in its place, everything is compared',
  );
  return true;
}

/**
 * What to do with a cookie of that CSN: `same`, go on with it; `compare`, the master went back without losing anything and its cookies
 * count anew. Throws `REPL_MASTER_WENT_BACK`. The replica must hold everything up to the cookie.
 * `suspectsFile` is as for `compareServers`.
 */
export async function checkHistory(
  name: string,
  master: LdapConnection,
  cookieCsn: string,
  suffix: string,
  scope: Scope,
  replica: () => Promise<{ readonly connection: LdapConnection; readonly keepsCsn: boolean }>,
  suspectsFile: string | undefined,
): Promise<'same' | 'compare'> {
  const csn = await contextCsnOf(master, suffix);
  if (csn === undefined || csn >= cookieCsn) return 'same';
  const { connection, keepsCsn } = await replica();
  const comparison = { name, master, replica: connection, suffix, keepsCsn, scope };
  const report = await compareServers(comparison, { suspectsFile, listedMax: 1 });
  if (report.differing === 0) return 'compare';
  throw new PlatformError(
    'REPL_MASTER_WENT_BACK',
    `the master ${master.url} is at ${csn}, but ${name} has its changes up to ${cookieCsn}: it was restored from an older backup or lost ` +
      `its last writes. ${describeReport(report)}. Look with \`archipelago replica diff ${name}\`, put back at the master what shall stay, ` +
      `then let the replica follow it with \`archipelago replica resume ${name}\`.`,
    { fields: { replica: name, contextCsn: csn, cookieCsn, differing: report.differing } },
  );
}
