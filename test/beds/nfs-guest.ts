/**
 * Runs inside the guest of nfs.sh: two members, each on a client of its own, share a store. Prints one line, `RESULT` and JSON: what the
 * probe says of the mount and, where that accepts it, what became of deliveries, take-overs, contention and compaction.
 */
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { systemClock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { codeOf, Ledger, opening, openPatiently, uuid } from '#test/unit/backend-cluster/storage/ledger.ts';

const [first = '', second = '', options = ''] = process.argv.slice(2);
const root = `store-${options.replace(/[^a-z]/g, '-')}`;
const seen: Record<string, unknown> = { options };

const open = (mount: string) => {
  const ports = { clock: systemClock, random: systemRandom, log: silentLogger, metrics: createMetrics() };
  return openAccountStore({
    root: `${mount}/${root}`,
    files: nodeFiles,
    ...ports,
    tuning: { snapshotRecords: 4, snapshotAtCloseSlots: 2 },
  });
};

const [store, other] = [await open(first), await open(second)];
try {
  const { checks, warnings } = await store.probe();
  await other.probe();
  seen.probe = 'accepted';
  seen.checks = checks.length;
  seen.warnings = warnings;
} catch (error) {
  seen.probe = messageOf(error);
}
if (seen.probe === 'accepted') {
  const ledger = new Ledger();
  let owner = await store.open(uuid, opening('back1'));
  await ledger.deliver(owner, ['one', 'two']);
  await ledger.deliver(owner, ['large'], 280_000);
  seen.sleeper = [];
  for (let round = 0; round < 6; round += 1) {
    const sleeper = owner;
    // The other client has listed and missed these names before: its cache is what could be wrong.
    owner = await (round % 2 === 0 ? other : store).open(uuid, opening(`back${2 + (round % 2)}`));
    (seen.sleeper as string[]).push(await codeOf(ledger.deliver(sleeper, [`late-${round}`])));
    for (let i = 0; i < 6; i += 1) await ledger.deliver(owner, [`m-${round}-${i}`]);
    await ledger.remove(owner, `m-${round}-0`);
  }
  const contend = async (door: typeof store, member: string): Promise<void> => {
    for (let round = 0; round < 3; round += 1) {
      await codeOf(
        door.open(uuid, opening(member)).then(async (account) => {
          for (let i = 0; i < 3; i += 1) await ledger.deliver(account, [`${member}-${round}-${i}`]);
        }),
      );
    }
  };
  await Promise.all([contend(store, 'back1'), contend(other, 'back2')]);
  const last = await openPatiently(other, 'back3');
  seen.violations = await ledger.violations(last);
  seen.isReadOnly = last.isReadOnly;
  seen.acknowledged = ledger.acknowledged.size;
  await last.close();
  seen.findings = (await store.checkAccount(uuid)).findings;
}
process.stdout.write(`\nRESULT ${JSON.stringify(seen)}\n`);
