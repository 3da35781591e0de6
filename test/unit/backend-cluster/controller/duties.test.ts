import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  collectRunners,
  Duties,
  type DutySetting,
  type DutySettings,
  effectiveSetting,
  readRunners,
  readSettings,
} from '#backend-cluster/controller/duties.ts';
import { parseMemberName } from '#common/host-server.ts';
import { TestCluster, until } from '../cluster/test-cluster.ts';

const [back1, back2, back3] = ['back1', 'back2', 'back3'].map((label) => parseMemberName(`${label}.west.isp.example`)) as [
  ReturnType<typeof parseMemberName>,
  ReturnType<typeof parseMemberName>,
  ReturnType<typeof parseMemberName>,
];
const both = (setting: DutySetting): DutySettings => ({ httpClient: setting, remotePolling: setting });

describe('the members that run a service for others', () => {
  it('are the active ones that are set to Locally for Others, service by service', () => {
    const members = [
      { name: back3, state: 'active', duties: { httpClient: 'locally-for-others', remotePolling: 'auto' } },
      { name: back1, state: 'cordoned', duties: both('locally-for-others') },
      { name: back2, state: 'draining', duties: both('locally-for-others') },
    ] as const;
    expect(collectRunners(members)).toEqual({ httpClient: [back1, back3], remotePolling: [back1] });
    expect(collectRunners([])).toEqual({ httpClient: [], remotePolling: [] });
  });

  it.each(['locally', 'remotely', 'auto'] as const)('are not those set to %s', (setting) => {
    expect(collectRunners([{ name: back1, state: 'active', duties: both(setting) }])).toEqual({ httpClient: [], remotePolling: [] });
  });
});

describe('Auto', () => {
  it.each([
    ['locally while there is no runner', [], 'locally'],
    ['locally while only the member itself runs for others', [back1], 'locally'],
    ['remotely once another member runs for others', [back1, back2], 'remotely'],
  ])('means %s', (_what, runners, expected) => {
    expect(effectiveSetting('auto', back1, runners)).toBe(expected);
  });

  it.each(['locally', 'locally-for-others', 'remotely'] as const)('leaves %s as it is', (setting) => {
    for (const runners of [[], [back2]]) expect(effectiveSetting(setting, back1, runners)).toBe(setting);
  });
});

describe('what others tell', () => {
  it('is read with care: settings that are unknown count as Auto', () => {
    for (const told of [undefined, null, 'locally', [], { httpClient: 'everywhere', remotePolling: 7 }])
      expect(readSettings(told)).toEqual(both('auto'));
    expect(readSettings({ httpClient: 'remotely', more: 1 })).toEqual({ httpClient: 'remotely', remotePolling: 'auto' });
  });

  it('is read with care: names that are none are left out, and there is an end to them', () => {
    expect(readRunners(undefined)).toBeUndefined();
    expect(readRunners('back1')).toBeUndefined();
    expect(readRunners({ httpClient: [back1, 7, 'a b', back2], remotePolling: 'x' })).toEqual({
      httpClient: [back1, back2],
      remotePolling: [],
    });
    expect(readRunners({ httpClient: Array.from({ length: 1_000 }, () => back1) })?.httpClient).toHaveLength(256);
  });

  it('stays in force until something else is told', () => {
    const duties = new Duties(back1, { httpClient: 'auto', remotePolling: 'remotely' });
    duties.learn({ httpClient: [back2], remotePolling: [] });
    expect(duties.status()).toEqual({
      httpClient: { setting: 'auto', effective: 'remotely', runners: [back2] },
      remotePolling: { setting: 'remotely', effective: 'remotely', runners: [] },
    });
  });
});

describe('members of a cluster', () => {
  let cluster: TestCluster;
  beforeEach(async () => {
    cluster = await TestCluster.create();
  });
  afterEach(async () => {
    await cluster[Symbol.asyncDispose]();
  });

  it('learn from the Controller who runs for others, and that one no longer does', async () => {
    const a = await cluster.start('back1');
    await until(() => a.status().isController);
    const b = await cluster.start('back2', { duties: { httpClient: 'locally-for-others', remotePolling: 'auto' } });
    const c = await cluster.start('back3');
    const http = { setting: 'auto', effective: 'remotely', runners: [b.name] };
    await until(() => [a, c].every((member) => member.status().duties.httpClient.runners.length === 1));
    for (const member of [a, c]) expect(member.status().duties.httpClient).toEqual(http);
    await until(() => b.status().duties.httpClient.runners.length === 1);
    expect(b.status().duties).toEqual({
      httpClient: { setting: 'locally-for-others', effective: 'locally-for-others', runners: [b.name] },
      remotePolling: { setting: 'auto', effective: 'locally', runners: [] },
    });
    await b.drain();
    await until(() => [a, c].every((member) => member.status().duties.httpClient.runners.length === 0));
    expect(c.status().duties.httpClient).toEqual({ setting: 'auto', effective: 'locally', runners: [] });
  });

  it('keep what they were told when the Controller is killed, and the next one tells it again', async () => {
    const a = await cluster.start('back1');
    await until(() => a.status().isController);
    const b = await cluster.start('back2', { duties: { httpClient: 'auto', remotePolling: 'locally-for-others' } });
    const c = await cluster.start('back3');
    await until(() => c.status().duties.remotePolling.runners.length === 1);
    await a.kill();
    await until(() => b.status().isController || c.status().isController);
    const d = await cluster.start('back4');
    await until(() => d.status().duties.remotePolling.runners.length === 1);
    for (const member of [c, d]) expect(member.status().duties.remotePolling.runners).toEqual([b.name]);
  });
});
