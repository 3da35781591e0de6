/** Copies a database as of its last commit to a new file, while reads and writes go on. */
import { backup, type DatabaseSync } from 'node:sqlite';
import { PlatformError } from '#common/errors/platform-error.ts';

/** Pages copied in one step. */
const pagesAtOnce = 1000;
/** Beginnings that may meet a transaction, one after the other. Where half of the time one is open, so many do once in 10^300 copies. */
const beginningsMax = 1000;

/**
 * A copy cannot begin while a transaction is open, and the runtime gives up when its first step meets one, with an error that names none
 * (`errcode` 0); once it has begun it waits by itself. So the beginning is tried again, after the transaction of that moment.
 *
 * @param settled what GroupCommit.settled gives
 */
export async function copyDatabase(database: DatabaseSync, path: string, settled: () => Promise<void> | undefined): Promise<void> {
  for (let beginnings = 0; beginnings < beginningsMax; beginnings += 1) {
    await settled();
    try {
      await backup(database, path, { rate: pagesAtOnce });
      return;
    } catch (error) {
      if ((error as { errcode?: unknown }).errcode !== 0) throw error;
    }
  }
  throw new PlatformError('DIR_BUSY', 'no copy could be begun: writes are under way all the time; try again when there are fewer');
}
