import { beforeEach, describe, expect, it } from 'vitest';
import { AccountState } from '#backend-cluster/storage/account-state.ts';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { GroupPlan } from '#backend-cluster/storage/group-plan.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { parseMemberName } from '#common/host-server.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { MemoryDisk } from '#test/fakes/memory-files.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { codeOf, Ledger, mailboxOf, opening, storeOn, uuid } from './ledger.ts';

const back1 = { member: parseMemberName('back1.west.isp.example'), incarnation: 'a' };
const back2 = { member: parseMemberName('back2.west.isp.example'), incarnation: 'b' };

let disk: MemoryDisk;
let store: AccountStore;
beforeEach(async () => {
  disk = new MemoryDisk();
  store = await storeOn(disk.client());
});

describe('terms', () => {
  it('belong to the first who claims them, and stay', async () => {
    const other = await storeOn(disk.client(), 2);
    expect(await store.highestTerm()).toBe(0);
    const answers = await Promise.all([store.claimTerm(1, back1), other.claimTerm(1, back2)]);
    expect(answers).toEqual([true, false]);
    expect(await other.readTerm(1)).toEqual(back1);
    expect(await store.claimTerm(1, back1)).toBe(true);
    expect(await store.claimTerm(1, { ...back1, incarnation: 'restarted' })).toBe(false);
    expect(await other.claimTerm(17, back2)).toBe(true);
    disk.powerCut();
    expect(await store.highestTerm()).toBe(17);
    expect(await store.readTerm(16)).toBeUndefined();
  });

  it('are found out by claiming again when the answer was lost', async () => {
    let isFailing = true;
    const files = disk.client(({ name }) => (isFailing && name === 'link' ? { kind: 'happens-but-fails', code: 'EIO' } : undefined));
    const shaky = await storeOn(files, 3);
    expect(await codeOf(shaky.claimTerm(1, back1))).toBe('STORE_UNAVAILABLE');
    isFailing = false;
    expect(await shaky.claimTerm(1, back1)).toBe(true);
    expect(await shaky.claimTerm(1, back2)).toBe(false);
  });
});

describe('intents', () => {
  it('are durable, replaced whole, created once, and gone when removed', async () => {
    await store.intents.put('b', { step: 1 });
    await store.intents.put('b', { step: 2, text: 'ü' });
    expect(await store.intents.create('a', 1)).toBe(true);
    expect(await store.intents.create('a', 2)).toBe(false);
    disk.powerCut();
    expect(await store.intents.list()).toEqual([
      { id: 'a', value: 1 },
      { id: 'b', value: { step: 2, text: 'ü' } },
    ]);
    await store.intents.remove('a');
    await store.intents.remove('never');
    disk.powerCut();
    expect((await store.intents.list()).map(({ id }) => id)).toEqual(['b']);
  });

  it.each(['', '../x', 'a/b', '.hidden', 'x'.repeat(101)])('have no id such as %j', async (id) => {
    expect(await codeOf(store.intents.put(id, 1))).toBe('BUG_UNEXPECTED');
  });
});

describe('a removed account', () => {
  it('cannot be opened, deposes its owner, comes back with its mail, or is purged for good', async () => {
    const ledger = new Ledger();
    expect(await store.state(uuid)).toBe('absent');
    const owner = await store.open(uuid, opening('back1'));
    await ledger.deliver(owner, ['one']);
    expect(await store.state(uuid)).toBe('present');

    await store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 1234 });
    expect(await codeOf(ledger.deliver(owner, ['two']))).toBe('CLUSTER_DEPOSED');
    expect(await store.state(uuid)).toBe('tombstone');
    expect(await codeOf(store.open(uuid, opening('back1')))).toBe('ACCT_REMOVED');
    expect(await store.listTombstones()).toEqual([{ uuid, name: 'alice@isp.example', removedAtMs: 1234 }]);
    await store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 9999 });
    expect((await store.listTombstones())[0]?.removedAtMs).toBe(1234);

    await store.restore(uuid);
    const restored = await store.open(uuid, opening('back2'));
    expect(await ledger.violations(restored)).toEqual([]);
    expect(await codeOf(store.purge(uuid))).toBe('ACCT_EXISTS');

    await store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 5678 });
    await store.purge(uuid);
    expect(await store.state(uuid)).toBe('absent');
    expect(disk.paths().filter((path) => path.includes(uuid))).toEqual([]);
  });

  it('is entombed before it was ever opened', async () => {
    await store.entomb(uuid, { name: 'new@isp.example', removedAtMs: 1 });
    expect(await store.state(uuid)).toBe('tombstone');
    await store.purge(uuid);
    expect(await store.state(uuid)).toBe('absent');
  });
});

describe('damage on the disk', () => {
  const ledger = new Ledger();
  const flip = (at: number) => (content: Buffer) => {
    content[at] = (content[at] as number) ^ 0x10;
    return content;
  };
  const fileOf = (part: string, which: number): string =>
    disk
      .paths()
      .filter((path) => path.includes(`/${part}/`))
      .at(which) as string;
  let errors: string[];

  beforeEach(async () => {
    errors = [];
    const log: Logger = { ...silentLogger, child: () => log, error: (_, text) => errors.push(text) };
    store = await openAccountStore({
      root: '/store',
      files: disk.client(),
      clock: new FakeClock(),
      random: seededRandom(4),
      log,
      metrics: createMetrics(),
      tuning: { snapshotRecords: 6, snapshotAtCloseSlots: 100 },
    });
    const account = await store.open(uuid, opening('back1'));
    for (let i = 0; i < 16; i += 1) await ledger.deliver(account, [`m${i}`], 500);
    await account.close();
  });

  it.each([
    ['in the records of a slot', () => disk.damage(fileOf('log', -1), flip(80))],
    ['in the header of a slot', () => disk.damage(fileOf('log', -1), flip(9))],
    ['a slot cut short', () => disk.damage(fileOf('log', -1), (content) => content.subarray(0, 70))],
    ['an empty slot', () => disk.damage(fileOf('log', -1), () => Buffer.alloc(0))],
  ])('makes the account read-only: %s; its log line names the file', async (_, harm) => {
    const harmed = fileOf('log', -1).slice('/store/'.length);
    harm();
    const account = await store.open(uuid, opening('back1'));
    expect(account.isReadOnly).toBe(true);
    expect(mailboxOf(account, 'INBOX').messageCount).toBeGreaterThan(10);
    expect((await account.readRaw(mailboxOf(account, 'INBOX').id, 1)).length).toBe(500);
    expect(await codeOf(ledger.deliver(account, ['late']))).toBe('STORE_CORRUPT');
    expect(errors.join('\n')).toContain(harmed);
    expect((await store.checkAccount(uuid)).findings.map(({ file }) => file)).toContain(harmed);
    await account.close();
    const other = await store.open('99999999-2222-4333-8444-555555555555' as typeof uuid, opening('back1'));
    expect(other.isReadOnly).toBe(false);
  });

  it('is noticed when a slot in the middle is gone', async () => {
    const newest = Number(fileOf('snap', -1).slice(-12));
    const client = disk.client();
    const missing = disk.paths().filter((path) => path.includes('/log/') && Number(path.slice(-12)) > newest);
    expect(missing.length).toBeGreaterThan(1);
    await client.unlink(missing[0] as string);
    const account = await store.open(uuid, opening('back1'));
    expect(account.isReadOnly).toBe(true);
  });

  it('of the newest snapshot costs nothing: the one before it and the slots since are there', async () => {
    disk.damage(fileOf('snap', -1), flip(200));
    const account = await store.open(uuid, opening('back1'));
    expect(account.isReadOnly).toBe(false);
    expect((await ledger.violations(account)).filter((violation) => !violation.includes('late'))).toEqual([]);
    expect(errors.join('\n')).toContain('an older snapshot covers for it');
  });

  it('of a body is reported when it is read and found by a check, and hurts no other message', async () => {
    const account = await store.open(uuid, opening('back1'));
    const inbox = mailboxOf(account, 'INBOX');
    disk.damage(fileOf('body', 0), (content) => flip(content.length - 5)(content));
    const answers = await Promise.all([...inbox.uids()].map((uid) => codeOf(account.readRaw(inbox.id, uid))));
    expect(answers.filter((answer) => answer === 'STORE_CORRUPT').length).toBe(1);
    expect(answers.filter((answer) => answer === 'no failure').length).toBe(inbox.messageCount - 1);
    expect((await store.checkAccount(uuid)).findings).toEqual([
      { file: fileOf('body', 0).slice('/store/'.length), problem: 'a stored part fails its checksum' },
    ]);
    expect(account.isReadOnly).toBe(true);
    expect(errors.join('\n')).toContain('archipelago store repair');
  });

  it('of a body that is in a slot is reported with the name of the slot', async () => {
    const account = await store.open(uuid, opening('back1'));
    const inbox = mailboxOf(account, 'INBOX');
    await ledger.deliver(account, ['in-a-slot']);
    const slot = fileOf('log', -1);
    disk.damage(slot, (content) => flip(content.length - 5)(content));
    expect(await codeOf(account.readRaw(inbox.id, inbox.uidNext - 1))).toBe('STORE_CORRUPT');
    expect(errors.join('\n')).toContain(`${slot.slice('/store/'.length)}: a stored part fails its checksum`);
    expect((await store.checkAccount(uuid)).findings).toMatchObject([{ file: slot.slice('/store/'.length) }]);
  });
});

describe('a check that takes its time', () => {
  it('takes nothing for damage that its host removed meanwhile', async () => {
    const ledger = new Ledger();
    const account = await store.open(uuid, opening('back1'));
    for (let i = 0; i < 12; i += 1) await ledger.deliver(account, [`m${i}`], i % 2 === 0 ? 300_000 : 500);
    let isChanged = false;
    const check = await store.checkAccount(uuid, {
      isMarking: true,
      pace: async () => {
        if (isChanged) return;
        isChanged = true;
        // Everything goes, and compaction follows twice: the bodies that the check wants to read are gone.
        for (let i = 0; i < 12; i += 1) await ledger.remove(account, `m${i}`);
        for (let i = 0; i < 12; i += 1) await ledger.deliver(account, [`n${i}`]);
        await account.close();
      },
    });
    expect(isChanged).toBe(true);
    expect(check).toMatchObject({ findings: [], isComplete: true });
    expect(await store.damageOf(uuid)).toBeUndefined();
  });
});

describe('a mailbox', () => {
  it.each([
    ['with all the messages it may have', 2 ** 20, 1_048_577],
    ['whose UIDs are used up', 5, 2 ** 32 - 1],
  ])('takes no more: %s', (_, count, uidNext) => {
    const state = new AccountState(uuid);
    const mailbox = state.restoreMailbox(1, 'INBOX', 1, undefined);
    mailbox.columns.count = count;
    mailbox.uidNext = uidNext;
    const plan = new GroupPlan(state, 0);
    plan.checkRoom(mailbox, 0);
    expect(() => plan.checkRoom(mailbox, 1)).toThrow(expect.objectContaining({ code: 'MBOX_LIMIT' }));
  });
});

describe('the log', () => {
  it('is kept short, with the bodies that are wanted and without the others', async () => {
    const account = await store.open(uuid, opening('back1'));
    const ledger = new Ledger();
    for (let i = 0; i < 30; i += 1) await ledger.deliver(account, [`m${i}`], i % 10 === 0 ? 280_000 : 300);
    for (let i = 0; i < 25; i += 1) await ledger.remove(account, `m${i}`);
    await account.close();
    const again = await store.open(uuid, opening('back1'));
    await ledger.deliver(again, ['x', 'y']);
    await ledger.deliver(again, ['z']);
    await again.close();
    const count = (part: string): number => disk.paths().filter((path) => path.includes(part)).length;
    expect(count('/log/')).toBeLessThan(16);
    expect(count('/snap/')).toBeLessThanOrEqual(2);
    expect(count('/body/s')).toBeLessThanOrEqual(8);
    expect(count('/body/f')).toBe(0);
    expect(count('/stage/')).toBe(0);
    expect((await store.checkAccount(uuid)).findings).toEqual([]);
  });

  it('forgets delivery ids after a week, not before', async () => {
    const clock = new FakeClock();
    const options = { root: '/store', files: disk.client(), clock, random: seededRandom(8), log: silentLogger, metrics: createMetrics() };
    const patient = await openAccountStore({ ...options, tuning: { snapshotRecords: 2, snapshotAtCloseSlots: 1 } });
    const request = { raw: Buffer.from('x'), summary: Buffer.from(''), flags: [], internalDateMs: 0 };
    let account = await patient.open(uuid, opening('back1'));
    const inboxId = mailboxOf(account, 'INBOX').id;
    await account.append(inboxId, [{ ...request, deliveryId: 'd' }]);
    const uidAfter = async (days: number): Promise<number | undefined> => {
      await account.close();
      await clock.advance(days * 24 * 3600 * 1000);
      account = await patient.open(uuid, opening('back1'));
      for (let i = 0; i < 3; i += 1) await account.append(inboxId, [request]);
      await account.close();
      account = await patient.open(uuid, opening('back1'));
      return (await account.append(inboxId, [{ ...request, deliveryId: 'd' }]))[0]?.uid;
    };
    expect(await uidAfter(7)).toBe(1);
    expect(await uidAfter(2)).toBeGreaterThan(1);
  });

  it('gives up closing in good order when the disk does not answer, and the next opening clears up', async () => {
    const clock = new FakeClock();
    let isHolding = false;
    const files = disk.client(({ name }) => (isHolding && name === 'rmdir' ? { kind: 'held' } : undefined));
    const options = { root: '/store', clock, random: seededRandom(8), log: silentLogger, metrics: createMetrics() };
    const account = await (await openAccountStore({ ...options, files })).open(uuid, opening('back1'));
    isHolding = true;
    const closing = account.close();
    while (!files.isStuck) await clock.advance(0);
    await clock.advance(30_001);
    await closing;
    const next = await store.open(uuid, opening('back2'));
    expect(await disk.client().list(`/store/accounts/11/11/${uuid}/stage`)).toHaveLength(1);
    await next.close();
  });

  it('that does not answer closes the account after its time, and what lands later is no surprise', async () => {
    const clock = new FakeClock();
    let isHolding = false;
    const files = disk.client(({ name }) => (isHolding && name === 'link' ? { kind: 'held' } : undefined));
    const options = { root: '/store', clock, random: seededRandom(8), log: silentLogger, metrics: createMetrics() };
    const slow = await openAccountStore({ ...options, files });
    const account = await slow.open(uuid, opening('back1'));
    const ledger = new Ledger();
    isHolding = true;
    const answer = codeOf(ledger.deliver(account, ['one']));
    while (!files.isStuck) await clock.advance(0);
    await clock.advance(30_001);
    expect(await answer).toBe('STORE_UNAVAILABLE');
    expect(account.isOpen).toBe(false);
    const next = await store.open(uuid, opening('back2'));
    files.release();
    await ledger.deliver(next, ['one', 'two']);
    expect(await ledger.violations(next)).toEqual([]);
  });
});
