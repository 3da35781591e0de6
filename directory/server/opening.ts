/**
 * Notices that the machine lost power under a replica (docs/adr/0010-replica-durability.md).
 *
 * What replication wrote last may then be missing, and comes again, perhaps in another order: the numbers of those changes stand for others
 * now. So the database gets another identity. A follower's position counts for the old one only, and it goes on by its CSN, which was told
 * when what it covers was on the disk.
 */
import type { Files } from '#common/files/files.ts';
import type { Random } from '#common/random.ts';
import type { Tree } from './tree.ts';

const bootIdFile = '/proc/sys/kernel/random/boot_id';

/** Call once after the database was opened; the returned function before it is closed in good order. */
export async function noteOpening(tree: Tree, ports: { readonly files: Files; readonly random: Random }): Promise<() => Promise<void>> {
  if (tree.mode === 'master') return async () => {};
  const { store } = tree;
  const boot = await bootIdOf(ports.files);
  const wasOpenIn = store.meta('openInBoot');
  // Where the system does not tell one start of the machine from another, every end without notice counts as a loss of power.
  const mayHaveLost = wasOpenIn !== undefined && wasOpenIn !== '' && (boot === 'unknown' || wasOpenIn !== boot);
  await store.write(() => {
    if (mayHaveLost) store.setMeta('databaseId', ports.random.bytes(8).toString('hex'));
    store.setMeta('openInBoot', boot);
  });
  return () => store.write(() => store.setMeta('openInBoot', ''));
}

async function bootIdOf(files: Files): Promise<string> {
  try {
    const text = (await files.read(bootIdFile)).toString('latin1').trim();
    return text === '' ? 'unknown' : text;
  } catch {
    return 'unknown';
  }
}
