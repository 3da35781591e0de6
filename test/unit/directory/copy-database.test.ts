/** Copies of a database while it is written: each begins between two transactions, and is whole as of one moment. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { EntryStore, rootId } from '#directory/store/entry-store.ts';
import { verifyDatabase } from '#directory/store/integrity.ts';
import { databaseFile, entryFunctions } from '#directory/tools/offline.ts';
import { attribute } from '#protocol/ldap/messages.ts';

let made = 0;

function content(parentId: number) {
  made += 1;
  const [name, number] = [`uid=u${made}`, String(made).padStart(6, '0')];
  const [uuid, csn] = [`00000000-0000-4000-8000-000000${number}`, `20260101000000.${number}Z#000000#000#000000`];
  return { parentId, rdn: name, rdnNorm: name, uuid, csn, attributes: [attribute('uid', `u${made}`)] };
}

test('a copy that meets a transaction at its beginning is made all the same', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-copies-'));
  try {
    using store = new EntryStore(join(folder, databaseFile), entryFunctions());
    await store.write(() => store.add({ ...content(rootId), rdn: 'o=mail', rdnNorm: 'o=mail' }));
    let isCopying = true;
    const writing = (async () => {
      while (isCopying) await store.write(() => store.add(content(1)));
    })();
    const problems: string[] = [];
    for (let copy = 0; copy < 20; copy += 1) {
      const path = join(folder, `copy-${copy}.sqlite`);
      const before = store.tally('entries');
      // A transaction is open now, and when the copy's first step is taken one may be again.
      const write = store.write(() => store.add(content(1)));
      await store.backupTo(path);
      await write;
      expect(verifyDatabase(path, entryFunctions(), { problem: (text) => problems.push(text), progress: () => {} })).toBeGreaterThanOrEqual(
        before,
      );
    }
    isCopying = false;
    await writing;
    expect(problems).toEqual([]);
  } finally {
    await rm(folder, { recursive: true });
  }
});
