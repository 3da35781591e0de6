/**
 * Histories of one account on a disk that several members share: one works, something happens to it, another takes over, the first one
 * wakes up. What was promised is compared with what is there after each of these.
 */
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import { type Fault, MemoryDisk } from '#test/fakes/memory-files.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { Ledger, mailboxOf, openPatiently, storeOn, turn, untilSettledOrStuck, uuid } from './ledger.ts';

const expectedCodes = ['CLUSTER_DEPOSED', 'STORE_UNAVAILABLE', 'STORE_FULL'];

/** All that an account goes through: openings, single and grouped commits, a large message, flags, copies, removals, snapshots, closings. */
async function work(store: AccountStore, ledger: Ledger): Promise<void> {
  for (let round = 0; round < 2; round += 1) {
    const account = await openPatiently(store, 'back1');
    await ledger.deliver(account, [`one-${round}`]);
    await ledger.deliver(account, [`two-${round}`, `three-${round}`, `four-${round}`]);
    if (round === 0) await ledger.deliver(account, ['large'], 263_000);
    const inbox = mailboxOf(account, 'INBOX');
    await account.storeFlags(inbox.id, [...inbox.uids()], 'add', ['\\Seen']);
    await account.copy(inbox.id, [...inbox.uids()], mailboxOf(account, 'Archive').id);
    await ledger.remove(account, `two-${round}`);
    await ledger.deliver(account, [`five-${round}`]);
    await ledger.deliver(account, [`six-${round}`]);
    await account.close();
  }
}

/** Works, and bears every failure that the store may report. */
async function workUntilFailure(store: Promise<AccountStore>, ledger: Ledger): Promise<void> {
  try {
    await work(await store, ledger);
  } catch (error) {
    if (!(error instanceof PlatformError) || !expectedCodes.includes(error.code)) throw error;
  }
}

/** Operations on the disk that the work takes when nothing goes wrong. */
export async function countOperations(): Promise<number> {
  const machine = new MemoryDisk().client();
  await work(await storeOn(machine), new Ledger());
  return machine.operations;
}

/** Whether everything that no `syncDirectory` made durable is lost when the first member stops. */
export type PowerCut = 'no power cut' | 'names lost' | 'some names lost';

/**
 * One history: the fault at operation `index` of the first member, a take-over, the first one's awakening, and another take-over.
 * `through` stands between every member and the disk; a broken variant of the store is made with it.
 */
export async function history(
  index: number,
  fault: Fault,
  cut: PowerCut,
  through: (files: Files) => Files = (files) => files,
): Promise<string[]> {
  const disk = new MemoryDisk();
  const ledger = new Ledger();
  const first = disk.client((operation) => (operation.index === index ? fault : undefined));
  const working = workUntilFailure(storeOn(through(first)), ledger);
  await untilSettledOrStuck(working, first);
  if (cut === 'names lost') disk.powerCut();
  if (cut === 'some names lost') disk.powerCut(seededRandom(index));

  const second = await storeOn(through(disk.client()), 2);
  const found: string[] = [];
  let account = await openPatiently(second, 'back2');
  found.push(...(await ledger.violations(account)));
  // Enough for two snapshots: slots that the first one knew are gone when it wakes up.
  for (let i = 0; i < 10; i += 1) await ledger.deliver(account, [`after-takeover-${i}`]);

  first.release();
  if (!first.isDead) await working;
  await turn();
  // The awakened one may have opened the account anew and be its owner now.
  if (!account.isOpen || !(await isStillOwner(account, ledger))) account = await openPatiently(second, 'back2');
  // Every sender whose message was not acknowledged sends it again.
  await ledger.deliver(
    account,
    [...ledger.attempted].filter((id) => !ledger.acknowledged.has(id)),
  );
  found.push(...(await ledger.violations(account)));
  for (let i = 0; i < 6; i += 1) await ledger.deliver(account, [`later-${i}`]);
  await account.close();

  const last = await openPatiently(await storeOn(through(disk.client()), 3), 'back3');
  found.push(...(await ledger.violations(last)));
  if (last.isReadOnly) found.push('the account is read-only');
  await last.close();
  found.push(...(await second.checkAccount(uuid)).findings.map(({ file, problem }) => `${file}: ${problem}`));
  return found;
}

async function isStillOwner(account: Awaited<ReturnType<typeof openPatiently>>, ledger: Ledger): Promise<boolean> {
  try {
    await ledger.deliver(account, ['am-i-owner']);
    return true;
  } catch (error) {
    if (error instanceof PlatformError && error.code === 'CLUSTER_DEPOSED') return false;
    throw error;
  }
}
