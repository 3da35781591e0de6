/** A comparison of whole directories: every difference made by hand is found, named and put right. `VERIFY_ENTRIES` says how large. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { relax } from '#protocol/ldap/controls.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import type { VerifyReport } from '#replication/client/status.ts';
import { ContinuousComparison } from '#replication/continuous.ts';
import { contextCsnOf } from '#replication/history.ts';
import { Scope, wholeScope } from '#replication/scope.ts';
import { Differences } from '#replication/store/differences.ts';
import { type Comparison, compareServers, Findings, lookAt } from '#replication/verify.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, rename, replicate, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const entries = Number(process.env.VERIFY_ENTRIES ?? 2000);
const kindsOfDifference = 5;
const eachKind = 8;
const patience = { timeout: 60_000 + entries * 10, interval: 100 };
const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;

async function fill(admin: LdapConnection, accounts: number): Promise<void> {
  await addDomain(admin, 'isp.example');
  await addDomain(admin, 'other.example');
  for (let from = 0; from < accounts; from += 100) {
    const some = Array.from({ length: Math.min(100, accounts - from) }, (_, i) => addAccount(admin, `user${from + i}`));
    await Promise.all(some);
  }
}

/** Makes `eachKind` differences of each kind at the replica and returns them as they should be reported, sorted. */
async function differ(hand: LdapConnection): Promise<string[]> {
  const made: string[] = [];
  const step = Math.floor(entries / (kindsOfDifference * eachKind));
  let next = 0;
  const take = (kind: string): string => {
    const uid = `user${next}`;
    next += step;
    made.push(`${kind} ${at(uid)}`);
    return at(uid);
  };
  for (let i = 0; i < eachKind; i += 1) {
    await hand.delete(take('missing'));
    await hand.modify(take('different'), [{ kind: 'replace', attribute: attribute('mail', `wrong${i}@isp.example`) }]);
    await hand.modify(take('different'), [{ kind: 'replace', attribute: attribute('description', 'by hand') }]);
    await rename(hand, take('different'), `uid=renamed${i}`);
    await rename(hand, take('different'), `uid=moved${i}`, 'cn=other.example,o=mail');
    await addAccount(hand, `extra${i}`);
    made.push(`extra ${at(`extra${i}`)}`);
  }
  return made.sort();
}

async function compared(master: TestServer, replica: TestServer): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-verify-'));
  await using admin = await master.connect();
  await fill(admin, entries);
  const service = await replicate(master, replica, directory);
  try {
    await expect.poll(() => service.status().replicas[0]?.state, patience).toBe('following');
    await expect.poll(() => service.status().replicas[0]?.backlogChanges, patience).toBe(0);
    expect(await service.verify()).toMatchObject([{ differing: 0, isCut: false }]);
    await using hand = await replica.connect();
    const wanted = await differ(hand);
    globalThis.gc?.();
    const beforeBytes = process.memoryUsage().rss;
    const startedMs = performance.now();
    const { before } = await service.repair('ldap-eu', { isDryRun: true });
    const { rss } = process.memoryUsage();
    process.stdout.write(
      `${before.entries} entries, ${before.differing} differences, ${Math.round(performance.now() - startedMs)} ms, memory +${((rss - beforeBytes) / 1e6).toFixed(1)} MB\n`,
    );
    expect(before.differences.map((one) => `${one.kind} ${one.dn}`).sort()).toEqual(wanted);
    expect(before).toMatchObject({ differing: wanted.length, extra: eachKind, isCut: false });
    // A dry run has changed nothing.
    const repaired = await service.repair('ldap-eu', { isDryRun: false });
    expect(repaired.before.differing).toBe(wanted.length);
    expect(repaired.after).toMatchObject({ differing: 0, differences: [] });
  } finally {
    await service[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  }
}

async function pair(accounts: number) {
  const started = new AsyncDisposableStack();
  const servers = [started.use(await startOwnDirectory('master')), started.use(await startOwnDirectory('replica'))] as const;
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-verify-'));
  started.defer(() => rm(directory, { recursive: true, force: true }));
  const [admin, hand] = [started.use(await servers[0].connect()), started.use(await servers[1].connect())] as const;
  await fill(admin, accounts);
  const service = await replicate(...servers, directory);
  await expect.poll(async () => (await service.verify())[0]?.differing, patience).toBe(0);
  await service[Symbol.asyncDispose]();
  const comparison = { name: 'ldap-eu', master: admin, replica: hand, suffix: 'o=mail', keepsCsn: true, scope: wholeScope };
  return { servers, admin, hand, comparison, [Symbol.asyncDispose]: () => started.disposeAsync() };
}

const described = (text: string) => [{ kind: 'replace', attribute: attribute('description', text) }] as const;

describe('comparing while changes are under way', () => {
  it('does not count what has reached the replica by the second look, nor what the master changes again', async () => {
    await using servers = await pair(20);
    const { admin, hand, comparison } = servers;
    for (const uid of ['user1', 'user2', 'user3']) await admin.modify(at(uid), described('first'));
    const report = await compareServers({
      ...comparison,
      settled: async () => {
        // The service comes as far as the first, and the second changes once more.
        const one = await admin.readEntry(at('user1'), ['description', 'entryCSN', 'modifyTimestamp', 'modifiersName']);
        await hand.modify(
          at('user1'),
          (one?.attributes ?? []).map((changed) => ({ kind: 'replace', attribute: changed })),
          [relax],
        );
        await admin.modify(at('user2'), described('again'));
        return undefined;
      },
    });
    expect(report).toMatchObject({ differing: 1, underWay: 1, differences: [{ kind: 'different', dn: at('user3') }] });
  });
});

/** A connection to which `first` happens once, between a search of many entries and its answer. */
function interrupted(connection: LdapConnection, first: () => Promise<unknown>): LdapConnection {
  let isDue = true;
  return new Proxy(connection, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) => {
        const answer: unknown = await Reflect.apply(value, target, args);
        if (name === 'searchAll' && isDue) {
          isDue = false;
          await first();
        }
        return answer;
      };
    },
  });
}

describe('what was only under way is no difference', () => {
  const findings = async (comparison: Comparison, dn: string) => {
    const entry = await comparison.replica.readEntry(dn, ['entryUUID']);
    const found = new Findings();
    await lookAt(comparison, [textOf(entry?.attributes ?? [], 'entryUUID') ?? ''], found);
    const { differing, underWay } = found.report('ldap-eu', 1);
    return { differing, underWay };
  };

  it('when the master changed it after the last look at the replica', async () => {
    await using servers = await pair(5);
    const { admin, hand, comparison } = servers;
    await hand.modify(at('user1'), described('by hand'));
    expect(await findings(comparison, at('user1'))).toEqual({ differing: 1, underWay: 0 });
    let last = comparison;
    const settled = async () => {
      last = { ...comparison, replica: interrupted(hand, () => admin.modify(at('user1'), described('by the master'))) };
      return undefined;
    };
    const changing = {
      ...comparison,
      settled,
      get replica() {
        return last.replica;
      },
    };
    expect(await findings(changing, at('user1'))).toEqual({ differing: 0, underWay: 1 });
  });

  it('when a container had another name in between', async () => {
    await using servers = await pair(5);
    const { admin, hand, comparison } = servers;
    await rename(hand, at('user1'), 'uid=user1', 'cn=other.example,o=mail');
    const moved = 'uid=user1,cn=other.example,o=mail';
    expect(await findings(comparison, moved)).toEqual({ differing: 1, underWay: 0 });
    const settled = async () => {
      await rename(admin, 'cn=isp.example,o=mail', 'cn=else.example');
      await rename(admin, 'cn=else.example,o=mail', 'cn=isp.example');
      return undefined;
    };
    expect(await findings({ ...comparison, settled }, moved)).toEqual({ differing: 0, underWay: 1 });
  });

  it('when the master has it and has not counted it yet', async () => {
    await using servers = await pair(5);
    const { admin, hand, comparison } = servers;
    await hand.modify(at('user1'), described('by hand'));
    const csn = await contextCsnOf(admin, 'o=mail');
    const settled = async () => csn;
    expect(await findings({ ...comparison, settled }, at('user1'))).toEqual({ differing: 1, underWay: 0 });
    await admin.modify(at('user1'), described('by the master'));
    expect(await findings({ ...comparison, settled }, at('user1'))).toEqual({ differing: 0, underWay: 1 });
  });

  it('when it left the filter of a replica and came back and left again', async () => {
    await using servers = await pair(5);
    const { admin, comparison } = servers;
    const scope = new Scope({ filter: '(description=eu)' });
    const selective = { ...comparison, scope };
    expect(await findings(selective, at('user1'))).toEqual({ differing: 1, underWay: 0 });
    const settled = async () => {
      await admin.modify(at('user1'), described('eu'));
      await admin.modify(at('user1'), described('us'));
      return undefined;
    };
    expect(await findings({ ...selective, settled }, at('user1'))).toEqual({ differing: 0, underWay: 1 });
  });
});

it('a comparison that breaks off is no comparison: status keeps the last one and says why there is none since', async () => {
  await using master = await startOwnDirectory('master');
  await using replica = await startOwnDirectory('replica');
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-verify-'));
  await using admin = await master.connect();
  await fill(admin, 3);
  const service = await replicate(master, replica, directory);
  try {
    const state = () => service.status().replicas[0];
    await expect.poll(() => state()?.state, patience).toBe('following');
    await service.verify('ldap-eu');
    const verified = state();
    expect(verified).toMatchObject({
      lastVerifiedAtMs: expect.any(Number),
      lastVerifyResult: expect.stringMatching(/^equal: \d+ entries$/),
    });
    await replica.stop();
    await expect(service.repair('ldap-eu', { isDryRun: true })).rejects.toThrow('the replica ldap-eu');
    await expect(service.verify('ldap-eu')).rejects.toThrow('the replica ldap-eu');
    expect(state()).toMatchObject({
      lastVerifiedAtMs: verified?.lastVerifiedAtMs,
      lastVerifyResult: verified?.lastVerifyResult,
      lastVerifyFailure: expect.stringContaining('the replica ldap-eu'),
    });
    await replica.start();
    await service.verify('ldap-eu');
    expect(state()?.lastVerifyFailure).toBeUndefined();
  } finally {
    await service[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  }
});

it('a service that has just begun does not take the CSNs of OpenLDAP’s own for differences', async () => {
  await using master = await startOwnDirectory('master');
  await using replica = await startSlapd({ withSuffix: false });
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-verify-'));
  await using admin = await master.connect();
  await fill(admin, 5);
  try {
    for (let start = 0; start < 3; start += 1) {
      const service = await replicate(master, replica, directory);
      try {
        if (start === 0) await expect.poll(() => service.status().replicas[0]?.state, patience).toBe('following');
        expect((await service.repair('ldap-eu', { isDryRun: true })).before).toMatchObject({ differences: [], differing: 0 });
      } finally {
        await service[Symbol.asyncDispose]();
      }
      await admin.modify(at('user1'), described(`while no service ran, ${start}`));
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

describe('limits of memory', () => {
  it('put suspects and differences in files and cut the list of the report, but every difference counts', async () => {
    await using servers = await pair(20);
    const { hand, comparison } = servers;
    for (const uid of ['user1', 'user2']) await hand.modify(at(uid), described('by hand'));
    await hand.delete(at('user3'));
    await addAccount(hand, 'extra');
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-verify-'));
    try {
      const suspectsFile = join(directory, 'suspects.sqlite');
      using differences = new Differences(join(directory, 'differences.sqlite'));
      const report = await compareServers(comparison, { suspectsFile, suspectsMax: 1, differences, listedMax: 2 });
      expect(report).toMatchObject({ differing: 4, extra: 1, isCut: true });
      expect(report.differences).toHaveLength(2);
      const wanted = [`different ${at('user1')}`, `different ${at('user2')}`, `extra ${at('extra')}`, `missing ${at('user3')}`];
      expect([...differences.all()].map((one) => `${one.kind} ${one.dn}`).sort()).toEqual(wanted);
      expect([...differences.all()].at(-1)?.kind).toBe('extra');
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
    expect(await compareServers(comparison)).toMatchObject({ differing: 4, isCut: false });
  });
});

describe('the comparison that goes on all the time', () => {
  it('finds missing, changed and extra entries at its pace, says how far it is, and waits for a refresh', async () => {
    await using servers = await pair(250);
    const { admin, hand, comparison } = servers;
    await hand.delete(at('user7'));
    await hand.modify(at('user8'), described('by hand'));
    await addAccount(hand, 'extra');
    const clock = new FakeClock();
    const reports: VerifyReport[] = [];
    let waitsFor: string | undefined = 'refreshing';
    const target = {
      name: 'ldap-eu',
      waitsFor: () => waitsFor,
      open: async () => {
        const walks = [await servers.servers[0].connect(), await servers.servers[1].connect()] as const;
        const close = async (): Promise<void> => void (await Promise.all(walks.map((one) => one[Symbol.asyncDispose]())));
        return { comparison, walks, [Symbol.asyncDispose]: close };
      },
      onRound: async (report: VerifyReport) => void reports.push(report),
    };
    const ports = { clock, random: seededRandom(3), network: systemNetwork, files: nodeFiles, log: silentLogger, metrics: createMetrics() };
    const perSecond = 10;
    await using continuous = new ContinuousComparison(perSecond, ports, () => [target]);
    const pass = async (isSo: () => boolean): Promise<void> => {
      for (let i = 0; i < 20_000 && !isSo(); i += 1) await clock.advance(1000);
      expect(isSo()).toBe(true);
    };
    await clock.advance(60_000);
    expect(continuous.status('ldap-eu')).toBeUndefined();
    waitsFor = undefined;
    await pass(() => (continuous.status('ldap-eu')?.checked ?? 0) >= 100);
    expect(continuous.status('ldap-eu')).toMatchObject({ share: undefined, lastRoundAtMs: undefined });
    waitsFor = 'refreshing';
    await pass(() => continuous.status('ldap-eu')?.waitsFor === 'refreshing');
    const held = continuous.status('ldap-eu')?.checked;
    await clock.advance(100_000);
    expect(continuous.status('ldap-eu')?.checked).toBe(held);
    waitsFor = undefined;
    await pass(() => reports.length === 1);
    const found = reports[0]?.differences.map((one) => `${one.kind} ${one.dn}`).sort();
    expect(found).toEqual([`different ${at('user8')}`, `extra ${at('extra')}`, `missing ${at('user7')}`]);
    const status = continuous.status('ldap-eu');
    expect(status).toMatchObject({ share: 1, lastRoundDiffering: 3, differing: 3 });
    // Both sides were read, at ten entries a second.
    expect(status?.checked).toBe(2 * (reports[0]?.entries ?? 0));
    const tookMs = (status?.lastRoundAtMs ?? 0) - (status?.roundStartedAtMs ?? 0);
    expect(tookMs).toBeGreaterThanOrEqual(((status?.checked ?? 0) * 1000) / perSecond);
    // The second round knows how many there are, and finds nothing once the replica is right again.
    for (const uid of ['user7', 'user8']) await admin.delete(at(uid));
    for (const uid of ['user8', 'extra']) await hand.delete(at(uid));
    await pass(() => (continuous.status('ldap-eu')?.checked ?? 0) === 100);
    expect(continuous.status('ldap-eu')?.share).toBeCloseTo(100 / (2 * (reports[0]?.entries ?? 1)), 5);
    await pass(() => reports.length === 2);
    expect(reports[1]).toMatchObject({ differing: 0 });
  });
});

describe('comparing a replica with the master', () => {
  it('finds each difference made by hand at our replica, and repairs it', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    await compared(master, replica);
  }, 600_000);

  it('does so at an OpenLDAP replica', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startSlapd({ withSuffix: false });
    await compared(master, replica);
  }, 600_000);

  it('finds none where OpenLDAP only spells names and object classes its own way', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startSlapd({ withSuffix: false });
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-verify-'));
    await using admin = await master.connect();
    await fill(admin, 3);
    await admin.add('uid=two+cn=parts,cn=isp.example,o=mail', [
      attribute('objectClass', 'TOP', 'inetOrgPerson', 'MailAccount'),
      attribute('uid', 'two'),
      attribute('cn', 'parts'),
      attribute('sn', 'two'),
      attribute('seeAlso', 'UID=user1 , cn=isp.example,  o=mail'),
    ]);
    const service = await replicate(master, replica, directory);
    try {
      await expect.poll(() => service.status().replicas[0]?.state, patience).toBe('following');
      expect(await service.verify()).toMatchObject([{ differences: [], differing: 0 }]);
    } finally {
      await service[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    }
  }, 60_000);
});
