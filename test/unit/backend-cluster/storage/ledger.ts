/**
 * Who was promised what: deliveries that were acknowledged, with the UID that was reported, and messages that somebody asked to remove.
 * `violations` compares the promises with an account as it is, and says in words which invariant is broken.
 */
import { randomBytes } from 'node:crypto';
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import type { AccountOpening, AccountStore, StoredAccount } from '#backend-cluster/storage/account-store.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import type { MemoryClient } from '#test/fakes/memory-files.ts';
import { seededRandom } from '#test/fakes/random.ts';

export const uuid = parseAccountUuid('11111111-2222-4333-8444-555555555555');

let openings = 0;

/** An opening nobody had before. */
export function opening(member: string): AccountOpening {
  openings += 1;
  return { member: parseMemberName(`${member}.west.isp.example`), incarnation: `inc-${member}`, openId: `${member}.${openings}` };
}

/** A store on these files; snapshots are taken early, so that a few commits meet all that an account can. */
export function storeOn(
  files: Files,
  seed = 1,
  tuning: { snapshotRecords?: number; snapshotAtCloseSlots?: number } = {},
): Promise<AccountStore> {
  return openAccountStore({
    root: '/store',
    files,
    clock: new FakeClock(),
    random: seededRandom(seed),
    log: silentLogger,
    metrics: createMetrics(),
    tuning: { snapshotRecords: 4, snapshotAtCloseSlots: 2, ...tuning },
  });
}

/** The code that work fails with, or `no failure`. */
export function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'no failure',
    (error: unknown) => (error instanceof PlatformError ? error.code : String(error)),
  );
}

/** One turn of everything that can go on by itself. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Runs until the work is settled or its machine can do no more. Whoever needs its outcome awaits the work itself. */
export async function untilSettledOrStuck(work: Promise<unknown>, machine: MemoryClient): Promise<void> {
  let isSettled = false;
  const settled = (): void => {
    isSettled = true;
  };
  work.then(settled, settled);
  while (!isSettled && !machine.isStuck) await turn();
  // What does not touch the disk may still go on.
  for (let i = 0; i < 3; i += 1) await turn();
}

/** Opens, again as long as another opening is faster. */
export async function openPatiently(store: AccountStore, member: string): Promise<StoredAccount> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await store.open(uuid, opening(member));
    } catch (error) {
      if (!(error instanceof PlatformError) || error.code !== 'CLUSTER_DEPOSED' || attempt > 5) throw error;
    }
  }
}

interface Promised {
  readonly id: string;
  readonly uidValidity: number;
  readonly uid: number;
}

/** See the header of this file. */
export class Ledger {
  readonly acknowledged = new Map<string, Promised>();
  readonly attempted = new Set<string>();
  readonly removalAsked = new Set<string>();
  readonly removed = new Set<string>();
  #highestUidNext = 0;
  #highestModseq = 0;
  #highestEpoch = 0;

  /** Delivers into INBOX; what is acknowledged is noted. Failures are the caller's to bear. */
  async deliver(account: OpenAccount, ids: readonly string[], bytes = 100): Promise<void> {
    await Promise.all(
      ids.map(async (id) => {
        this.attempted.add(id);
        const inbox = mailboxOf(account, 'INBOX');
        const [stored] = await account.append(inbox.id, [
          { raw: textOf(id, bytes), summary: Buffer.from(`summary of ${id}`), flags: [], internalDateMs: 0, deliveryId: id },
        ]);
        if (stored === undefined) throw new Error('an append of one message gave no UID');
        const before = this.acknowledged.get(id);
        if (before !== undefined && before.uid !== stored.uid) throw new Error(`I4: ${id} was given UID ${before.uid} and ${stored.uid}`);
        this.acknowledged.set(id, { id, uidValidity: stored.uidValidity, uid: stored.uid });
      }),
    );
  }

  /** Removes the message of a delivery that was acknowledged. */
  async remove(account: OpenAccount, id: string): Promise<void> {
    const promised = this.acknowledged.get(id);
    if (promised === undefined) return;
    this.removalAsked.add(id);
    await account.expunge(mailboxOf(account, 'INBOX').id, [promised.uid], true);
    this.removed.add(id);
  }

  /** What is broken, in words; empty when all is as promised. */
  async violations(account: OpenAccount): Promise<string[]> {
    const found: string[] = [];
    const inbox = mailboxOf(account, 'INBOX');
    const uidsOf = new Map<string, number[]>();
    for (const uid of inbox.uids()) {
      const id = idOf(await account.readRaw(inbox.id, uid));
      if ((await account.readSummary(inbox.id, uid)).toString() !== `summary of ${id}`) found.push(`the summary of ${id} is another's`);
      uidsOf.set(id, [...(uidsOf.get(id) ?? []), uid]);
    }
    for (const [id, uids] of uidsOf) {
      if (uids.length > 1) found.push(`I4: ${id} is stored ${uids.length} times`);
      if (!this.attempted.has(id)) found.push(`${id} was never sent`);
      if (this.removed.has(id)) found.push(`I5: ${id} was removed and is there again`);
    }
    for (const { id, uid, uidValidity } of this.acknowledged.values()) {
      const uids = uidsOf.get(id) ?? [];
      if (uidValidity !== inbox.uidValidity) found.push(`I5: UIDVALIDITY was ${uidValidity} and is ${inbox.uidValidity}`);
      if (uids.length === 0 && !this.removalAsked.has(id)) found.push(`I3: ${id} was acknowledged with UID ${uid} and is lost`);
      if (uids.length === 1 && uids[0] !== uid) found.push(`I5: ${id} was acknowledged with UID ${uid} and has ${uids[0]}`);
      const holder = [...uidsOf].find(([other, numbers]) => other !== id && numbers.includes(uid));
      if (holder !== undefined) found.push(`I5: UID ${uid} was ${id} and is ${holder[0]}`);
    }
    if (inbox.uidNext < this.#highestUidNext) found.push(`I5: UIDNEXT went from ${this.#highestUidNext} back to ${inbox.uidNext}`);
    if (inbox.highestModseq < this.#highestModseq) found.push(`I5: MODSEQ went back to ${inbox.highestModseq}`);
    if (account.epoch < this.#highestEpoch) found.push(`I2: the epoch went back to ${account.epoch}`);
    this.#highestUidNext = inbox.uidNext;
    this.#highestModseq = inbox.highestModseq;
    this.#highestEpoch = account.epoch;
    return found;
  }
}

export function mailboxOf(account: OpenAccount, name: string) {
  const mailbox = account.mailbox(name);
  if (mailbox === undefined) throw new Error(`there is no mailbox ${name}`);
  return mailbox;
}

function textOf(id: string, bytes: number): Buffer {
  const head = Buffer.from(`Message-ID: <${id}>\r\n\r\n`);
  // Not to be packed, so that a large message stays large.
  return Buffer.concat([head, noise.subarray(0, Math.max(0, bytes - head.length))]);
}

const noise = randomBytes(400_000);

function idOf(raw: Buffer): string {
  return /<([^>]*)>/.exec(raw.toString('latin1', 0, 100))?.[1] ?? 'no id';
}
