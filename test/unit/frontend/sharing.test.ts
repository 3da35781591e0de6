/** Frontends of a subset that tell each other what they hold against addresses and accounts, on loopback. */
import { connect as connectTcp } from 'node:net';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { AddressRules } from '#frontend/guard/address-rules.ts';
import { LoginGuard } from '#frontend/guard/login-guard.ts';
import { newsOf, type SharedNews, SubsetSharing } from '#frontend/subset/sharing.ts';
import { roleUri } from '#protocol/link/hello.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { keepingLogger } from './fakes.ts';

type Pems = { readonly ca: string; readonly cert: string; readonly key: string };
let pems: (name: string, role?: 'frontend' | 'backend-cluster') => Promise<Pems>;
beforeAll(async () => {
  const ca = await createThrowawayCa(systemClock, systemRandom);
  pems = async (name, role = 'frontend') => {
    const { certificate, key } = await ca.issue([name, roleUri(role)]);
    return { ca: ca.certificate, cert: certificate, key };
  };
});

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

const patience = { timeout: 15_000, interval: 20 };
const bad = '192.0.2.7';
const alice = 'alice@isp.example';

async function frontend(name: string, options: { port?: number; tls?: Pems; subset?: string } = {}) {
  const guard = new LoginGuard(systemClock, systemRandom);
  const rules = new AddressRules(systemClock, name);
  const { log, lines } = keepingLogger();
  const passed: SharedNews[] = [];
  const sharing = await SubsetSharing.start({
    name,
    subset: options.subset ?? 'eu',
    listen: { address: '127.0.0.1', port: options.port ?? 0 },
    tls: options.tls,
    guard,
    rules,
    heard: (_from, news) => passed.push(news),
    ports: { clock: systemClock, random: systemRandom, network: systemNetwork, log },
  });
  undo.push(() => sharing.stop());
  const address = { name, host: '127.0.0.1', port: sharing.port };
  const fails = (times: number, address = bad, account = alice): void => {
    for (let i = 0; i < times; i += 1) guard.failed(address, account, 0);
  };
  return { name, guard, rules, sharing, lines, passed, address, fails };
}

async function three(withTls = false) {
  const names = ['front1.eu.isp.example', 'front2.eu.isp.example', 'front3.eu.isp.example'];
  const made = await Promise.all(names.map(async (name) => frontend(name, withTls ? { tls: await pems(name) } : {})));
  for (const { sharing } of made) sharing.setPeers(made.map(({ address }) => address));
  for (const { sharing } of made)
    await expect.poll(() => sharing.status().map(({ isConnected }) => isConnected), patience).toEqual([true, true]);
  return made as [Awaited<ReturnType<typeof frontend>>, Awaited<ReturnType<typeof frontend>>, Awaited<ReturnType<typeof frontend>>];
}

describe('frontends that share penalties', () => {
  it('delay and refuse for what others have counted, say by whom, and forgive together', async () => {
    const [first, second, third] = await three(true);
    first.fails(60);
    second.fails(60);
    await expect.poll(() => third.guard.before(bad, 'bob@isp.example'), patience).toBe('refused');
    await expect.poll(() => first.guard.before(bad, alice), patience).toBe('refused');
    const address = third.guard.entries(10, bad).find(({ kind, key }) => kind === 'address' && key === bad);
    expect(address?.elsewhere?.map(({ frontend: by }) => by).sort()).toEqual([first.name, second.name]);
    expect(address?.failures).toBeGreaterThan(100);
    expect(third.guard.ownEntries(10)).toEqual([]);
    // Also for processes beside this one.
    expect(third.passed.some(({ counts = [] }) => counts.length > 0)).toBe(true);
    expect(
      third.guard
        .heard()
        .map(({ frontend: by }) => by)
        .sort(),
    ).toEqual([first.name, second.name]);
    third.guard.forgive(bad);
    for (const { guard } of [first, second, third]) await expect.poll(() => guard.entries(10, bad), patience).toEqual([]);
    expect(first.guard.before(bad, 'bob@isp.example')).toBe(0);
  });

  it('clear a pair everywhere when its password was right at one', async () => {
    const [first, second, third] = await three();
    first.fails(6);
    await expect.poll(() => second.guard.before(bad, alice), patience).toBeGreaterThan(1500);
    second.guard.succeeded(bad, alice);
    const pairs = (guard: LoginGuard) => guard.entries(10).filter(({ kind }) => kind === 'pair');
    for (const { guard } of [first, second, third]) await expect.poll(() => pairs(guard), patience).toEqual([]);
  });

  it('block, allow and forget everywhere, and the later order counts', async () => {
    const [first, second, third] = await three();
    first.rules.set({ range: '192.0.2.0/24', verdict: 'block', reason: 'ticket 17', forMs: 60_000 });
    for (const { rules } of [second, third]) {
      await expect.poll(() => rules.find(bad), patience).toMatchObject({ verdict: 'block', reason: 'ticket 17', setAt: first.name });
    }
    third.rules.set({ range: '192.0.2.0/24', verdict: 'allow', reason: 'a mistake', forMs: 60_000 });
    for (const { rules } of [first, second]) await expect.poll(() => rules.find(bad)?.verdict, patience).toBe('allow');
    expect(second.rules.remove('192.0.2.0/24')).toBe(true);
    for (const { rules } of [first, third]) await expect.poll(() => rules.find(bad), patience).toBeUndefined();
    // An order of before, from whoever has not heard of it.
    expect(
      first.rules.take({ range: '192.0.2.0/24', verdict: 'block', reason: '', untilMs: Date.now() + 60_000, setAtMs: 1, setAt: 'x' }),
    ).toBe(false);
  });

  it('work on alone, and tell whoever comes back all that counts', async () => {
    const [first, second, third] = await three();
    await second.sharing.stop();
    await expect.poll(() => first.sharing.status().filter(({ isConnected }) => isConnected).length, patience).toBe(1);
    first.fails(110);
    first.rules.set({ range: '198.51.100.1', verdict: 'block', reason: 'r', forMs: 60_000 });
    expect(first.guard.before(bad, alice)).toBe('refused');
    await expect.poll(() => third.guard.before(bad, alice), patience).toBe('refused');
    const again = await frontend(second.name, { port: second.address.port });
    again.sharing.setPeers([first.address, third.address]);
    await expect.poll(() => again.guard.before(bad, alice), patience).toBe('refused');
    await expect.poll(() => again.rules.find('198.51.100.1')?.setAt, patience).toBe(first.name);
  });

  it('take more failures than they tell singly, and are told the gravest', async () => {
    const [first, second] = await three();
    for (let i = 0; i < 3000; i += 1) first.fails(1, `10.0.${i >> 8}.${i & 255}`, `u${i}@isp.example`);
    first.fails(150);
    await expect.poll(() => second.guard.before(bad, alice), patience).toBe('refused');
  });

  it('do not listen to a server without the role, to another subset, or to noise', async () => {
    const first = await frontend('front1.eu.isp.example', { tls: await pems('front1.eu.isp.example') });
    const member = await frontend('back1.west.isp.example', { tls: await pems('back1.west.isp.example', 'backend-cluster') });
    const foreign = await frontend('front1.us.isp.example', { tls: await pems('front1.us.isp.example'), subset: 'us' });
    for (const other of [member, foreign]) {
      other.fails(200);
      other.sharing.setPeers([first.address]);
    }
    const warned = (what: string) => () => first.lines.some(({ message }) => message.includes(what));
    await expect.poll(warned('SAN lacks'), patience).toBe(true);
    await expect.poll(warned('it is of subset "us"'), patience).toBe(true);
    expect(first.guard.entries(10)).toEqual([]);

    const clear = await frontend('front2.eu.isp.example');
    clear.sharing.setPeers([{ name: 'a.example', host: '127.0.0.1', port: first.address.port }]);
    for (const [noise, said] of [
      ['GET / HTTP/1.1\r\n\r\n', 'is no JSON object'],
      [`{"hello":1,"from":"a.example","subset":"eu"}\n${'x'.repeat(300_000)}`, 'is longer than'],
      ['{"hello":2}\n', 'does not say who it is'],
      ['{"hello":1,"from":"b.example","subset":"eu"}\n', 'is not among'],
    ] as const) {
      const socket = connectTcp({ port: clear.address.port, host: '127.0.0.1' });
      socket.on('error', () => {});
      undo.push(() => socket.destroy());
      socket.write(noise);
      await expect.poll(() => clear.lines.some(({ message }) => message.includes(said)), patience).toBe(true);
    }
    expect(clear.guard.entries(10)).toEqual([]);
  });
});

it('what is no count, key or rule is passed over', () => {
  expect(
    newsOf({
      counts: [
        ['address', bad, 5, 10],
        ['weird', 'x', 1, 1],
        ['pair', 7, 1, 1],
        ['account', 'a', Number.NaN, 1],
        ['account', 'a', -1, 1],
        null,
        'x',
      ],
      forgiven: [[bad, null], ['a', 'b'], ['a'], [7, null]],
      rules: [{ range: '192.0.2.1', verdict: 'drop', reason: '', untilMs: 1, setAtMs: 1, setAt: '' }, null, { range: 'X'.repeat(9999) }],
      later: true,
    }),
  ).toEqual({
    counts: [['address', bad, 5, 10]],
    forgiven: [
      [bad, null],
      ['a', 'b'],
    ],
    rules: [],
  });
});

it('what was counted elsewhere halves as what was counted here, and is bounded', async () => {
  const clock = new FakeClock();
  const guard = new LoginGuard(clock, seededRandom(1));
  guard.noteElsewhere('front2', [['address', bad, 80, 0]]);
  guard.noteElsewhere('front2', [['address', bad, 120, 0]]);
  expect(guard.before(bad, alice)).toBe('refused');
  await clock.advance(300_000);
  expect(guard.entries(10, bad)).toMatchObject([{ failures: 60, elsewhere: [{ frontend: 'front2', failures: 60 }] }]);
  for (let i = 0; i < 60_000; i += 1) guard.noteElsewhere('front3', [['account', `u${i}`, 1, 0]]);
  expect(guard.heard().reduce((sum, { counts }) => sum + counts.length, 0)).toBe(50_000);
});
