/** Copies of the database while the server runs, one at a time, each under a name of its own in the configured directory. */
import { join } from 'node:path';
import type { Ports } from '#common/lifecycle.ts';
import { generalizedTime } from '../changelog/csn.ts';
import { Refusal } from '../schema/refusal.ts';
import type { EntryStore } from '../store/entry-store.ts';

/** Makes the function that copies; it resolves with the path once the copy is whole. */
export function createBackups(
  store: EntryStore,
  directory: string,
  { clock, files }: Pick<Ports, 'clock' | 'files'>,
): () => Promise<string> {
  let isRunning = false;
  return async () => {
    if (isRunning) throw new Refusal('busy', 'a backup is being made already');
    isRunning = true;
    const path = join(directory, `directory-${generalizedTime(clock.nowMs())}-${store.lastChangeNumber()}.sqlite`);
    const unfinished = `${path}.unfinished`;
    try {
      await files.mkdirAll(directory);
      await files.removeTree(unfinished);
      await store.backupTo(unfinished);
      await files.rename(unfinished, path);
      await files.syncDirectory(directory);
      return path;
    } catch (error) {
      await files.removeTree(unfinished).catch(() => {});
      throw error;
    } finally {
      isRunning = false;
    }
  };
}
