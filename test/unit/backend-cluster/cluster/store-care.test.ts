/** Damage in the store of a running cluster: found, told, survived, repaired. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createClusterAccounts } from '#backend-cluster/client/cluster-accounts.ts';
import type { ClusterAccounts } from '#backend-cluster/client/cluster-client.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { TestCluster, until, west } from './test-cluster.ts';

let cluster: TestCluster;
let accounts: ClusterAccounts;
const undo: AsyncDisposable[] = [];

beforeEach(async () => {
  cluster = await TestCluster.create();
  await cluster.start('back1');
  await cluster.start('back2');
  const link = cluster.dialAs('operate', 'node-1');
  undo.push(link);
  accounts = createClusterAccounts({
    link,
    clusters: () => [{ name: west, members: [...cluster.members.values()].map((member) => cluster.address(member)) }],
  });
});
afterEach(async () => {
  for (const one of undo.splice(0)) await one[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

async function flipLastSlot(uuid: string): Promise<void> {
  const log = join(cluster.root, 'accounts', uuid.slice(0, 2), uuid.slice(2, 4), uuid, 'log');
  const file = join(log, (await nodeFiles.list(log)).sort().at(-1) as string);
  const bytes = await readFile(file);
  const at = bytes.length - 10;
  bytes[at] = (bytes[at] as number) ^ 1;
  await writeFile(file, bytes);
}

describe('a body that rots in a running cluster', () => {
  it('is found by a check, the account is read-only on whichever member has it, others go on, and a repair ends it', async () => {
    const [back1, back2] = [...cluster.members.values()] as [never, never];
    const alice = cluster.directory.add('alice@isp.example');
    cluster.directory.add('bob@isp.example');
    expect(await cluster.deliver(back1, 'alice@isp.example', 'one')).toMatch(/^250/);
    expect(await cluster.deliver(back1, 'alice@isp.example', 'two')).toMatch(/^250/);
    expect((await accounts.checkAccount(west, alice.uuid)).findings).toEqual([]);
    await flipLastSlot(alice.uuid);
    const check = await accounts.checkAccount(west, alice.uuid);
    expect(check.isComplete).toBe(false);
    expect(check.findings[0]?.problem).toBe('a stored part fails its checksum');
    // For now only: the queue keeps what it could not deliver.
    expect(await cluster.deliver(back2, 'alice@isp.example', 'three')).toMatch(/^4/);
    expect(await cluster.deliver(back2, 'bob@isp.example', 'one')).toMatch(/^250/);
    expect(await accounts.store(west)).toMatchObject({ damaged: 1, damagedAccounts: [{ uuid: alice.uuid, foundBy: 'check' }] });
    await until(() => [...cluster.members.values()].some((member) => member.status().storage.damaged === 1));

    const look = await accounts.repairAccount(west, alice.uuid, { discardLost: false, isDryRun: true });
    expect(look).toMatchObject({ outcome: 'would-lose', lostMessages: 1, lost: [{ mailbox: 'INBOX', uid: 2 }] });
    expect(await accounts.repairAccount(west, alice.uuid, { discardLost: true, isDryRun: false })).toMatchObject({ outcome: 'repaired' });
    expect(await cluster.deliver(back2, 'alice@isp.example', 'three')).toMatch(/^250/);
    expect(await accounts.store(west)).toMatchObject({ damaged: 0, removed: 0 });
  });

  it('is found by the check of all accounts that somebody asks for', async () => {
    const [back1] = [...cluster.members.values()] as [never];
    const alice = cluster.directory.add('alice@isp.example');
    expect(await cluster.deliver(back1, 'alice@isp.example', 'one')).toMatch(/^250/);
    await flipLastSlot(alice.uuid);
    await accounts.startScrub(west);
    await until(async () => (await accounts.store(west)).scrub.last?.finishedAtMs !== undefined, 30_000);
    expect(await accounts.store(west)).toMatchObject({ damaged: 1, scrub: { last: { round: 1, accounts: 1, damaged: 1 } } });
  });

  it('a removed account is restored with its mail under a new entry', async () => {
    const [back1, back2] = [...cluster.members.values()] as [never, never];
    const alice = cluster.directory.add('alice@isp.example');
    expect(await cluster.deliver(back1, 'alice@isp.example', 'one')).toMatch(/^250/);
    await accounts.remove(west, alice.uuid);
    expect(await accounts.store(west)).toMatchObject({ removed: 1 });
    const restored = await accounts.restore(west, { removed: 'alice@isp.example' });
    expect(restored.uuid).not.toBe(alice.uuid);
    expect(await cluster.deliver(back2, 'alice@isp.example', 'two')).toMatch(/^250/);
    const store = await cluster.openStore();
    expect(await store.checkAccount(restored.uuid)).toMatchObject({ messages: 2, findings: [] });
    expect(await store.listTombstones()).toEqual([]);
  });
});
