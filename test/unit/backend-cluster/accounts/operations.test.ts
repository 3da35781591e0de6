import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { OperationContext } from '#backend-cluster/accounts/operation.ts';
import { AccountOperations } from '#backend-cluster/accounts/operations.ts';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { type AccountUuid, parseAccountName } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { TableDirectory, west } from '../cluster/test-cluster.ts';

const clock = new FakeClock();
let root: string;
let store: AccountStore;
let directory: TableDirectory;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-operations-'));
  store = await openAccountStore({ root, files: nodeFiles, clock, random: systemRandom, log: silentLogger, metrics: createMetrics() });
  directory = new TableDirectory();
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

/** A Controller that dies around its `step`-th call to directory or storage: before the call is made, or after it was done. */
function controller(dies?: { step: number; when: 'before' | 'after' }): { operations: AccountOperations; isDead: () => boolean } {
  let calls = 0;
  let isDead = false;
  const dead = (): PlatformError => new PlatformError('STORE_UNAVAILABLE', 'this Controller is dead');
  const mortal = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(object, key) {
        const value = Reflect.get(object, key) as unknown;
        if (typeof value === 'object' && value !== null) return mortal(value);
        if (typeof value !== 'function') return value;
        return async (...args: unknown[]) => {
          if (isDead) throw dead();
          calls += 1;
          if (calls === dies?.step && dies.when === 'before') isDead = true;
          if (isDead) throw dead();
          const result = await value.apply(object, args);
          if (calls === dies?.step) isDead = true;
          if (isDead) throw dead();
          return result;
        };
      },
    });
  const context: OperationContext = {
    cluster: west,
    store: mortal(store),
    reader: mortal(directory.reader),
    writer: mortal(directory.writer),
    clock,
    random: systemRandom,
    log: silentLogger,
    closeEverywhere: async () => {},
    learn: () => {},
  };
  const operations = new AccountOperations({ context, store: mortal(store), tombstoneGraceHours: 1, isController: () => !isDead });
  return { operations, isDead: () => isDead };
}

async function withStorage(uuid: AccountUuid): Promise<void> {
  const member = parseMemberName('back1.west.isp.example');
  const account = await store.open(uuid, { member, incarnation: 'i', openId: `${member}.i.1` });
  await account.close();
}

async function recovered(): Promise<void> {
  const { operations } = controller();
  await operations.recover();
  expect(await store.intents.list()).toEqual([]);
}

const points = [1, 2, 3, 4, 5, 6, 7].flatMap((step) => [
  { step, when: 'before' as const },
  { step, when: 'after' as const },
]);

describe('a Controller that dies at any step', () => {
  it.each([
    ...points,
    ...[8, 9, 10].flatMap((step) => [
      { step, when: 'before' as const },
      { step, when: 'after' as const },
    ]),
  ])('leaves a removed account as it was or back with its mail ($when step $step of a restoration)', async (point) => {
    const alice = directory.add('alice@isp.example');
    await withStorage(alice.uuid);
    await controller().operations.run('accounts.remove', { uuid: alice.uuid });
    expect(await store.state(alice.uuid)).toBe('tombstone');
    const answer = await controller(point)
      .operations.run('accounts.restore', { removed: 'alice@isp.example' })
      .catch(() => undefined);
    await recovered();
    const find = async () => (await directory.reader.findAccount(alice.name, { authoritative: true })).record;
    if ((await find()) === undefined) {
      expect(answer).toBeUndefined();
      expect(await store.state(alice.uuid)).toBe('tombstone');
      await controller().operations.run('accounts.restore', { removed: alice.uuid });
    }
    const record = await find();
    expect(record?.status).toBe('active');
    expect(record?.uuid).not.toBe(alice.uuid);
    expect(await store.state(record?.uuid as AccountUuid)).toBe('present');
    expect(await store.state(alice.uuid)).toBe('absent');
  });

  it.each(points)('leaves no half-made account ($when step $step of a creation)', async (point) => {
    const { operations, isDead } = controller(point);
    const answer = await operations.run('accounts.create', { name: 'new@isp.example' }).catch(() => undefined);
    await recovered();
    const { record } = await directory.reader.findAccount(parseAccountName('new@isp.example'), { authoritative: true });
    if (answer !== undefined) expect(record?.uuid).toBe((answer as { uuid: string }).uuid);
    if (record !== undefined) expect(record.hostServer).toBe(west);
    expect(isDead() || answer !== undefined).toBe(true);
    // Whatever became of it, the name is not blocked: it exists, or it can be made.
    const again = await controller()
      .operations.run('accounts.create', { name: 'new@isp.example' })
      .catch((error: PlatformError) => error.code);
    if (record !== undefined) expect(again).toBe('ACCT_EXISTS');
    else expect(again).toMatchObject({ uuid: expect.any(String) });
  });

  it.each(points)('leaves an account with one name and all its mail ($when step $step of a rename)', async (point) => {
    const alice = directory.add('alice@isp.example');
    await withStorage(alice.uuid);
    const answer = await controller(point)
      .operations.run('accounts.rename', { uuid: alice.uuid, to: 'alicia@isp.example' })
      .catch(() => undefined);
    const wasPromised = (await store.intents.list()).length > 0;
    await recovered();
    const name = directory.records.get(alice.uuid)?.name;
    if (answer !== undefined || wasPromised) expect(name).toBe('alicia@isp.example');
    else expect(['alice@isp.example', 'alicia@isp.example']).toContain(name);
    expect(await store.state(alice.uuid)).toBe('present');
  });

  it.each(points)('leaves an account whole or removed ($when step $step of a removal)', async (point) => {
    const alice = directory.add('alice@isp.example');
    await withStorage(alice.uuid);
    await controller(point)
      .operations.run('accounts.remove', { uuid: alice.uuid })
      .catch(() => undefined);
    await recovered();
    expect([directory.records.has(alice.uuid), await store.state(alice.uuid)]).toBeOneOf([
      [true, 'present'],
      [false, 'tombstone'],
    ]);
  });
});

describe('removals that others make in the directory', () => {
  it('put a tombstone over the storage, unless the master still has the entry', async () => {
    const gone = directory.add('gone@isp.example');
    const kept = directory.add('kept@isp.example');
    await withStorage(gone.uuid);
    await withStorage(kept.uuid);
    directory.remove(gone.uuid);
    const { operations } = controller();
    operations.onRemoved(gone.uuid, 'gone@isp.example');
    operations.onRemoved(kept.uuid, 'kept@isp.example');
    await operations.recover();
    await operations.recover();
    expect([await store.state(gone.uuid), await store.state(kept.uuid)]).toEqual(['tombstone', 'present']);
  });

  it('wait while the master is silent, and nothing is thrown away meanwhile', async () => {
    const gone = directory.add('gone@isp.example');
    await withStorage(gone.uuid);
    directory.remove(gone.uuid);
    directory.isDown = true;
    const { operations } = controller();
    operations.onRemoved(gone.uuid, 'gone@isp.example');
    await operations.recover();
    expect(await store.state(gone.uuid)).toBe('present');
    directory.isDown = false;
    await operations.recover();
    await operations.recover();
    expect(await store.state(gone.uuid)).toBe('tombstone');
  });

  it('are purged when the grace has ended and not before', async () => {
    const gone = directory.add('gone@isp.example');
    await withStorage(gone.uuid);
    const { operations } = controller();
    await operations.run('accounts.remove', { uuid: gone.uuid });
    await operations.purge();
    expect(await store.state(gone.uuid)).toBe('tombstone');
    await clock.advance(3_600_000);
    await operations.purge();
    expect(await store.state(gone.uuid)).toBe('absent');
  });
});

describe('answers to account operations', () => {
  it('tell apart what is final from what will be finished', async () => {
    const alice = directory.add('alice@isp.example');
    directory.add('bob@isp.example');
    const { operations } = controller();
    const codeOf = (method: string, params: Record<string, unknown>) =>
      operations.run(method, params).then(
        () => 'done',
        (error: PlatformError) => error.code,
      );
    expect(await codeOf('accounts.create', { name: 'bob@isp.example' })).toBe('ACCT_EXISTS');
    expect(await codeOf('accounts.create', { name: 'no name' })).toBe('NAME_ACCOUNT_INVALID');
    expect(await codeOf('accounts.rename', { uuid: alice.uuid, to: 'bob@isp.example' })).toBe('ACCT_EXISTS');
    expect(await codeOf('accounts.remove', { uuid: systemRandom.uuid() })).toBe('ACCT_NOT_FOUND');
    expect(await store.intents.list()).toEqual([]);
    directory.isDown = true;
    expect(await codeOf('accounts.rename', { uuid: alice.uuid, to: 'alicia@isp.example' })).toBe('ACCT_OPERATION_PENDING');
    expect(await codeOf('accounts.create', { name: 'new@isp.example' })).toBe('DIR_NO_MASTER');
    directory.isDown = false;
    await recovered();
    expect(directory.records.get(alice.uuid)?.name).toBe('alicia@isp.example');
  });
});

describe('a restoration', () => {
  const code = (work: Promise<unknown>): Promise<unknown> => work.catch((error: PlatformError) => error.code);

  it('finds nothing where nothing was removed, and takes another name when the old one is used again', async () => {
    const { operations } = controller();
    expect(await code(operations.run('accounts.restore', { removed: 'bob@isp.example' }))).toBe('ACCT_NOT_FOUND');
    const bob = directory.add('bob@isp.example');
    await withStorage(bob.uuid);
    await operations.run('accounts.remove', { uuid: bob.uuid });
    directory.add('bob@isp.example');
    expect(await code(operations.run('accounts.restore', { removed: 'bob@isp.example' }))).toBe('ACCT_EXISTS');
    expect(await store.state(bob.uuid)).toBe('tombstone');
    const restored = await operations.run('accounts.restore', { removed: bob.uuid, name: 'bob.old@isp.example' });
    expect(restored).toMatchObject({ name: 'bob.old@isp.example' });
    expect(await store.intents.list()).toEqual([]);
  });
});
