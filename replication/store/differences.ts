/**
 * What a comparison has found, in a file of the state directory, so that neither a million differences nor a slow reader of them takes memory.
 *
 * They come out in the order in which they can be put right: parents before children, then removals from the bottom up. The file is used
 * from the first of them on and emptied with the comparison; nothing is flushed, for after a crash nobody asks for it.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { uuidFromBytes, uuidToBytes } from '#protocol/ldap/controls.ts';
import { splitDn } from '#protocol/ldap/dn.ts';
import type { Difference } from '#replication/client/status.ts';

/** Differences that are kept; about 1 GB. Beyond, they are counted. */
export const differencesKeptMax = 5_000_000;
/** Memory for pages of the file. */
const pagesKb = 2048;
/** Writes that share a transaction. */
const writesMax = 16_384;
/** Levels of a name that are told apart. */
const depthMax = 100;

/** See the header of this file. */
export class Differences implements Disposable {
  readonly #path: string | undefined;
  readonly #max: number;
  #database: DatabaseSync | undefined;
  #add: StatementSync | undefined;
  #size = 0;

  /** @param path of the file, which nobody else uses; without one they are in memory */
  constructor(path?: string, max = differencesKeptMax) {
    this.#path = path;
    this.#max = max;
  }

  /** How many are kept. */
  get size(): number {
    return this.#size;
  }

  /** Keeps one; false when there is no room for it. */
  add({ uuid, dn, kind, what, replicaDn }: Difference): boolean {
    if (this.#size >= this.#max) return false;
    this.#guarded(() => {
      const add = this.#opened();
      const depth = depthOf(dn);
      const order = kind === 'extra' ? 2 * depthMax - depth : depth;
      add.run(order, uuidToBytes(uuid), dn, kind, what.join(' '), replicaDn ?? null);
      this.#size += 1;
      if (this.#size % writesMax === 0) this.#database?.exec('COMMIT; BEGIN');
    });
    return true;
  }

  /** All of them, in the order in which they can be put right; none may be added meanwhile. */
  *all(): Generator<Difference> {
    const database = this.#database;
    if (database === undefined) return;
    this.#guarded(() => database.exec('CREATE INDEX IF NOT EXISTS inOrder ON difference (place)'));
    const rows = database.prepare('SELECT uuid, dn, kind, what, replicaDn FROM difference ORDER BY place, id').iterate();
    for (const { uuid, dn, kind, what, replicaDn } of rows) {
      yield {
        uuid: uuidFromBytes(Buffer.from(uuid as Uint8Array)),
        dn: String(dn),
        kind: kind as Difference['kind'],
        what: what === '' ? [] : String(what).split(' '),
        ...(replicaDn === null ? {} : { replicaDn: String(replicaDn) }),
      };
    }
  }

  [Symbol.dispose](): void {
    const database = this.#database;
    this.#database = undefined;
    this.#add = undefined;
    try {
      // Gives the room on the disk back as well.
      database?.exec('COMMIT; DROP TABLE difference; VACUUM');
    } finally {
      database?.close();
    }
  }

  #opened(): StatementSync {
    if (this.#add !== undefined) return this.#add;
    const database = new DatabaseSync(this.#path ?? ':memory:');
    this.#database = database;
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF');
    database.exec(`PRAGMA cache_size = -${pagesKb}; DROP TABLE IF EXISTS difference`);
    database.exec(
      'CREATE TABLE difference (id INTEGER PRIMARY KEY, place INTEGER NOT NULL, uuid BLOB NOT NULL, dn TEXT NOT NULL, kind TEXT NOT NULL, what TEXT NOT NULL, replicaDn TEXT); BEGIN',
    );
    this.#add = database.prepare('INSERT INTO difference (place, uuid, dn, kind, what, replicaDn) VALUES (?, ?, ?, ?, ?, ?)');
    return this.#add;
  }

  #guarded(use: () => void): void {
    try {
      use();
    } catch (error) {
      throw new PlatformError(
        'CONFIG_UNREADABLE',
        `${this.#path ?? 'memory'}, which holds what a comparison has found, cannot be used: ${messageOf(error)}. See to room and rights in the state directory, and compare again`,
        { cause: error },
      );
    }
  }
}

function depthOf(dn: string): number {
  let depth = 0;
  for (let rest = dn; rest !== '' && depth < depthMax; depth += 1) rest = splitDn(rest)?.parent ?? '';
  return depth;
}
