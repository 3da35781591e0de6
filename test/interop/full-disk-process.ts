/** Runs in a mount namespace of its own: fills a small tmpfs by deliveries, then by others, and prints what an account does about it. */
import { writeFile } from 'node:fs/promises';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { codeOf, Ledger, mailboxOf, opening, uuid } from '#test/unit/backend-cluster/storage/ledger.ts';

const root = process.argv[2] as string;
const ports = { clock: systemClock, random: systemRandom, log: silentLogger, metrics: createMetrics() };
const store = await openAccountStore({ root, files: nodeFiles, ...ports });
const ledger = new Ledger();
const seen: Record<string, unknown> = {};
const free = async (): Promise<number> => (await nodeFiles.room?.(root))?.freeBytes ?? -1;

// Mail until it is refused: room for an opening and for removing is kept.
let account = await store.open(uuid, opening('back1'));
let code = 'no failure';
for (let i = 0; i < 2_000 && code === 'no failure'; i += 1) code = await codeOf(ledger.deliver(account, [`m${i}`], 300_000));
seen.refusedWith = code;
seen.freeWhenRefused = await free();
await account.close();
account = await store.open(uuid, opening('back2'));
seen.violations = await ledger.violations(account);
const inbox = mailboxOf(account, 'INBOX');
seen.messages = inbox.messageCount;
const before = await free();
const gone = [...inbox.uids()].slice(0, 10);
seen.expunged = (await account.expunge(inbox.id, gone, true)).length;
await account.close();
seen.freed = (await free()) - before;

// Now somebody else takes the last byte.
let filled = 0;
for (let size = 2 ** 22; size >= 1; size >>= 1) {
  for (let i = 0; i < 64; i += 1) {
    filled += 1;
    if ((await codeOf(writeFile(`${root}/filler-${filled}`, Buffer.alloc(size)))) !== 'no failure') break;
  }
}
seen.freeWhenFull = await free();
account = await store.open(uuid, opening('back3'));
const left = [...mailboxOf(account, 'INBOX').uids()];
seen.readable = (await Promise.all(left.map((one) => account.readRaw(mailboxOf(account, 'INBOX').id, one)))).length === left.length;
seen.deliveryWhenFull = await codeOf(ledger.deliver(account, ['late'], 1_000));
seen.isOpen = account.isOpen;
for (let i = 1; i <= filled; i += 1) await codeOf(nodeFiles.unlink(`${root}/filler-${i}`));
await new Promise((resolve) => setTimeout(resolve, 1_100));
seen.deliveryWithRoom = await codeOf(ledger.deliver(account, ['late'], 1_000));
await account.close();
seen.findings = (await store.checkAccount(uuid)).findings;
process.stdout.write(`${JSON.stringify(seen)}\n`);
