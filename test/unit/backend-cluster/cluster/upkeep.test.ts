/** What an operator does to members of a running cluster: nothing is lost by it, and sessions and accounts go where they should. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { RunningBackend } from '#backend-cluster/member.ts';
import type { Connection } from '#common/network/network.ts';
import { linkVersionMin } from '#protocol/link/hello.ts';
import { linkVersion } from '#protocol/link/messages.ts';
import { Dialogue, TestCluster, until } from './test-cluster.ts';

let cluster: TestCluster;
let a: RunningBackend;
let b: RunningBackend;
let c: RunningBackend;

beforeEach(async () => {
  cluster = await TestCluster.create();
  a = await cluster.start('back1');
  await until(() => a.status().isController);
  b = await cluster.start('back2');
  c = await cluster.start('back3');
  const knows = (member: RunningBackend): boolean =>
    member.status().cluster.controller === a.name && member.status().cluster.members.length === 3;
  await until(() => [a, b, c].every(knows));
});
afterEach(async () => {
  await cluster[Symbol.asyncDispose]();
});

/** As the admin API asks: any member, whichever it is about. */
async function manage(asked: RunningBackend | MemberAddress, method: string, params: object = {}): Promise<unknown> {
  await using operator = cluster.dialAs('operate', 'admin.isp.example');
  return await operator.call('host' in asked ? asked : cluster.address(asked), method, params);
}

function stateOf(member: RunningBackend, seenBy: RunningBackend): string | undefined {
  return seenBy.status().cluster.members.find(({ name }) => name === member.name)?.state;
}

describe('a drain', () => {
  it('closes what nobody uses at once and the rest over the time, and the accounts open elsewhere with all their mail', async () => {
    const records = ['ada', 'ben', 'cyd', 'dan'].map((name) => cluster.directory.add(`${name}@isp.example`));
    for (const record of records) expect(await cluster.deliver(b, record.name, 'hello')).toMatch(/^250 /);
    const used = await Promise.all(records.slice(0, 2).map((record) => cluster.open(b, record)));
    expect(b.status().openAccounts).toBe(4);
    const ends = used.map(({ channel }) => new Dialogue(channel as Connection).closed());
    expect(await manage(c, 'members.drain', { member: b.name, deadlineMs: 1_500 })).toMatchObject({ state: 'running', accounts: 4 });
    await until(() => b.status().openAccounts <= 2);
    await until(() => stateOf(b, a) === 'draining');
    await Promise.all(ends);
    await until(() => b.status().drain?.state === 'done');
    expect(b.status()).toMatchObject({ openAccounts: 0, drain: { accounts: 4, closed: 4 } });
    for (const record of records) {
      const { answer, channel } = await cluster.open(c, record);
      expect(answer.outcome).toBe('opened');
      channel?.destroy();
    }
    expect((await cluster.open(b, records[0] as (typeof records)[0])).answer).toMatchObject({ outcome: 'at', member: c.name });
    expect(cluster.warnings.filter((line) => line.includes('deposed'))).toEqual([]);
  });

  it('is called off: what is left stays, and the member takes accounts again', async () => {
    const records = ['ada', 'ben', 'cyd'].map((name) => cluster.directory.add(`${name}@isp.example`));
    const used = await Promise.all(records.map((record) => cluster.open(b, record)));
    await manage(a, 'members.drain', { member: b.name, deadlineMs: 600_000 });
    await until(() => b.status().openAccounts === 2);
    expect(await manage(a, 'members.drain-abort', { member: b.name })).toMatchObject({ state: 'aborted', closed: 1 });
    expect(b.status().openAccounts).toBe(2);
    await until(() => stateOf(b, a) === 'active');
    expect((await cluster.open(b, cluster.directory.add('dan@isp.example'))).answer.outcome).toBe('opened');
    for (const { channel } of used) channel?.destroy();
  });

  it('of the Controller gives the lead away first', async () => {
    await manage(b, 'members.drain', { member: a.name, deadlineMs: 0 });
    await until(() => a.status().drain?.state === 'done' && (b.status().isController || c.status().isController));
  });
});

describe('placement', () => {
  it('cordon keeps what is open and takes no more, also after a restart, until it is taken back', async () => {
    const ada = cluster.directory.add('ada@isp.example');
    const open = await cluster.open(b, ada);
    const set = (value: string | null): Promise<unknown> => manage(c, 'settings.set', { change: { [`member.${b.name}.cordoned`]: value } });
    await set('true');
    await until(() => stateOf(b, a) === 'cordoned' && stateOf(b, b) === 'cordoned');
    expect((await cluster.open(b, cluster.directory.add('ben@isp.example'))).answer).toMatchObject({ code: 'CLUSTER_DRAINING' });
    expect((await cluster.open(c, ada)).answer).toMatchObject({ outcome: 'at', member: b.name });
    expect((await cluster.open(b, ada)).answer.outcome).toBe('opened');
    open.channel?.destroy();
    await b[Symbol.asyncDispose]();
    b = await cluster.start('back2');
    expect(stateOf(b, b)).toBe('cordoned');
    await set(null);
    await until(() => stateOf(b, a) === 'active' && stateOf(b, b) === 'active');
  });

  it('weight makes a member count as less loaded', async () => {
    await manage(b, 'settings.set', { change: { [`member.${c.name}.weight`]: '200' } });
    for (const member of [b, c]) {
      for (const name of ['ada', 'ben', 'cyd', 'dan'])
        await cluster.open(member, cluster.directory.add(`${name}.${member.name}@isp.example`));
    }
    const load = (member: RunningBackend): number => cluster.client.health(cluster.address(member)).load;
    await until(() => c.status().cluster.members.every(({ name, weight }) => weight === (name === c.name ? 200 : 100)));
    await until(() => load(b) === 8 && load(c) === 4);
  });

  it('keeps the indexes of accounts that nobody uses only as far as there is room, and never closes one in use', async () => {
    const dan = await cluster.start('back4', { openAccountsBytesMax: 40_000 });
    const used = cluster.directory.add('used@isp.example');
    const { channel } = await cluster.open(dan, used);
    const names = Array.from({ length: 40 }, (_, index) => `user${index}@isp.example`);
    for (const name of names) {
      cluster.directory.add(name);
      expect(await cluster.deliver(dan, name, 'hello')).toMatch(/^250 /);
    }
    const { openAccounts, openAccountsBytes, openAccountsBytesMax, sessions } = dan.status();
    expect(sessions.filter(({ service }) => service === 'pop3').map(({ account }) => account)).toEqual(['used@isp.example']);
    expect(openAccounts).toBeGreaterThan(2);
    expect(openAccounts).toBeLessThan(40);
    // The one that was opened last came on top.
    expect(openAccountsBytes).toBeLessThan(openAccountsBytesMax * 1.25);
    expect((await cluster.open(dan, used)).answer.outcome).toBe('opened');
    channel?.destroy();
  });

  it('rebalancing takes from members above their share what nobody uses first', async () => {
    const records = Array.from({ length: 12 }, (_, index) => cluster.directory.add(`user${index}@isp.example`));
    for (const record of records) await cluster.deliver(b, record.name, 'hello');
    const { channel } = await cluster.open(b, records[0] as (typeof records)[0]);
    await until(() => a.status().cluster.members.some(({ name, openAccounts }) => name === b.name && openAccounts === 12));
    const answer = (await manage(c, 'members.rebalance')) as { members: { member: string; share: number; closed: number }[] };
    expect(answer.members.find(({ member }) => member === b.name)).toMatchObject({ share: 4, closed: 8 });
    expect(b.status().openAccounts).toBe(4);
    expect(b.status().sessions.map(({ account }) => account)).toEqual(['user0@isp.example']);
    channel?.destroy();
  });
});

describe('the cluster', () => {
  it('gives the lead to the member that is named, with a higher term and without losing what is open', async () => {
    const ada = cluster.directory.add('ada@isp.example');
    await cluster.open(c, ada);
    const { term } = a.status().cluster;
    expect(await manage(c, 'members.hand-over', { to: b.name })).toEqual({ from: a.name, to: b.name });
    await until(() => b.status().isController && c.status().cluster.controller === b.name && a.status().cluster.controller === b.name);
    expect(b.status().cluster.term).toBeGreaterThan(term);
    expect((await cluster.open(a, ada)).answer).toMatchObject({ outcome: 'at', member: c.name });
  });

  it('forgets a member that is dead, with its settings, and refuses to forget one that lives', async () => {
    await manage(a, 'settings.set', { change: { [`member.${c.name}.weight`]: '50' } });
    await expect(manage(a, 'members.remove', { member: c.name })).rejects.toMatchObject({ code: 'ADMIN_CONFLICT' });
    await c.kill();
    await until(() => stateOf(c, a) === 'dead');
    expect(await manage(b, 'members.remove', { member: c.name })).toEqual({ removed: c.name, settings: 1 });
    await until(() => stateOf(c, a) === undefined);
    expect(await manage(a, 'settings.get')).toMatchObject({ values: {} });
  });

  it('has one version of its settings on all members, and refuses what is no setting', async () => {
    const quota = (value: string) => ({ change: { 'accounts.default-quota-bytes': value } });
    await Promise.all(['1000', '2000', '3000'].map((value) => manage(b, 'settings.set', quota(value))));
    await until(() => [a, b, c].every((member) => member.status().settingsVersion === 3));
    await expect(manage(b, 'settings.set', quota('much'))).rejects.toMatchObject({ code: 'ADMIN_BAD_REQUEST' });
    await expect(manage(b, 'settings.set', { change: { colour: 'red' } })).rejects.toMatchObject({ code: 'ADMIN_BAD_REQUEST' });
    const foreign = { change: { 'member.back1.east.isp.example.weight': '1' } };
    await expect(manage(b, 'settings.set', foreign)).rejects.toMatchObject({ code: 'ADMIN_BAD_REQUEST' });
    expect(await manage(c, 'settings.get')).toMatchObject({ version: 3 });
  });

  it('lets no frontend do any of this', async () => {
    await using frontend = cluster.dialAs('frontend', 'front1.eu.isp.example');
    await expect(frontend.call(cluster.address(a), 'members.drain', { member: a.name })).rejects.toMatchObject({ code: 'LINK_REFUSED' });
  });
});

describe('an upgrade, member by member', () => {
  it('has members that speak the last version of the link and this one side by side: sessions, deliveries, lead and drain', async () => {
    const ada = cluster.directory.add('ada@isp.example');
    // The Controller first, then the others, so that each of both kinds talks to each.
    for (const label of ['back1', 'back2', 'back3']) {
      await cluster.members.get(label)?.[Symbol.asyncDispose]();
      const old = await cluster.start(label, { linkVersionMax: linkVersion - 1 });
      const others = [...cluster.members.values()].filter((member) => member.name !== old.name);
      await until(() => [old, ...others].every((member) => member.status().cluster.controller !== undefined));
      for (const member of [old, ...others]) {
        expect(await cluster.deliver(member, 'ada@isp.example', `by ${member.name} beside ${label}`)).toMatch(/^250 /);
        const { answer, channel } = await cluster.open(member, ada);
        expect(['opened', 'at']).toContain(answer.outcome);
        channel?.destroy();
      }
      await manage(old, 'members.drain', { member: old.name, deadlineMs: 0 });
      await until(() => old.status().drain?.state === 'done');
      await manage(others[0] as RunningBackend, 'members.drain-abort', { member: old.name });
      expect(cluster.warnings.filter((line) => line.includes('deposed'))).toEqual([]);
    }
  });

  it('refuses a server that speaks only what this release has left behind or does not know yet', async () => {
    await using later = cluster.dialAs('frontend', 'front1.eu.isp.example', { linkVersionMax: linkVersionMin - 1 });
    await expect(later.call(cluster.address(a), 'status', {})).rejects.toMatchObject({ code: 'LINK_REFUSED' });
  });
});
