/**
 * `archipelago store …` with --path or --config: the tools of a cluster's store, on the storage itself. `check` and `stat` only read and may
 * run while the cluster does; `repair` takes the account from whoever has it open. What they tell of their progress goes to standard error.
 */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import type { AccountCheck, AccountRepair, AccountStore } from '#backend-cluster/storage/account-store.ts';
import { openConfiguredStore } from '#backend-cluster/storage/open-configured.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { type AccountUuid, parseAccountUuid } from '#common/account-name.ts';
import { holdProcess, sleep, systemClock } from '#common/clock.ts';
import { problemText } from '#common/config/node-file.ts';
import { asPlatformError, messageOf } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseMemberName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { loadServicesFile } from '#operate/config/service-schemas.ts';

const usage = `usage: archipelago store COMMAND (--path DIR | --config FILE) [--json]

  stat                     damaged and removed accounts, and how many there are; exit code 4 when one is damaged
  check [UUID...]          reads and verifies all accounts, or these; exit code 4 when something is wrong
  repair UUID              makes a damaged account whole again; exit code 4 when something would be lost and --discard-lost is missing
     --dry-run             only says what would be done; exit code 4 when something would be lost
     --discard-lost        agrees to the loss of what cannot be brought back

  --path DIR               a cluster's shared directory
  --config FILE            node file of a member: its directory or bucket
  --rate BYTES             check: reads no more than that a second

On a running installation: archipelago store stat | check | repair without --path and --config.
`;

const options = {
  path: { type: 'string' },
  config: { type: 'string' },
  json: { type: 'boolean' },
  rate: { type: 'string' },
  'dry-run': { type: 'boolean' },
  'discard-lost': { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies ParseArgsConfig['options'];

type Values = ReturnType<typeof parseArgs<{ options: typeof options; allowPositionals: true }>>['values'];

const progressEveryMs = 1_000;

/** Of a tombstone. */
const illegible = 'its record in tombstones/ is damaged; the storage is kept until the account is restored by its UUID under a name (--as)';

/** A mistake in the command line. */
class Misuse extends Error {}

// Timers of the product do not keep the process alive.
const hold = holdProcess();
process.exitCode = await main();
hold.cancel();

async function main(): Promise<number> {
  let command = '';
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    if (values.help === true) {
      process.stdout.write(usage);
      return 0;
    }
    command = positionals[0] ?? '';
    const run = { stat, check, repair }[command as 'stat' | 'check' | 'repair'];
    if (run === undefined) throw new Misuse(command === '' ? 'a command is missing' : `there is no command "${command}"`);
    return await run(await openStore(values), values, positionals.slice(1));
  } catch (error) {
    const isMisuse = error instanceof Misuse || (error as { code?: unknown }).code?.toString().startsWith('ERR_PARSE_ARGS') === true;
    process.stderr.write(`archipelago store ${command}: ${messageOf(error)}\n${isMisuse ? `\n${usage}` : ''}`);
    return isMisuse ? 2 : asPlatformError(error).code === 'ACCT_NOT_FOUND' ? 3 : 1;
  }
}

async function openStore(values: Values): Promise<AccountStore> {
  const ports: Ports = {
    clock: systemClock,
    random: systemRandom,
    network: systemNetwork,
    files: nodeFiles,
    // What a tool finds it prints itself.
    log: silentLogger,
    metrics: createMetrics(),
  };
  if (values.path !== undefined) {
    const root = resolve(values.path);
    if ((await nodeFiles.size(`${root}/accounts`)) === undefined)
      throw new Misuse(`${root} is no cluster's shared directory: it has no accounts/`);
    return openAccountStore({ ...ports, root });
  }
  if (values.config === undefined) throw new Misuse('--path DIR or --config FILE is missing');
  const loaded = loadServicesFile(values.config, await readFile(values.config, 'utf8'));
  if ('problems' in loaded) throw new Error(`${values.config} has mistakes:\n${loaded.problems.map(problemText).join('\n')}`);
  const member = loaded.config.services.find((service) => service.role === 'backend-cluster');
  if (member === undefined) throw new Misuse(`${values.config} has no service of role backend-cluster`);
  return (await openConfiguredStore(member.storage, ports, process.env)).store;
}

async function stat(store: AccountStore, values: Values): Promise<number> {
  let accounts = 0;
  for await (const _ of store.accounts('')) accounts += 1;
  const { count, accounts: damaged } = await store.listDamaged(1_000);
  const removed = await store.listTombstones();
  if (values.json === true) print({ accounts, damaged: count, damagedAccounts: damaged, removed });
  else {
    process.stdout.write(`${accounts} accounts, ${count} damaged, ${removed.length} removed and kept\n`);
    for (const { uuid, findings } of damaged)
      for (const { file, problem } of findings) process.stdout.write(`damaged ${uuid}: ${file}: ${problem}\n`);
    for (const { uuid, name, removedAtMs } of removed)
      process.stdout.write(
        `removed ${uuid}: ${Number.isFinite(removedAtMs) ? `${name}, ${new Date(removedAtMs).toISOString()}` : illegible}\n`,
      );
  }
  return count === 0 && removed.every(({ removedAtMs }) => Number.isFinite(removedAtMs)) ? 0 : 4;
}

async function check(store: AccountStore, values: Values, args: readonly string[]): Promise<number> {
  const rate = values.rate === undefined ? undefined : Number(values.rate);
  if (rate !== undefined && !(rate > 0)) throw new Misuse('--rate is not a number of bytes above 0');
  const startedMs = systemClock.monotonicMs();
  const totals = { accounts: 0, bytes: 0, messages: 0, damaged: 0 };
  let toldMs = startedMs;
  const pace = async (bytes: number): Promise<void> => {
    totals.bytes += bytes;
    const nowMs = systemClock.monotonicMs();
    if (nowMs - toldMs >= progressEveryMs && process.stderr.isTTY) {
      toldMs = nowMs;
      process.stderr.write(`\r${totals.accounts} accounts, ${(totals.bytes / 1e6).toFixed(1)} MB read, ${totals.damaged} damaged `);
    }
    const aheadMs = rate === undefined ? 0 : (totals.bytes / rate) * 1000 - (nowMs - startedMs);
    if (aheadMs > 50) {
      await sleep(systemClock, aheadMs);
    }
  };
  for await (const uuid of uuidsOf(store, args)) {
    const found = await checkOne(store, uuid, pace);
    totals.accounts += 1;
    totals.messages += found.messages;
    if (found.findings.length > 0) totals.damaged += 1;
    if (values.json === true) print(found);
    else for (const { file, problem } of found.findings) process.stdout.write(`${uuid}: ${file}: ${problem}\n`);
  }
  const summary = `${totals.accounts} accounts, ${totals.messages} messages, ${(totals.bytes / 1e6).toFixed(1)} MB read, ${totals.damaged} damaged`;
  process.stderr.write(`${process.stderr.isTTY ? '\r' : ''}${summary}\n`);
  return totals.damaged === 0 ? 0 : 4;
}

async function checkOne(
  store: AccountStore,
  uuid: AccountUuid,
  pace: (bytes: number) => Promise<void>,
): Promise<Pick<AccountCheck, 'messages' | 'findings'>> {
  try {
    return await store.checkAccount(uuid, { pace });
  } catch (error) {
    const { code, message } = asPlatformError(error);
    // Nothing at all can be read of it: that is a finding about this account, and the others are looked at all the same.
    if (code !== 'STORE_CORRUPT') throw error;
    return { messages: 0, findings: [{ file: `accounts/${uuid}`, problem: message }] };
  }
}

async function* uuidsOf(store: AccountStore, args: readonly string[]): AsyncGenerator<AccountUuid> {
  if (args.length === 0) yield* store.accounts('');
  for (const text of args) yield parseAccountUuid(text);
}

async function repair(store: AccountStore, values: Values, args: readonly string[]): Promise<number> {
  const [text, more] = args;
  if (text === undefined || more !== undefined) throw new Misuse('repair takes one UUID');
  const incarnation = systemRandom.bytes(8).toString('hex');
  const opening = { member: parseMemberName('repair.store.invalid'), incarnation, openId: `repair.${incarnation}` };
  const isDryRun = values['dry-run'] === true;
  const done = await store.repair(parseAccountUuid(text), { opening, discardLost: values['discard-lost'] === true, isDryRun });
  if (values.json === true) print(done);
  else process.stdout.write(repairText(done));
  return done.outcome === 'would-lose' ? 4 : 0;
}

function repairText(done: AccountRepair): string {
  const lines = done.findings.map(({ file, problem }) => `${file}: ${problem}`);
  lines.push(...done.lost.map(({ mailbox, uid, sizeBytes, why }) => `lost: ${mailbox} UID ${uid}, ${sizeBytes} bytes: ${why}`));
  if (done.lostSlots > 0) lines.push(`lost: the changes of ${done.lostSlots} log slots`);
  const texts = {
    whole: 'nothing is damaged',
    'can-be-repaired': 'can be repaired without loss',
    'would-lose': 'not repaired: put the files back from a backup and repeat, or give up what is lost with --discard-lost',
    repaired: 'repaired',
  } as const;
  return `${[...lines, `${done.uuid}: ${texts[done.outcome]}`].join('\n')}\n`;
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
