/** A small tmpfs that is really full. In namespaces of its own, which every user may make; where not, this says so and fails. */
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { run } from './run-tool.ts';

it('an account on a full tmpfs is opened, read and emptied, takes mail again, and loses nothing', async () => {
  const script = fileURLToPath(new URL('full-disk-process.ts', import.meta.url));
  const command = `mount -t tmpfs -o size=16m tmpfs /mnt && exec "${process.execPath}" "${script}" /mnt`;
  const { stdout, stderr, code } = await run('unshare', ['--user', '--map-root-user', '--mount', 'sh', '-c', command]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const seen = JSON.parse(stdout) as Record<string, unknown>;
  expect(seen).toMatchObject({
    refusedWith: 'STORE_FULL',
    violations: [],
    expunged: 10,
    readable: true,
    deliveryWhenFull: 'STORE_FULL',
    isOpen: true,
    deliveryWithRoom: 'no failure',
    findings: [],
  });
  expect(seen.messages).toBeGreaterThan(40);
  expect(seen.freeWhenRefused).toBeGreaterThan(300_000);
  expect(seen.freed).toBeGreaterThan(2_000_000);
  expect(seen.freeWhenFull).toBeLessThan(4_096);
});
