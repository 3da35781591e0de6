import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { EntryStore, rootId } from '#directory/store/entry-store.ts';

test('kill -9 in a storm of writes loses none that was acknowledged, and index and journal agree with the entries', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-kill-'));
  const path = join(folder, 'directory.sqlite');
  try {
    const acknowledged = await stormUntilKilled(path, 2000);
    using store = new EntryStore(path, { keysOf: () => [], talliesOf: () => [] });
    const lost = acknowledged.filter((n) => store.child(rootId, `cn=${n}`) === undefined);
    expect(lost).toEqual([]);
    const ids = store.childIds(rootId, 0, 1_000_000);
    expect(store.journalAfter(0, 1_000_000).map((record) => record.entryId)).toEqual(ids);
    for (const id of ids) {
      const n = store.byId(id)?.rdn.slice(3) as string;
      expect(store.idsWithKey({ attribute: 'cn', value: n }, 0, 2)).toEqual([id]);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

/** Runs write-storm.ts until it has acknowledged so many, kills it, and gives all numbers it printed. */
function stormUntilKilled(path: string, count: number): Promise<number[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [new URL('./write-storm.ts', import.meta.url).pathname, path], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let printed = '';
    let complaints = '';
    child.stdout.on('data', (chunk: Buffer) => {
      printed += chunk.toString();
      if (printed.split('\n').length > count) child.kill('SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      complaints += chunk.toString();
    });
    child.once('close', () => {
      const numbers = printed.split('\n').slice(0, -1).map(Number);
      if (numbers.length < count) reject(new Error(`the storm ended by itself: ${complaints}`));
      else resolve(numbers);
    });
  });
}
