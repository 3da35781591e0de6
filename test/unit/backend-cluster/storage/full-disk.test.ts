/** An account on storage that is completely full. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { Headroom } from '#backend-cluster/storage/headroom.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { MemoryDisk, type Operation } from '#test/fakes/memory-files.ts';
import { codeOf, Ledger, mailboxOf, opening, storeOn, uuid } from './ledger.ts';

/** What needs a new block. */
const needsRoom = ['writeNew', 'mkdir', 'mkdirAll', 'replace'];

describe('an account on a full disk', () => {
  let disk: MemoryDisk;
  let isFull: boolean;
  let full: string[];
  /** Directories that cannot be read. */
  let unreadable: string[];
  let store: AccountStore;
  let ledger: Ledger;
  const decide = ({ name, path }: Operation) => {
    if (unreadable.some((end) => name === 'list' && path.endsWith(end))) return { kind: 'fails', code: 'EIO' } as const;
    return isFull && full.includes(name) ? ({ kind: 'fails', code: 'ENOSPC' } as const) : undefined;
  };

  beforeEach(async () => {
    disk = new MemoryDisk();
    isFull = false;
    full = needsRoom;
    unreadable = [];
    store = await storeOn(disk.client(decide));
    ledger = new Ledger();
    const account = await store.open(uuid, opening('back1'));
    await ledger.deliver(account, ['one', 'two']);
    await ledger.deliver(account, ['large'], 300_000);
    await account.close();
    isFull = true;
  });

  it.each([
    ['not even a directory can be made', needsRoom],
    ['a directory can be made and nothing be written into it', ['writeNew']],
  ])('is opened and read, refuses changes for now, and goes on when there is room: %s', async (_, which) => {
    full = which;
    const account = await store.open(uuid, opening('back2'));
    expect(await ledger.violations(account)).toEqual([]);
    expect(account.epoch).toBe(2);
    expect(await account.checkHeld()).toBe(true);
    expect(await codeOf(ledger.deliver(account, ['three']))).toBe('STORE_FULL');
    expect(await codeOf(ledger.deliver(account, ['larger'], 300_000))).toBe('STORE_FULL');
    expect(await codeOf(account.expunge(mailboxOf(account, 'INBOX').id, [1], true))).toBe('STORE_FULL');
    expect(account.isOpen).toBe(true);
    isFull = false;
    await ledger.deliver(account, ['three', 'four']);
    await ledger.deliver(account, ['larger'], 300_000);
    expect(account.epoch).toBe(2);
    await account.close();
    const again = await store.open(uuid, opening('back1'));
    expect(again.epoch).toBe(3);
    expect(again.isReadOnly).toBe(false);
    expect(await ledger.violations(again)).toEqual([]);
  });

  it('is taken over by another member meanwhile, and the one that only read finds out', async () => {
    const reader = await store.open(uuid, opening('back2'));
    isFull = false;
    const owner = await (await storeOn(disk.client(), 2)).open(uuid, opening('back3'));
    await ledger.deliver(owner, ['three']);
    expect(await codeOf(ledger.deliver(reader, ['four']))).toBe('CLUSTER_DEPOSED');
    expect(reader.isOpen).toBe(false);
    await ledger.deliver(await store.open(uuid, opening('back1')), ['four']);
  });

  it('says that storage fails when the log cannot be read at the first change, and can be opened again', async () => {
    const account = await store.open(uuid, opening('back2'));
    isFull = false;
    unreadable = ['/log'];
    expect(await codeOf(ledger.deliver(account, ['three']))).toBe('STORE_UNAVAILABLE');
    unreadable = [];
    const again = await store.open(uuid, opening('back2'));
    await ledger.deliver(again, ['three']);
    expect(await ledger.violations(again)).toEqual([]);
  });

  it('shows nothing that a cut of the power can take away', async () => {
    isFull = false;
    const owner = disk.client(({ name, target }) =>
      name === 'link' && target?.endsWith('/000000000005') === true ? { kind: 'happens-but-fails', code: 'EIO' } : undefined,
    );
    const account = await (await storeOn(owner, 2)).open(uuid, opening('back3'));
    expect(await codeOf(ledger.deliver(account, ['three']))).toBe('STORE_UNAVAILABLE');
    isFull = true;
    const reader = await store.open(uuid, opening('back2'));
    const shown = [...mailboxOf(reader, 'INBOX').uids()];
    expect(shown.length).toBe(4);
    disk.powerCut();
    isFull = false;
    const later = await (await storeOn(disk.client(), 3)).open(uuid, opening('back1'));
    expect([...mailboxOf(later, 'INBOX').uids()]).toEqual(shown);
  });

  it('is deposed at the next look when another member has written', async () => {
    const reader = await store.open(uuid, opening('back2'));
    const owner = await (await storeOn(disk.client(), 2)).open(uuid, opening('back3'));
    await ledger.deliver(owner, ['three']);
    expect(await reader.checkHeld()).toBe(false);
  });

  it('cannot be made', async () => {
    const other = '99999999-2222-4333-8444-555555555555' as typeof uuid;
    expect(await codeOf(store.open(other, opening('back1')))).toBe('STORE_FULL');
    full = ['writeNew'];
    expect(await codeOf(store.open(other, opening('back1')))).toBe('STORE_FULL');
    isFull = false;
    expect((await store.open(other, opening('back1'))).isReadOnly).toBe(false);
  });
});

describe('what is kept free', () => {
  it('is a fiftieth and at most 64 MB, is looked at once a second, and does not stop who cannot look', async () => {
    const clock = new FakeClock();
    let freeBytes = 60_000;
    let looks = 0;
    const room = new Headroom(clock, async () => {
      looks += 1;
      return { freeBytes, totalBytes: 1_000_000 };
    });
    await room.check(5_000);
    await room.check(5_000);
    expect(looks).toBe(1);
    expect(room.isShort).toBe(false);
    // What was let in since the last look counts, and where it gets tight every one looks.
    freeBytes = 30_000;
    expect(await codeOf(room.check(11_000))).toBe('STORE_FULL');
    expect(room.isShort).toBe(true);
    expect(looks).toBe(2);
    await room.check(9_000);
    expect(looks).toBe(3);
    freeBytes = 100_000;
    await clock.advance(1_100);
    await room.check(50_000);
    expect(looks).toBe(4);
    await new Headroom(clock, undefined).check(2 ** 40);
    await new Headroom(clock, () => Promise.reject(new Error('EIO'))).check(2 ** 40);
    const large = new Headroom(clock, async () => ({ freeBytes: 100 * 2 ** 20, totalBytes: 2 ** 50 }));
    await large.check(30 * 2 ** 20);
    expect(await codeOf(large.check(40 * 2 ** 20))).toBe('STORE_FULL');
  });
});
