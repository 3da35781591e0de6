/** A promotion that is cut off at each of its steps, by the death of whoever takes part in it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { askAuthority } from '#directory/client/authority.ts';
import { answersLastMs } from '#directory/client/peers.ts';
import { type RunningReplication, startReplication } from '#replication/main.ts';
import { adminDn, replicatorDn, startOwnDirectory } from './own-directory.ts';
import { PromotionMoments } from './promotion-moments.ts';
import { addAccount, addDomain, exportOf, type TestServer } from './replication-suite.ts';

const names = ['a', 'b', 'c'] as const;
type Name = (typeof names)[number];

let directory: string;
let skippedMs = 0;
const servers = {} as Record<Name, TestServer>;
const away = new Set<Name>();
/** Accounts whose addition was answered. */
const acknowledged: string[] = [];
let count = 0;

/** A freeze ends by the server's clock. */
const serverClock: Clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skippedMs };
/** A forced promotion waits for a master that lives on; here it is known to be dead. */
const serviceClock: Clock = { ...systemClock, after: (ms, work) => systemClock.after(ms === answersLastMs ? 0 : ms, work) };

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'archipelago-promotion-'));
  const others = (of: Name): string[] =>
    names.filter((name) => name !== of && servers[name] !== undefined).map((name) => servers[name].url);
  for (const name of names) {
    servers[name] = await startOwnDirectory(name === 'a' ? 'master' : 'replica', undefined, serverClock, () => others(name));
  }
  await writeFile(join(directory, 'secret'), servers.a.rootPassword.reveal());
  {
    await using admin = await servers.a.connect();
    await addDomain(admin, 'isp.example');
  }
  // Now that the addresses of all are known.
  for (const server of Object.values(servers)) {
    await server.stop();
    await server.start();
  }
});
afterAll(async () => {
  for (const server of Object.values(servers)) await server[Symbol.asyncDispose]();
  if (directory !== undefined) await rm(directory, { recursive: true, force: true });
});

async function start(moments?: PromotionMoments): Promise<RunningReplication> {
  const access = (name: Name) => ({
    name,
    url: servers[name].url,
    bindDn: replicatorDn,
    bindPassword: { file: join(directory, 'secret') },
  });
  return startReplication(
    {
      role: 'replication',
      name: 'replication.isp.example',
      suffix: 'o=mail',
      master: access('a'),
      replicas: [access('b'), access('c')],
      stateDirectory: join(directory, 'state'),
      refreshDeletesMaxPercent: 100,
      verifySchedule: '17 3 * * *',
    },
    { ...systemPorts(silentLogger), clock: serviceClock, ...(moments === undefined ? {} : { network: moments.network }) },
    { schedule: () => ({ cancel: () => {} }) },
  );
}

async function modes(): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of names.filter((one) => !away.has(one))) {
    await using connection = await servers[name].connect();
    const { mode, term } = await askAuthority(connection, { op: 'look' });
    found[name] = `${mode} ${term}`;
  }
  return found;
}

/** Which servers take a write now. */
async function takers(): Promise<Name[]> {
  const found: Name[] = [];
  for (const name of names.filter((one) => !away.has(one))) {
    await using writer = await servers[name].connect();
    await writer.bind(adminDn, servers[name].rootPassword);
    const uid = `u${count++}`;
    try {
      await addAccount(writer, uid);
    } catch {
      // Frozen, or a replica.
      continue;
    }
    found.push(name);
    acknowledged.push(uid);
  }
  return found;
}

async function follows(service: RunningReplication, master: Name): Promise<void> {
  for (const name of names.filter((one) => one !== master && !away.has(one))) {
    await expect
      .poll(() => service.status().replicas.find((one) => one.name === name), { timeout: 20_000, interval: 20 })
      .toMatchObject({ state: 'following', backlogChanges: 0 });
    await expect.poll(() => exportOf(servers[name], true), { timeout: 20_000, interval: 50 }).toBe(await exportOf(servers[master], true));
  }
}

const promoted = (service: RunningReplication, name: Name, isForced: boolean): Promise<string> =>
  service.promote(name, { isForced, withinMs: 10_000 }).then(
    () => 'done',
    (error: unknown) => messageOf(error),
  );

/** What an operator does after one that did not get through: the same again, until it says that the server is the master. */
async function again(service: RunningReplication, target: Name, isForced: boolean): Promise<string[]> {
  const said: string[] = [];
  for (let i = 0; i < 5; i += 1) {
    said.push(await promoted(service, target, isForced));
    const last = said.at(-1) as string;
    if (last === 'done' || last.endsWith('is the master already')) return said;
    // As the message says: the time of the freeze passes.
    if (last.includes('it is being handed over, for up to')) skippedMs += 61_000;
  }
  throw new Error(`it does not become the master: ${said.join('\n')}`);
}

type Victim = 'the service' | 'the old master' | 'the new master';

/** Dies at the 1st, 2nd, 3rd … message of a promotion until one gets through; returns what was told to whom at the moments it died at. */
async function dieEverywhere(victim: Victim, isObeyed: boolean, isForced: boolean): Promise<string[]> {
  const diedAt: string[] = [];
  for (let at = 0; at < 12; at += 1) {
    const before = Object.entries(await modes()).find(([, mode]) => mode.startsWith('master'))?.[0] as Name;
    const target: Name = before === 'b' ? 'a' : 'b';
    const moments = new PromotionMoments(Object.fromEntries(names.map((name) => [servers[name].url, name])));
    let service = await start(moments);
    try {
      await follows(service, before);
      await expect.poll(takers, { timeout: 20_000, interval: 100 }).toEqual([before]);
      await follows(service, before);
      const stop = async (name: Name): Promise<void> => {
        away.add(name);
        await servers[name].stop();
      };
      const restart = async (name: Name): Promise<void> => {
        await servers[name].start();
        away.delete(name);
      };
      if (isForced) await stop(before);
      moments.arm(at, isObeyed, async () => {
        if (victim === 'the service') moments.end();
        else await stop(victim === 'the old master' ? before : target);
      });
      const first = await promoted(service, target, isForced);
      await moments.struck;
      const where = `${victim} died ${isObeyed ? 'after' : 'before'} "${moments.told.at(-1)}": ${first}`;
      expect((await takers()).length, where).toBeLessThanOrEqual(1);
      for (const name of [...away]) if (!isForced || name !== before) await restart(name);
      expect((await takers()).length, where).toBeLessThanOrEqual(1);
      if (victim === 'the service') {
        await service[Symbol.asyncDispose]();
        service = await start();
      }
      const said = moments.hasStruck ? await again(service, target, isForced) : [first];
      for (const name of [...away]) await restart(name);
      await expect.poll(takers, { timeout: 20_000, interval: 100 }).toEqual([target]);
      await follows(service, target);
      const content = await exportOf(servers[target], false);
      expect(
        acknowledged.filter((uid) => !content.includes(`uid=${uid},`)),
        `${where}; then ${said.join('; ')}`,
      ).toEqual([]);
      if (!moments.hasStruck) return diedAt;
      diedAt.push(moments.told.at(-1) as string);
    } finally {
      await service[Symbol.asyncDispose]();
    }
  }
  throw new Error(`it never gets through: ${diedAt.join(', ')}`);
}

describe('a planned promotion', { timeout: 300_000 }, () => {
  const steps = [/^freeze [ab]$/, /^follow [ab]$/, /^promote [ab]$/];

  it.each<[Victim, boolean]>([
    ['the service', false],
    ['the service', true],
    ['the old master', false],
    ['the old master', true],
    ['the new master', false],
    ['the new master', true],
  ])('goes on, with no change lost and never two masters, when %s dies at any step; that step done: %s', async (victim, isObeyed) => {
    const diedAt = await dieEverywhere(victim, isObeyed, false);
    for (const step of steps) expect(diedAt).toContainEqual(expect.stringMatching(step));
  });
});

describe('a forced promotion', { timeout: 300_000 }, () => {
  it.each<[Victim, boolean]>([
    ['the service', false],
    ['the service', true],
    ['the new master', false],
    ['the new master', true],
  ])('goes on, with no change lost and never two masters, when %s dies at any step; that step done: %s', async (victim, isObeyed) => {
    const diedAt = await dieEverywhere(victim, isObeyed, true);
    for (const step of [/^follow c$/, /^promote [ab]$/]) expect(diedAt).toContainEqual(expect.stringMatching(step));
  });
});
