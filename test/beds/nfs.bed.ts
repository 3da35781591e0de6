/** The store on a real NFS server, between two clients with caches of their own. About a minute the first time (root, Debian's packages). */
import { execFile } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const script = fileURLToPath(new URL('nfs.sh', import.meta.url));

it('members on NFS are refused with default mount options, and keep every promise with lookupcache=none and actimeo=0', async () => {
  // Kept from run to run: the guest's root file system takes most of the time.
  const directory = join(tmpdir(), 'archipelago-nfs-bed');
  const mounts = ['rw', 'lookupcache=positive', 'lookupcache=none', 'actimeo=0'];
  const { stdout } = await promisify(execFile)('bash', [script, directory, 'test/beds/nfs-guest.ts', ...mounts], {
    maxBuffer: 2 ** 24,
    env: { ...process.env, NODE: process.execPath },
  });
  const results = [...stdout.matchAll(/^RESULT (.*)$/gm)].map(([, json]) => JSON.parse(json as string) as Record<string, unknown>);
  expect(results.map(({ options }) => options)).toEqual(mounts);
  for (const refused of results.slice(0, 2)) expect(refused.probe).toMatch(/NFS that remembers names; mount it with lookupcache=none/);
  for (const accepted of results.slice(2)) {
    expect(accepted).toMatchObject({ probe: 'accepted', violations: [], isReadOnly: false, findings: [] });
    expect(new Set(accepted.sleeper as string[])).toEqual(new Set(['CLUSTER_DEPOSED']));
    // Three before, six in each of six rounds; what gets through while two contend is for chance to say.
    expect(accepted.acknowledged).toBeGreaterThanOrEqual(39);
  }
}, 600_000);
