import { describe, expect, it } from 'vitest';
import { judgeMount, mountOf } from '#backend-cluster/storage/mount-rules.ts';
import type { Files } from '#common/files/files.ts';
import { type MemoryClient, MemoryDisk } from '#test/fakes/memory-files.ts';
import { storeOn } from './ledger.ts';

/** A disk on which one operation behaves otherwise. */
function oddDisk(change: (client: MemoryClient) => Partial<Files>): Files {
  const client = new MemoryDisk().client();
  const odd = change(client);
  return new Proxy<Files>(client, {
    get: (target, name: keyof Files) => odd[name] ?? target[name]?.bind(target),
  });
}

describe('the probe', () => {
  it('passes a good disk and leaves nothing behind', async () => {
    const disk = new MemoryDisk();
    const result = await (await storeOn(disk.client())).probe();
    expect(result.checks.length).toBeGreaterThan(8);
    expect(result.warnings).toEqual([expect.stringContaining('mount options were not looked at')]);
    expect(disk.paths()).toEqual([]);
  });

  it.each<[string, (client: MemoryClient) => Partial<Files>, RegExp]>([
    [
      'links over a name that is taken',
      (client) => ({ link: (from, to) => client.rename(from, to).then(() => client.writeNew(from, [])) }),
      /hard links/,
    ],
    ['lists what is gone', (client) => ({ list: async (path) => [...(await client.list(path)), 'stage'] }), /lookupcache=none/],
    [
      'makes files in directories that are gone',
      (client) => ({
        writeNew: (path, parts) =>
          client.writeNew(path, parts).catch((error: NodeJS.ErrnoException) => {
            if (error.code !== 'ENOENT') throw error;
          }),
      }),
      /staging directory/,
    ],
    [
      'cannot make a directory durable',
      () => ({
        syncDirectory: (path) =>
          path.includes('probe') ? Promise.reject(Object.assign(new Error('no'), { code: 'EINVAL' })) : Promise.resolve(),
      }),
      /fsynced/,
    ],
  ])('refuses a disk that %s, and says what to do', async (_, change, remedy) => {
    const store = await storeOn(oddDisk(change));
    await expect(store.probe()).rejects.toMatchObject({ code: 'STORE_UNSAFE', message: expect.stringMatching(remedy) });
  });

  it('says that the disk is full when it is', async () => {
    const client = new MemoryDisk().client(({ name, path }) =>
      name === 'writeNew' && path.endsWith('room') ? { kind: 'fails', code: 'ENOSPC' } : undefined,
    );
    await expect((await storeOn(client)).probe()).rejects.toMatchObject({ code: 'STORE_FULL' });
  });

  it('looks at the mount table', async () => {
    const table = Buffer.from('srv:/mail /store nfs4 rw,vers=4.2,hard 0 0\n');
    const store = await storeOn(
      oddDisk((client) => ({ read: (path) => (path.startsWith('/proc/') ? Promise.resolve(table) : client.read(path)) })),
    );
    await expect(store.probe()).rejects.toMatchObject({ code: 'STORE_UNSAFE', message: expect.stringContaining('lookupcache=none') });
  });
});

describe('rules for mounts', () => {
  it.each([
    ['ext4', 'rw,relatime', 0],
    ['nfs4', 'rw,vers=4.2,hard,lookupcache=none', 0],
    ['nfs4', 'rw,vers=4.1,hard,acregmin=0,acregmax=0,acdirmin=0,acdirmax=0', 0],
    ['nfs4', 'rw,vers=4.2,hard', 1],
    ['nfs4', 'rw,vers=4.2,soft,lookupcache=none', 1],
    ['nfs', 'rw,vers=3,hard,lookupcache=none', 1],
    ['nfs4', 'rw,vers=4.0,soft', 3],
    ['cifs', 'rw', 1],
    ['ceph', 'rw', 0],
  ])('judge %s %s: %i dangers', (type, options, dangers) => {
    expect(judgeMount({ directory: '/x', type, options: options.split(',') }).dangers.length).toBe(dangers);
  });

  it('find the mount that a path is on', () => {
    const table = 'a / ext4 rw 0 0\nb /srv ext4 rw 0 0\nc /srv/my\\040mail nfs4 rw,hard 0 0\nd /srv/m tmpfs rw 0 0\n';
    expect(mountOf(table, '/srv/my mail/store')).toEqual({ directory: '/srv/my mail', type: 'nfs4', options: ['rw', 'hard'] });
    expect(mountOf(table, '/srv/mail')?.directory).toBe('/srv');
    expect(mountOf(table, '/other')?.directory).toBe('/');
    expect(mountOf('', '/other')).toBeUndefined();
  });
});
