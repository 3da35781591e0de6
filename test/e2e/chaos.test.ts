/**
 * Half a minute of `npm run chaos`: real processes in network namespaces, clients, and a nemesis. Where there are no namespaces or loop
 * devices it says so and does without cuts and full disks.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

it('loses and doubles nothing while processes are killed and stopped, networks cut and disks filled', { timeout: 600_000 }, async () => {
  const main = fileURLToPath(new URL('../chaos/main.ts', import.meta.url));
  const child = spawn(process.execPath, [main, '--minutes', '0.5'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk;
    process.stdout.write(chunk);
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  expect(said).toContain('zero violations');
  expect(code).toBe(0);
  // Otherwise nothing was tried.
  expect(Number(/(\d+) acknowledged/.exec(said)?.[1])).toBeGreaterThan(20);
  expect(said).toMatch(/faults: \S/);
});
