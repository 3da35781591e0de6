/** Figures of the store alone: opening, memory, and cost with very many accounts that are not open. */
import { cp, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { type AccountUuid, parseAccountUuid } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { memoryMb } from '../directory/process-use.ts';
import { at } from './lmtp-load.ts';

let openings = 0;

/** An opening nobody had before. */
function opening() {
  openings += 1;
  return { member: parseMemberName('back1.west.isp.example'), incarnation: 'bench', openId: `bench.${process.pid}.${openings}` };
}

export function storeAt(root: string): Promise<AccountStore> {
  return openAccountStore({
    root,
    files: nodeFiles,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    metrics: createMetrics(),
  });
}

export const uuidOf = (i: number): AccountUuid => parseAccountUuid(`${i.toString(16).padStart(8, '0')}-0000-4000-8000-000000000000`);

/** Makes an account with so many messages, some of them flagged, with a snapshot. */
export async function makeAccount(store: AccountStore, uuid: AccountUuid, messages: number): Promise<void> {
  const account = await store.open(uuid, opening());
  const inbox = account.mailbox('INBOX') as { id: number };
  for (let done = 0; done < messages; done += 500) {
    await account.append(
      inbox.id,
      Array.from({ length: Math.min(500, messages - done) }, (_, i) => ({
        raw: Buffer.from(`Subject: ${done + i}\r\n\r\nx\r\n`),
        summary: Buffer.from('{}'),
        flags: i % 3 === 0 ? ['\\Seen'] : [],
        internalDateMs: 1_700_000_000_000 + (done + i) * 1000,
        deliveryId: `d${done + i}`.repeat(i % 50 === 0 ? 1 : 0) || undefined,
      })).map(({ deliveryId, ...request }) => (deliveryId === undefined ? request : { ...request, deliveryId })),
    );
  }
  await account.close();
}

/** Median and worst time to open and to close, milliseconds. */
export async function openTimes(store: AccountStore, uuid: AccountUuid, rounds: number): Promise<{ p50Ms: number; worstMs: number }> {
  const times: number[] = [];
  for (let i = 0; i < rounds + 5; i += 1) {
    const startMs = performance.now();
    const account = await store.open(uuid, opening());
    if (i >= 5) times.push(performance.now() - startMs);
    await account.close();
  }
  times.sort((a, b) => a - b);
  return { p50Ms: at(times, 0.5), worstMs: times.at(-1) as number };
}

/** Copies one account's directory to others. */
export async function multiply(root: string, from: AccountUuid, count: number): Promise<AccountUuid[]> {
  const directoryOf = (uuid: AccountUuid): string => join(root, 'accounts', uuid.slice(0, 2), uuid.slice(2, 4), uuid);
  const uuids = Array.from({ length: count }, (_, i) =>
    parseAccountUuid(`${(i * 977).toString(16).padStart(8, '0')}-1111-4111-8111-111111111111`),
  );
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let uuid = uuids[next]; uuid !== undefined; uuid = uuids[next]) {
      next += 1;
      await mkdir(join(directoryOf(uuid), '..'), { recursive: true });
      await cp(directoryOf(from), directoryOf(uuid), { recursive: true });
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return uuids;
}

/** Memory that so many open accounts take, MB. */
export async function openMany(store: AccountStore, uuids: readonly AccountUuid[]): Promise<{ residentMb: number; messages: number }> {
  globalThis.gc?.();
  const before = memoryMb(process.pid).resident;
  const open = [];
  let messages = 0;
  for (const uuid of uuids) {
    const account = await store.open(uuid, opening());
    messages += account.quota().messages;
    open.push(account);
  }
  // As a member does twice a minute; what nobody uses is packed by the second one.
  for (let sweep = 0; sweep < 2; sweep += 1) for (const account of open) account.pack();
  globalThis.gc?.();
  const after = memoryMb(process.pid).resident;
  await Promise.all(open.map((account) => account.close()));
  return { residentMb: after - before, messages };
}

/** Makes directories of accounts that nobody opens. */
export async function makeSleepers(root: string, count: number): Promise<void> {
  for (let first = 0; first < 256; first += 1) {
    const top = first.toString(16).padStart(2, '0');
    for (let second = 0; second < 256; second += 1) {
      const directory = join(root, 'accounts', top, second.toString(16).padStart(2, '0'));
      await mkdir(directory, { recursive: true });
      const wanted = Math.ceil(count / 65_536);
      await Promise.all(
        Array.from({ length: wanted }, (_, i) =>
          mkdir(
            join(directory, `${top}${second.toString(16).padStart(2, '0')}${i.toString(16).padStart(4, '0')}-2222-4222-8222-222222222222`),
          ),
        ),
      );
    }
  }
}

/** How many directories of accounts there are. */
export async function countAccounts(root: string): Promise<number> {
  let count = 0;
  for (const top of await readdir(join(root, 'accounts'))) {
    for (const second of await readdir(join(root, 'accounts', top))) count += (await readdir(join(root, 'accounts', top, second))).length;
  }
  return count;
}
