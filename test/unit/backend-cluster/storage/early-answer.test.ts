/**
 * An account can be read as soon as its opening has the next slot, and changed when that slot is durable.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { numberName } from '#backend-cluster/storage/layout.ts';
import { decodeSlotHeader, encodeSlot, slotHeaderBytes } from '#backend-cluster/storage/slot.ts';
import { type Fault, type MemoryClient, MemoryDisk, type Operation } from '#test/fakes/memory-files.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { codeOf, Ledger, mailboxOf, opening, openPatiently, storeOn, turn, uuid } from './ledger.ts';

describe('an account whose opening is not durable yet', () => {
  let disk: MemoryDisk;
  let ledger: Ledger;
  let machine: MemoryClient;
  let operations: Operation[];

  /** A machine on which the fault meets whatever makes the opening's slot durable. */
  const machineWith = (fault: Fault): MemoryClient => {
    operations = [];
    return disk.client((operation) => {
      operations.push(operation);
      const hasSlot = operations.some(({ name, target }) => name === 'link' && target?.includes('/log/') === true);
      return hasSlot && operation.name === 'syncDirectory' ? fault : undefined;
    });
  };

  beforeEach(async () => {
    disk = new MemoryDisk();
    ledger = new Ledger();
    const first = await (await storeOn(disk.client())).open(uuid, opening('back1'));
    await ledger.deliver(first, ['one', 'two']);
    await ledger.deliver(first, ['large'], 300_000);
    await first.close();
    machine = machineWith({ kind: 'held' });
  });

  const write = (path: string) => operations.filter(({ name, path: at }) => name === 'writeNew' && at.includes(path)).length;

  it('is read and not changed: not a byte of a message is written', async () => {
    const account = await (await storeOn(machine, 2)).open(uuid, opening('back2'));
    expect(await ledger.violations(account)).toEqual([]);
    expect(account.epoch).toBe(2);
    let isStored = false;
    const stored = ledger.deliver(account, ['three', 'larger'], 300_000).then(() => {
      isStored = true;
    });
    const flags = account.storeFlags(mailboxOf(account, 'INBOX').id, [1], 'add', ['\\Seen']);
    for (let i = 0; i < 20; i += 1) await turn();
    expect(isStored).toBe(false);
    expect(write('/stage/')).toBe(1);
    expect(write('/body/')).toBe(0);
    machine.decideBy(() => undefined);
    machine.release();
    await Promise.all([stored, flags]);
    expect(account.epoch).toBe(2);
    await account.close();
    const next = await openPatiently(await storeOn(disk.client(), 3), 'back3');
    expect(next.epoch).toBe(3);
    expect(await ledger.violations(next)).toEqual([]);
  });

  it('shows nothing that a failure of power takes back, and the next one finds the account whole', async () => {
    for (let luck = 0; luck < 8; luck += 1) {
      const account = await (await storeOn(machine, 2)).open(uuid, opening('back2'));
      expect(await ledger.violations(account)).toEqual([]);
      void codeOf(ledger.deliver(account, [`lost-${luck}`]));
      await turn();
      machine.decideBy(() => ({ kind: 'dies-before' }));
      disk.powerCut(luck === 0 ? undefined : seededRandom(luck));
      const next = await openPatiently(await storeOn(disk.client(), 3), 'back3');
      expect(await ledger.violations(next)).toEqual([]);
      expect(next.isReadOnly).toBe(false);
      await ledger.deliver(next, [`after-${luck}`]);
      await next.close();
      machine = machineWith({ kind: 'held' });
    }
  });

  it('is taken over by another one, and comes to nothing', async () => {
    const account = await (await storeOn(machine, 2)).open(uuid, opening('back2'));
    const delivery = codeOf(ledger.deliver(account, ['late']));
    const next = await (await storeOn(disk.client(), 3)).open(uuid, opening('back3'));
    expect(next.epoch).toBe(3);
    await ledger.deliver(next, ['three']);
    expect(await account.checkHeld()).toBe(false);
    machine.release();
    expect(await delivery).toBe('CLUSTER_DEPOSED');
    expect(await ledger.violations(next)).toEqual([]);
  });

  it('ends when it cannot be made durable, and can be opened again', async () => {
    machine = machineWith({ kind: 'held', code: 'EIO' });
    const closed: boolean[] = [];
    const account = await (await storeOn(machine, 2)).open(uuid, opening('back2'));
    account.onChange((change) => closed.push(change.closed));
    expect(await ledger.violations(account)).toEqual([]);
    machine.release();
    expect(await codeOf(ledger.deliver(account, ['three']))).toBe('STORE_UNAVAILABLE');
    expect(closed).toEqual([true]);
    expect(account.isOpen).toBe(false);
    await account.close();
    machine.decideBy(() => undefined);
    const again = await (await storeOn(machine, 4)).open(uuid, opening('back2'));
    await ledger.deliver(again, ['three']);
    expect(await ledger.violations(again)).toEqual([]);
  });

  it('is closed when its opening is over, and leaves nothing behind', async () => {
    const account = await (await storeOn(machine, 2)).open(uuid, opening('back2'));
    let isClosed = false;
    const closing = account.close().then(() => {
      isClosed = true;
    });
    for (let i = 0; i < 20; i += 1) await turn();
    expect(isClosed).toBe(false);
    machine.decideBy(() => undefined);
    machine.release();
    await closing;
    expect(disk.paths().filter((path) => path.includes('/stage/'))).toEqual([]);
  });
});

it('commits what the account turned out to be, where the last slot promised something else', async () => {
  const disk = new MemoryDisk();
  const store = await storeOn(disk.client());
  const ledger = new Ledger();
  const first = await store.open(uuid, opening('back1'));
  await ledger.deliver(first, ['one']);
  await first.storeFlags(mailboxOf(first, 'INBOX').id, [1], 'add', ['\\Seen']);
  await first.close();
  // A snapshot covers the last slot, so nobody reads what is in that; only its header was looked at.
  const last = disk.paths().findLast((path) => path.includes('/log/')) as string;
  const slot = Number(last.slice(last.lastIndexOf('/') + 1));
  disk.damage(last, () => Buffer.concat(encodeSlot({ slot, epoch: 9, nonce: '0'.repeat(32), records: [], bodies: [] }).parts));
  const account = await store.open(uuid, opening('back2'));
  expect(account.epoch).toBe(2);
  await ledger.deliver(account, ['two']);
  const opened = disk.file(`${last.slice(0, -12)}${numberName(slot + 1)}`).content;
  expect(decodeSlotHeader(opened.subarray(0, slotHeaderBytes))).toMatchObject({ slot: slot + 1, epoch: 2 });
  await account.close();
  expect(disk.paths().filter((path) => path.includes('/stage/'))).toEqual([]);
  expect(await ledger.violations(await store.open(uuid, opening('back3')))).toEqual([]);
});
