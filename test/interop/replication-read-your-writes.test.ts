import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { asOfOid } from '#directory/client/authority.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addDomain, replicate } from './replication-suite.ts';
import { run } from './run-tool.ts';

it('lets OpenLDAP’s tools read at a replica what they wrote at the master', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-as-of-'));
  await using master = await startOwnDirectory('master');
  await using replica = await startOwnDirectory('replica');
  await using admin = await master.connect();
  try {
    await addDomain(admin, 'isp.example');
    await using service = await replicate(master, replica, directory);
    const login = (server: typeof master) => ['-x', '-H', server.url, '-D', server.rootDn, '-w', server.rootPassword.reveal()];
    const at = 'cn=isp.example,o=mail';
    const read = (csn: string) =>
      run('ldapsearch', [...login(replica), '-LLL', '-s', 'base', '-b', at, '-E', `!${asOfOid}=:${csn}`, 'description']);
    for (let i = 0; i < 20; i += 1) {
      const input = `dn: ${at}\nchangetype: modify\nreplace: description\ndescription: written ${i}\n`;
      const written = await run('ldapmodify', [...login(master), '-e', '!postread=entryCSN'], { stdin: input });
      const csn = /entryCSN: (\S+)/.exec(written.stdout)?.[1] ?? '';
      const seen = await read(csn);
      expect(seen.stdout).toContain(`description: written ${i}`);
    }
    const late = await read('20990101000000.000000Z#000000#000#000000,50');
    expect(late.code).toBe(51);
    expect(late.stderr).toContain('ask again, or ask the master');
    expect((await read('yesterday')).code).toBe(2);
    await expect.poll(() => service.status().replicas[0]?.receive, { timeout: 10_000 }).toEqual({ lagMs: 0, lagChanges: 0 });
    expect(service.status().replicas[0]?.changesPerSecond).toBeGreaterThanOrEqual(0);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
