/**
 * The database file of one Directory Server: opening, tables, and the version of both.
 *
 * WAL with synchronous=NORMAL: a commit is in the log, and whoever acknowledges it brings the log to the disk first (group-commit.ts), so that an acknowledged
 * write survives a power failure. locking_mode=EXCLUSIVE: a second server on the same data
 * directory is refused at its start instead of giving out the same change numbers.
 */
import { DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { damaged, isDamage, sqliteCode } from './damage.ts';

/** Version 2 had all keys of values in their table at all times; it is read as well, and is version 3 from then on. */
const schemaVersion = 3;
const versionBefore = 2;
/** SQLITE_READONLY and SQLITE_CANTOPEN. */
const readOnlyCode = 8;
const cannotOpenCode = 14;

const tables = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    parentId INTEGER NOT NULL,
    rdnNorm TEXT NOT NULL,
    rdn TEXT,
    uuid BLOB NOT NULL,
    csn TEXT NOT NULL,
    body BLOB NOT NULL
  );
  CREATE TABLE attribute (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
  CREATE TABLE journal (
    changeNumber INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL,
    op TEXT NOT NULL,
    csn TEXT NOT NULL,
    entryId INTEGER NOT NULL,
    oldParentId INTEGER,
    oldRdn TEXT,
    newParentId INTEGER,
    newRdn TEXT
  );
  CREATE TABLE tally (name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
`;

/** What follows from the entries, and can be made anew from them. */
export const derivedTables = `
  CREATE TABLE IF NOT EXISTS uuid (uuid BLOB PRIMARY KEY, entryId INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS indexed (attributeId INTEGER NOT NULL, value TEXT NOT NULL, entryId INTEGER NOT NULL,
    PRIMARY KEY (attributeId, value, entryId)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS piece (attributeId INTEGER NOT NULL, gram INTEGER NOT NULL, block INTEGER NOT NULL, ids BLOB NOT NULL,
    PRIMARY KEY (attributeId, gram, block)) WITHOUT ROWID;
`;

/** Indexes of the entries themselves: names, which are unique, and children in order of id. `rdn` is null where it equals `rdnNorm`. */
export const entryIndexes = [
  'CREATE UNIQUE INDEX IF NOT EXISTS entryName ON entry (parentId, rdnNorm)',
  'CREATE INDEX IF NOT EXISTS entryParent ON entry (parentId)',
] as const;
export const allIndexes = [...entryIndexes, 'CREATE INDEX IF NOT EXISTS journalCsn ON journal (csn)'] as const;

/**
 * Memory for pages of the file, bytes. SQLite looks through all of them at most commits (where a tree was put in order with the help of the page that it never
 * uses), which with 64 MB took as long as a tenth of the adds; the system keeps the file's pages anyway.
 */
export const pagesBytesMax = 8 * 1_048_576;

/**
 * Opens the database, creating it when it is not there.
 *
 * @param path the file, or `:memory:`
 * @param pagesBytes memory for pages of the file, of which at most `pagesBytesMax` is used
 */
export function openDatabase(path: string, pagesBytes = pagesBytesMax): DatabaseSync {
  return opened(path, false, (database) => {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
    database.exec(`PRAGMA cache_size = -${Math.max(1, Math.floor(Math.min(pagesBytes, pagesBytesMax) / 1024))}`);
    // Pages that many writes touch are copied from the log into the file once for all of them; 64 MB of log are read back within two seconds.
    database.exec('PRAGMA wal_autocheckpoint = 16384');
    const version = versionOf(database);
    if (version === 0) {
      database.exec(`BEGIN EXCLUSIVE; ${tables} ${derivedTables} ${allIndexes.join(';')}; PRAGMA user_version = ${schemaVersion}; COMMIT`);
      return;
    }
    checkVersion(path, version);
    // Databases of releases before have no index of pieces.
    database.exec(derivedTables);
    if (version !== schemaVersion) database.exec(`PRAGMA user_version = ${schemaVersion}`);
  });
}

/**
 * Opens a database that is only looked at: neither it nor its log is written to, whichever version it has, and no server may have it open.
 *
 * SQLite keeps its locks in a file beside it. Where none can be made the file is read as one that nobody changes, which is so unless a server starts on it
 * from elsewhere meanwhile.
 *
 * @param hasLog whether a log lies beside it: of a server that has it open, or did not end in good order. The file is not whole without
 */
export function openDatabaseToRead(path: string, hasLog: boolean): DatabaseSync {
  const check = (database: DatabaseSync): void => checkVersion(path, versionOf(database));
  try {
    return opened(path, true, check);
  } catch (error) {
    if (!isKeptFromWriting(error)) throw error;
    if (hasLog) {
      throw new PlatformError(
        'CONFIG_UNREADABLE',
        `cannot open the database ${path}: nothing can be written to its folder, and ${path}-wal holds what is not in it yet. Stop the server that uses it; if there is none, copy both files to a folder that can be written to, and read them there`,
        { cause: error },
      );
    }
    const unchanging = pathToFileURL(path);
    unchanging.searchParams.set('immutable', '1');
    return opened(path, true, check, unchanging);
  }
}

function opened(path: string, readOnly: boolean, prepare: (database: DatabaseSync) => void, location: string | URL = path): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(location, { readOnly });
    prepare(database);
    return database;
  } catch (error) {
    database?.close();
    if (error instanceof PlatformError) throw error;
    if (isDamage(error)) throw damaged(error, path);
    const hint = /locked/.test(messageOf(error)) ? '; another directory server uses this data directory' : '';
    throw new PlatformError('CONFIG_UNREADABLE', `cannot open the database ${path}: ${messageOf(error)}${hint}`, { cause: error });
  }
}

/** Whether it may be for want of a file beside the database that it could not be opened. */
function isKeptFromWriting(error: unknown): boolean {
  const cause = error instanceof PlatformError ? error.cause : undefined;
  return sqliteCode(cause) === readOnlyCode || sqliteCode(cause) === cannotOpenCode;
}

function versionOf(database: DatabaseSync): unknown {
  return database.prepare('PRAGMA user_version').get()?.user_version;
}

function checkVersion(path: string, version: unknown): void {
  if (version === schemaVersion || version === versionBefore) return;
  throw new PlatformError(
    'CONFIG_INVALID',
    `${path} has version ${String(version)}; this server reads versions ${versionBefore} and ${schemaVersion}. Export it with the release that wrote it, and import the LDIF into a new data directory`,
  );
}
