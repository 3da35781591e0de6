import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { startOwnReplication, startOwnServer } from './server-process.ts';
import { startSlapd } from './slapd-server.ts';

it('starts a process that only replicates with limits of its own for the heap, and a directory server with others', async () => {
  await using directory = await startOwnServer('master');
  await using replica = await startSlapd({ withSuffix: false });
  await using service = await startOwnReplication(directory, { 'ldap-eu': replica });
  const optionsOf = async (pid: number): Promise<readonly string[]> =>
    (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').filter((one) => /space-size|growing/.test(one));
  await expect
    .poll(() => optionsOf(service.pid), { timeout: 30_000 })
    .toEqual(['--max-semi-space-size=1', '--max-old-space-size=128', '--heap-growing-percent=20']);
  expect((await readFile(`/proc/${service.pid}/environ`, 'utf8')).split('\0')).toContain('MALLOC_MMAP_THRESHOLD_=65536');
  expect(await optionsOf(directory.pid)).not.toContain('--max-old-space-size=128');
});
