/** Whose an address is among the accounts of a cluster, when entries do not agree on it. */
import { expect, it } from 'vitest';
import { AccountRegistry } from '#backend-cluster/accounts/registry.ts';
import { type AccountName, parseAccountName, parseAccountUuid } from '#common/account-name.ts';
import { type ClusterName, parseClusterName } from '#common/host-server.ts';
import { Secret } from '#common/secret.ts';
import type { AccountRecord } from '#directory/client/records.ts';

const west = parseClusterName('west.isp.example');
const name = (local: string): AccountName => parseAccountName(`${local}@isp.example`);
const contested = name('sales');

function account(
  number: number,
  own: AccountName,
  addresses: readonly AccountName[],
  csn = '1',
  hostServer: ClusterName = west,
): AccountRecord {
  const uuid = parseAccountUuid(`${String(number).padStart(8, '0')}-0000-4000-8000-000000000000`);
  const none = { quotaBytes: undefined, region: undefined, displayName: undefined, hostServerProblem: undefined };
  return {
    kind: 'account',
    uuid,
    dn: `uid=${own}`,
    csn,
    name: own,
    hostServer,
    addresses,
    status: 'active',
    passwords: new Secret([]),
    ...none,
  };
}

function whose(registry: AccountRegistry): AccountName | undefined {
  return registry.resolve(contested)?.name;
}

it('gives an address to the account whose name it is, in whatever order entries come', () => {
  const registry = new AccountRegistry(west);
  const renamed = account(1, name('bob'), [contested]);
  const named = account(2, contested, []);
  for (const record of [renamed, named, { ...renamed, csn: '2' }, { ...named, csn: '3' }, { ...renamed, csn: '4' }]) {
    registry.learn(record);
    expect(whose(registry)).toBe(record.csn === '1' && record === renamed ? name('bob') : contested);
  }
  // Whose it is now the master says.
  registry.apply({ type: 'remove', uuid: named.uuid, name: contested });
  expect(whose(registry)).toBeUndefined();
  registry.learn(renamed);
  expect(whose(registry)).toBeUndefined();
  registry.learn({ ...renamed, csn: '4' });
  expect(whose(registry)).toBe(name('bob'));
});

it('gives an address that several accounts have to none of them until one is left', () => {
  const registry = new AccountRegistry(west);
  const bob = account(1, name('bob'), [contested]);
  const carol = account(2, name('carol'), [contested, name('c')]);
  const dave = account(3, name('dave'), [contested]);
  registry.learn(bob);
  expect(whose(registry)).toBe(bob.name);
  for (const record of [carol, { ...bob, csn: '2' }, dave]) {
    registry.learn(record);
    expect(whose(registry)).toBeUndefined();
  }
  expect(registry.resolve(name('c'))?.name).toBe(carol.name);
  const named = account(4, contested, []);
  registry.learn(named);
  expect(whose(registry)).toBe(contested);
  registry.apply({ type: 'remove', uuid: dave.uuid, name: dave.name });
  registry.learn({ ...named, csn: '2', hostServer: parseClusterName('east.isp.example') });
  expect(whose(registry)).toBeUndefined();
  registry.learn({ ...carol, csn: '2', addresses: [] });
  expect(whose(registry)).toBe(bob.name);
});

it('gives a name to nobody else when those who had it as a further address agree', () => {
  const registry = new AccountRegistry(west);
  const bob = account(1, name('bob'), [contested]);
  const carol = account(2, name('carol'), [contested]);
  for (const record of [bob, carol, account(3, contested, [])]) registry.learn(record);
  registry.learn({ ...bob, csn: '2', addresses: [] });
  expect(whose(registry)).toBe(contested);
});
