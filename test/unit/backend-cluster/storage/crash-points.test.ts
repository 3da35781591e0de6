/**
 * One member works on an account, and at every single operation on the disk something happens to it: it dies before, after or half-way,
 * the answer is lost, the disk fails or is full, or the operation is held back and happens after another member took the account over.
 */
import { describe, expect, it } from 'vitest';
import { type Fault, MemoryDisk } from '#test/fakes/memory-files.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { countOperations, history, type PowerCut } from './histories.ts';
import { codeOf, Ledger, mailboxOf, opening, openPatiently, storeOn, untilSettledOrStuck, uuid } from './ledger.ts';

describe('an account whose owner meets a fault at any operation', () => {
  const faults: [string, Fault, PowerCut][] = [
    ['dies before it', { kind: 'dies-before' }, 'no power cut'],
    ['dies after it', { kind: 'dies-after' }, 'no power cut'],
    ['dies half-way through it', { kind: 'dies-half-way' }, 'no power cut'],
    ['dies after it and the power is cut', { kind: 'dies-after' }, 'names lost'],
    ['dies after it and the power is cut, with some names on disk', { kind: 'dies-after' }, 'some names lost'],
    ['dies and it happens after the take-over', { kind: 'dies-and-happens-later' }, 'no power cut'],
    ['sleeps and it happens after the take-over', { kind: 'held' }, 'no power cut'],
    ['is told EIO though it happened', { kind: 'happens-but-fails', code: 'EIO' }, 'no power cut'],
    ['is told EEXIST though it happened', { kind: 'happens-but-fails', code: 'EEXIST' }, 'no power cut'],
    ['is told EIO', { kind: 'fails', code: 'EIO' }, 'no power cut'],
    ['is told ESTALE', { kind: 'fails', code: 'ESTALE' }, 'no power cut'],
    ['is told that the disk is full', { kind: 'fails', code: 'ENOSPC' }, 'no power cut'],
  ];

  it.each(faults)('keeps every promise when the owner %s', async (_, fault, cut) => {
    const operations = await countOperations();
    expect(operations).toBeGreaterThan(150);
    const broken: string[] = [];
    for (let index = 0; index < operations; index += 1) {
      const found = await history(index, fault, cut);
      if (found.length > 0) broken.push(`operation ${index}: ${found.join('; ')}`);
    }
    expect(broken).toEqual([]);
  });
});

describe('an account that is taken over from an owner whose last slot is not durable', () => {
  it('is whole after any cut of the power while the next one opens it', async () => {
    let isOver = false;
    let index = 0;
    for (; !isOver; index += 1) {
      for (let luck = 0; luck < 8; luck += 1) {
        const disk = new MemoryDisk();
        const ledger = new Ledger();
        let isFailing = false;
        const failing = disk.client(({ name }) => (isFailing && name === 'syncDirectory' ? { kind: 'fails', code: 'EIO' } : undefined));
        const account = await (await storeOn(failing)).open(uuid, opening('back1'));
        await ledger.deliver(account, ['one']);
        isFailing = true;
        expect(await codeOf(ledger.deliver(account, ['two']))).toBe('STORE_UNAVAILABLE');
        const next = disk.client((operation) => (operation.index === index ? { kind: 'dies-after' } : undefined));
        const opened = storeOn(next, 2).then((store) => store.open(uuid, opening('back2')));
        let shown: readonly number[] = [];
        void opened.then((account) => {
          shown = [...mailboxOf(account, 'INBOX').uids()];
        });
        await untilSettledOrStuck(opened, next);
        isOver = !next.isDead;
        disk.powerCut(seededRandom(luck));
        const last = await openPatiently(await storeOn(disk.client(), 3), 'back3');
        expect([...mailboxOf(last, 'INBOX').uids()]).toEqual(expect.arrayContaining([...shown]));
        expect(await ledger.violations(last)).toEqual([]);
        expect(last.isReadOnly, `dead after operation ${index}, luck ${luck}`).toBe(false);
      }
    }
    expect(index).toBeGreaterThan(10);
  });
});
