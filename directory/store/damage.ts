/** What is said of a database file that SQLite finds damaged: nothing can be served from it, and only its operator can tell what to do. */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';

/** SQLITE_CORRUPT and SQLITE_NOTADB. */
const damageCodes = [11, 26];

/** Whether SQLite says that the file is damaged or no database. */
export function isDamage(error: unknown): boolean {
  const code = sqliteCode(error);
  return code !== undefined && damageCodes.includes(code);
}

/** What SQLite failed with, without the rest that says more of where; `undefined` when it was not SQLite. */
export function sqliteCode(error: unknown): number | undefined {
  const code = error instanceof Error && 'errcode' in error ? (error as Error & { errcode: unknown }).errcode : undefined;
  return typeof code === 'number' ? code & 0xff : undefined;
}

/** The failure for the one who asked and for the log. */
export function damaged(error: unknown, path = 'the database of this directory server'): PlatformError {
  return new PlatformError(
    'DIR_DAMAGED',
    `${path} is damaged (SQLite: ${messageOf(error)}). Stop the server and run "archipelago directory verify --data DIR"; when only an index is ` +
      'damaged "reindex" mends it, else move the file and its -wal away and put back a backup by "restore", or a replica\'s content by an import',
    { cause: error },
  );
}
