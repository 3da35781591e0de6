/** Damage that no checksum of a part tells: files in each other's place, small records that nobody can read, an account without its first slot. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import { MemoryDisk } from '#test/fakes/memory-files.ts';
import { codeOf, Ledger, mailboxOf, opening, storeOn, uuid } from './ledger.ts';

const repairing = { discardLost: false, isDryRun: false };
const illegible: [string, Buffer][] = [
  ['empty', Buffer.alloc(0)],
  ['zeros', Buffer.alloc(60)],
  ['cut off', Buffer.from('{"findings":[{"fi')],
  ['no object', Buffer.from('null')],
];

let disk: MemoryDisk;
let store: AccountStore;
let ledger: Ledger;
beforeEach(async () => {
  disk = new MemoryDisk();
  store = await storeOn(disk.client(), 1, { snapshotRecords: 1_000, snapshotAtCloseSlots: 3 });
  ledger = new Ledger();
});

function slots(): string[] {
  return disk.paths().filter((path) => path.includes('/log/'));
}

it.each(illegible)('leaves an account readable when the record of its damage is %s, and lets a repair take it away', async (_, content) => {
  await (await store.open(uuid, opening('back1'))).close();
  const account = await store.open(uuid, opening('back1'));
  await ledger.deliver(account, ['one']);
  await account.close();
  await disk.client().replace(`/store/damaged/${uuid}`, content);
  const listed = await store.listDamaged(10);
  expect(listed).toMatchObject({ count: 1, accounts: [{ uuid, foundBy: 'record', findings: [{ file: `damaged/${uuid}` }] }] });
  const readable = await store.open(uuid, opening('back1'));
  expect(readable.isReadOnly).toBe(true);
  expect(await ledger.violations(readable)).toEqual([]);
  await readable.close();
  expect((await store.repair(uuid, { ...repairing, opening: opening('back1') })).outcome).toBe('whole');
  expect((await store.listDamaged(10)).count).toBe(0);
  expect((await store.open(uuid, opening('back1'))).isReadOnly).toBe(false);
});

it.each(illegible)('keeps a removed account, and lists the others, when its tombstone is %s', async (_, content) => {
  const other = parseAccountUuid('99999999-2222-4333-8444-555555555555');
  await (await store.open(uuid, opening('back1'))).close();
  await store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 1 });
  await store.entomb(other, { name: 'bob@isp.example', removedAtMs: 2 });
  disk.damage(`/store/tombstones/${uuid}`, () => content);
  expect(await store.listTombstones()).toEqual([
    { uuid, name: '', removedAtMs: Number.POSITIVE_INFINITY },
    { uuid: other, name: 'bob@isp.example', removedAtMs: 2 },
  ]);
  expect(await codeOf(store.open(uuid, opening('back1')))).toBe('ACCT_REMOVED');
  await store.restore(uuid);
  await store.open(uuid, opening('back1'));
});

it('finishes the other operations when the record of one cannot be read', async () => {
  await store.intents.put('a', 1);
  await store.intents.put('b', 2);
  await store.intents.put('c', 3);
  disk.damage('/store/cluster/intents/b', () => Buffer.alloc(9));
  expect((await store.intents.list()).map(({ id }) => id)).toEqual(['a', 'c']);
});

describe('slots in each other’s place', () => {
  it('are found by a check, and what was in them is given up rather than shown as another message', async () => {
    const first = await store.open(uuid, opening('back1'));
    for (const id of ['one', 'two', 'three']) await ledger.deliver(first, [id], 400);
    await first.close();
    // All of the same size, and covered by a snapshot: opening looks at none of them.
    const [one, two] = slots().slice(-3) as [string, string];
    const [contentOne, contentTwo] = [Buffer.from(disk.file(one).content), Buffer.from(disk.file(two).content)];
    disk.damage(one, () => contentTwo);
    disk.damage(two, () => contentOne);
    const check = await store.checkAccount(uuid, { isMarking: true });
    expect(check.isComplete).toBe(false);
    expect(check.findings.map(({ problem }) => problem)).toEqual(Array(2).fill(expect.stringContaining('stands under the name of slot')));
    expect((await store.listDamaged(10)).count).toBe(1);
    const dry = await store.repair(uuid, { opening: opening('back1'), discardLost: false, isDryRun: true });
    expect(dry).toMatchObject({ outcome: 'would-lose', lostMessages: 2 });
    expect((await store.repair(uuid, { opening: opening('back1'), discardLost: true, isDryRun: false })).outcome).toBe('repaired');
    expect((await store.checkAccount(uuid)).findings).toEqual([]);
    const account = await store.open(uuid, opening('back1'));
    expect(account.isReadOnly).toBe(false);
    expect((await ledger.violations(account)).filter((violation) => !violation.startsWith('I3'))).toEqual([]);
    expect([...mailboxOf(account, 'INBOX').uids()]).toHaveLength(1);
  });
});

it('has INBOX again after a repair that found nothing of it', async () => {
  await (await store.open(uuid, opening('back1'))).close();
  await (await store.open(uuid, opening('back1'))).close();
  disk.damage(slots()[0] as string, () => Buffer.alloc(0));
  expect(await store.repair(uuid, { opening: opening('back1'), discardLost: true, isDryRun: false })).toMatchObject({
    outcome: 'repaired',
  });
  const account = await store.open(uuid, opening('back1'));
  expect(account.subscriptions()).toContain('INBOX');
  await ledger.deliver(account, ['one']);
  expect(await ledger.violations(account)).toEqual([]);
  expect((await store.checkAccount(uuid)).findings).toEqual([]);
});
