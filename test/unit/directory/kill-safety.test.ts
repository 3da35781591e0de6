import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { EntryFunctions } from '#directory/store/entry-functions.ts';
import { EntryStore, rootId } from '#directory/store/entry-store.ts';
import { verifyDatabase } from '#directory/store/integrity.ts';
import { uuidLotMax } from '#directory/store/uuid-index.ts';

/** As the storm has them. */
const functions: EntryFunctions = {
  keysOf: (attributes) => attributes.flatMap(({ type, values }) => values.map((value) => ({ attribute: type, value: value.toString() }))),
  talliesOf: () => ['written'],
};

test('kill -9 in storms of writes, one upon the other, loses none that was acknowledged, and leaves a store that verifies', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-kill-'));
  const path = join(folder, 'directory.sqlite');
  try {
    const acknowledged: number[] = [];
    // The last one is long enough for a lot of UUIDs to be written.
    for (const [round, count] of [1, 2000, uuidLotMax + 500].entries()) {
      const first = 1 + round * 1_000_000;
      acknowledged.push(...(await stormUntilKilled(path, first, count)));
      const problems: string[] = [];
      verifyDatabase(path, functions, { problem: (text) => problems.push(text), progress: () => {} });
      expect(problems).toEqual([]);
      using store = new EntryStore(path, functions);
      const lost = acknowledged.filter((n) => {
        const entry = store.child(rootId, `cn=${n}`);
        const isWhole = n % 3 !== 0 || entry?.attributes.some((one) => one.type === 'sn');
        return entry === undefined || !isWhole || store.byUuid(entry.uuid)?.id !== entry.id;
      });
      expect(lost).toEqual([]);
      const ids = store.childIds(rootId, 0, 1_000_000);
      const added = store.journalAfter(0, 1_000_000).filter((record) => record.op === 'add');
      expect(added.map((record) => record.entryId)).toEqual(ids);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}, 120_000);

/** Runs write-storm.ts until it has acknowledged so many, kills it, and gives all numbers it printed. */
function stormUntilKilled(path: string, first: number, count: number): Promise<number[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [new URL('./write-storm.ts', import.meta.url).pathname, path, String(first)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const printed: string[] = [];
    let lines = 0;
    let complaints = '';
    child.stdout.on('data', (chunk: Buffer) => {
      printed.push(chunk.toString());
      for (const octet of chunk) if (octet === 10) lines += 1;
      if (lines >= count) child.kill('SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      complaints += chunk.toString();
    });
    child.once('close', () => {
      const numbers = printed.join('').split('\n').slice(0, -1).map(Number);
      if (numbers.length < count) reject(new Error(`the storm ended by itself: ${complaints}`));
      else resolve(numbers);
    });
  });
}
