import { expect, it } from 'vitest';
import { storeLayout } from '#backend-cluster/storage/layout.ts';
import { beginOpening } from '#backend-cluster/storage/posix-log.ts';
import { MemoryDisk } from '#test/fakes/memory-files.ts';
import { storeOn, uuid } from './ledger.ts';

it('does not believe that a snapshot is there because its staged name was taken: storage may carry a command out twice', async () => {
  const disk = new MemoryDisk();
  let isTwice = false;
  const files = disk.client(({ name }) => (isTwice && name === 'writeNew' ? { kind: 'happens-but-fails', code: 'EEXIST' } : undefined));
  // Makes the directories.
  await storeOn(files);
  const log = await beginOpening(files, storeLayout('/store'), uuid, 'one');
  isTwice = true;
  await expect(log.writeSnapshot(4, [Buffer.from('snapshot')])).rejects.toMatchObject({ code: 'EEXIST' });
  isTwice = false;
  expect(await log.listSnapshots()).toEqual([]);
  await log.writeSnapshot(4, [Buffer.from('snapshot')]);
  // The link that was carried out twice is the same snapshot.
  await log.writeSnapshot(4, [Buffer.from('snapshot')]);
  expect(await log.listSnapshots()).toEqual([4]);
});
