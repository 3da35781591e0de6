/**
 * A member of its own process for real-processes.test.ts: opens the account and delivers without end, telling each acknowledgement on a
 * line of its own. Arguments: root, account, member.
 */
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';

const [root = '', account = '', member = ''] = process.argv.slice(2);
const incarnation = systemRandom.bytes(8).toString('hex');
const store = await openAccountStore({
  root,
  files: nodeFiles,
  clock: systemClock,
  random: systemRandom,
  log: silentLogger,
  metrics: createMetrics(),
  tuning: { snapshotRecords: 20, snapshotAtCloseSlots: 2 },
});
const open = await store.open(parseAccountUuid(account), {
  member: parseMemberName(`${member}.west.isp.example`),
  incarnation,
  openId: `${member}.${incarnation}.1`,
});
const inboxId = open.mailbox('INBOX')?.id ?? 0;
console.log(`opened ${open.epoch}`);
try {
  for (let i = 0; ; i += 1) {
    const deliveryId = `${member}-${incarnation}-${i}`;
    const raw = Buffer.from(`Message-ID: <${deliveryId}>\r\n\r\n`);
    const [stored] = await open.append(inboxId, [{ raw, summary: Buffer.from(''), flags: [], internalDateMs: 0, deliveryId }]);
    process.stdout.write(`${deliveryId} ${stored?.uid}\n`);
  }
} catch (error) {
  console.log(`ended ${error instanceof PlatformError ? error.code : String(error)}`);
}
