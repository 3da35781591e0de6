/**
 * Members and frontends that die by kill -9, or are stopped and wake up, while mail comes in: every account is served again soon, nothing
 * that was acknowledged is lost or there twice, and nobody sees for good what was true before.
 */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Processes, startProcesses } from '#deploy/examples/processes.ts';
import { until } from './clients.ts';
import { type Account, Ledger, sendOne, subjects } from './ledger.ts';

// Fixed in deploy/examples/*.yaml, as the lease of 3 s is.
const imaps = ['127.0.0.1:21993', '127.0.0.1:23993'] as const;
const smtp = ['127.0.0.1:21025', '127.0.0.1:22025', '127.0.0.1:23025'];
/** A message that was under way to a stopped member waits for that attempt to end (its last answer may take 180 s) and for the next one: late is not lost. */
const arrivedWithinMs = 240_000;
/** Whole time of a test that waits for late mail. */
const testMaxMs = 600_000;
/** Lease, election and opening take 5 s; the rest is for a slow machine. */
const servedWithinMs = 20_000;
const alice: Account = { name: 'alice@isp.example', password: 'alice-secret' };
const bob: Account = { name: 'bob@isp.example', password: 'bob-secret' };

let folder: string;
let processes: Processes;
let ledger: Ledger;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-failover-'));
  processes = await startProcesses(folder, () => {});
  await served();
  ledger = new Ledger([alice, bob], smtp);
}, testMaxMs);

afterAll(async () => {
  for (const child of processes?.running.values() ?? []) child.kill('SIGCONT');
  try {
    await ledger?.[Symbol.asyncDispose]();
  } finally {
    await processes?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  }
}, testMaxMs);

function childOf(name: string) {
  const child = processes.running.get(name);
  if (child === undefined) throw new Error(`deploy/examples has no ${name}.yaml`);
  return child;
}

async function kill(name: string): Promise<void> {
  const child = childOf(name);
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

/** Both accounts through both subsets. */
async function served(): Promise<void> {
  const asked = [alice, bob].flatMap((account) => imaps.map((address) => [account, address] as const));
  await Promise.all(
    asked.map(([account, address]) =>
      until(
        () => subjects(address, account).then(() => true, String),
        (answer) => answer === true,
        servedWithinMs,
      ),
    ),
  );
}

/** Everything acknowledged until now is in both mailboxes once, as both subsets see them. */
async function complete(): Promise<void> {
  for (const account of [alice, bob]) {
    for (const address of imaps) {
      await until(
        () => subjects(address, account).then((found) => ledger.compare(account, found), String),
        (answer) => typeof answer !== 'string' && answer.lost.length === 0,
        arrivedWithinMs,
      ).then(({ answer }) => expect(answer).toEqual({ lost: [], twice: [] }));
    }
  }
}

it(
  'serves again when either member of a cluster is killed, and when both are',
  async () => {
    for (const victim of ['east-back1', 'east-back2']) {
      await kill(victim);
      await served();
      await processes.restart(victim);
      await served();
    }
    await Promise.all([kill('east-back1'), kill('east-back2')]);
    await processes.restart('east-back2');
    await served();
    await processes.restart('east-back1');
    await complete();
  },
  testMaxMs,
);

it(
  'serves again when either member is stopped, and shows new mail after it woke up',
  async () => {
    for (const victim of ['east-back1', 'east-back2']) {
      childOf(victim).kill('SIGSTOP');
      await served();
      childOf(victim).kill('SIGCONT');
      await served();
      await complete();
    }
  },
  testMaxMs,
);

it(
  'delivers what a killed frontend had in its queue, once',
  async () => {
    await Promise.all([kill('west-back1'), kill('west-back2')]);
    const sent = Array.from({ length: 5 }, (_, index) => `queued ${index}`);
    for (const subject of sent) expect(await sendOne(smtp[0] as string, 'carol@isp.example', subject)).toMatch(/^250/);
    await kill('eu-front1');
    await Promise.all(['west-back1', 'west-back2', 'eu-front1'].map((name) => processes.restart(name)));
    const { answer } = await until(
      () => subjects(imaps[1], { name: 'carol@isp.example', password: 'carol-secret' }).catch((): string[] => []),
      (found) => sent.every((subject) => found.includes(subject)),
      arrivedWithinMs,
    );
    expect(answer.toSorted()).toEqual(sent);
  },
  testMaxMs,
);

it(
  'has lost nothing, and refused nobody for good',
  async () => {
    await ledger[Symbol.asyncDispose]();
    await complete();
    expect([...ledger.acknowledged.values()].map((messages) => messages.size).every((count) => count > 20)).toBe(true);
    expect(ledger.refusedForGood).toEqual([]);
  },
  testMaxMs,
);
