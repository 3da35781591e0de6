import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type AccountName, parseDomainName } from '#common/account-name.ts';
import type { DirectoryAccess } from '#common/config/options.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { Secret } from '#common/secret.ts';
import { systemPorts } from '#common/system-ports.ts';
import { askAuthority } from '#directory/client/authority.ts';
import type { DirectoryWriter } from '#directory/client/directory.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { openConfiguredWriter } from '#replication/client/open-writer.ts';
import type { CopyStatus } from '#replication/client/status.ts';
import { FaultProxy } from '#test/fakes/fault-proxy.ts';
import { MortalWorld } from './mortal-world.ts';
import { adminDn, startOwnDirectory } from './own-directory.ts';
import { exportOf, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

type Site = { readonly master: TestServer; readonly own: TestServer; readonly slapd: TestServer; readonly directory: string };

const ports: Ports = systemPorts(silentLogger);
const account = (name: string): AccountName => `${name}@isp.example` as AccountName;

/** Three servers, of which one is OpenLDAP, and a place for outboxes. */
async function withSite(
  work: (site: Site) => Promise<void>,
  startMaster: () => Promise<TestServer> = () => startOwnDirectory('master'),
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-all-at-once-'));
  await using master = await startMaster();
  await using own = await startOwnDirectory('replica');
  await using slapd = await startSlapd({ withSuffix: false });
  try {
    for (const [name, server] of Object.entries({ master, own, slapd })) {
      await writeFile(join(directory, name), server.rootPassword.reveal());
    }
    await work({ master, own, slapd, directory });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const serverOf = (site: Site, name: 'own' | 'slapd') => ({
  name,
  url: site[name].url,
  bindDn: site[name].rootDn,
  bindPassword: { file: join(site.directory, name) },
});

function open(
  site: Site,
  allAtOnce: Partial<NonNullable<DirectoryAccess['allAtOnce']>> = {},
  other: Partial<Ports> = {},
  bindDn = site.master.rootDn,
): Promise<DirectoryWriter> {
  const { master, directory } = site;
  const access: DirectoryAccess = {
    servers: [master.url],
    master: master.url,
    suffix: 'o=mail',
    bindDn,
    bindPassword: { file: join(directory, 'master') },
    timeoutMs: 2000,
    allAtOnce: {
      servers: [serverOf(site, 'own'), serverOf(site, 'slapd')],
      quorum: 'all',
      outboxDirectory: join(directory, 'outbox'),
      outboxChangesMax: 1000,
      answerWithinMs: 5000,
      ...allAtOnce,
    },
  };
  return openConfiguredWriter(access, { ...ports, metrics: createMetrics(), ...other });
}

const copiesOf = (writer: DirectoryWriter): readonly CopyStatus[] => (writer.copies?.() ?? []) as readonly CopyStatus[];
const statusOf = (writer: DirectoryWriter, name: string): CopyStatus | undefined => copiesOf(writer).find((one) => one.name === name);

/** Whether nothing is under way any more. */
async function isDrained(writer: DirectoryWriter, site: Site): Promise<boolean> {
  const left = await readdir(join(site.directory, 'outbox'));
  return left.join() === 'owner' && copiesOf(writer).every((one) => one.backlogChanges === 0 && one.state === 'current');
}

async function expectEqual({ master, own, slapd }: Site): Promise<string> {
  const wanted = await exportOf(master, true);
  expect(await exportOf(own, true)).toBe(wanted);
  expect(await exportOf(slapd, false)).toBe(await exportOf(master, false));
  return wanted;
}

describe('a writer of all directory servers at once', () => {
  it('answers when all have the change, with the same UUIDs, names and hashes everywhere', async () => {
    await withSite(async (site) => {
      await using writer = await open(site);
      await writer.createDomain(parseDomainName('isp.example'));
      const alice = await writer.createAccount({ name: account('alice'), password: new Secret('secret') });
      const bob = await writer.createAccount({ name: account('bob') });
      await writer.renameAccount(alice.uuid, account('swap'));
      await writer.renameAccount(bob.uuid, account('alice'));
      await writer.renameAccount(alice.uuid, account('bob'));
      await writer.setStatus(bob.uuid, 'locked');
      await writer.removeAccount((await writer.createAccount({ name: account('gone') })).uuid);
      // Answered means that it is there: nothing is waited for.
      await expectEqual(site);
      await expect(writer.createAccount({ name: account('bob') })).rejects.toMatchObject({ code: 'DIR_EXISTS' });
      await expect.poll(() => isDrained(writer, site), { timeout: 10_000 }).toBe(true);
      await expectEqual(site);
    });
  });

  it('goes on at the quorum while a server is away, killed in the middle of writes, and drains to it when it returns', async () => {
    await withSite(async (site) => {
      await using writer = await open(site, { quorum: '2' });
      await writer.createDomain(parseDomainName('isp.example'));
      await expect.poll(() => statusOf(writer, 'slapd')?.state, { timeout: 10_000 }).toBe('current');
      const made: Promise<unknown>[] = [];
      for (let i = 0; i < 40; i += 1) {
        made.push(writer.createAccount({ name: account(`u${i}`) }));
        if (i === 20) made.push(site.slapd.stop('SIGKILL'));
      }
      await Promise.all(made);
      await expect.poll(() => statusOf(writer, 'slapd')?.state, { timeout: 10_000 }).toBe('away');
      expect(statusOf(writer, 'slapd')?.backlogChanges).toBeGreaterThan(0);
      await using impatient = await open(site, { outboxDirectory: join(site.directory, 'second'), answerWithinMs: 300 });
      await expect(impatient.createAccount({ name: account('strict') })).rejects.toMatchObject({ code: 'DIR_QUORUM' });
      await site.slapd.start();
      await expect.poll(() => isDrained(writer, site), { timeout: 20_000 }).toBe(true);
      await expect.poll(() => statusOf(impatient, 'slapd')?.backlogChanges, { timeout: 20_000 }).toBe(0);
      expect(await expectEqual(site)).toContain('uid=strict,');
    });
  });

  it('compares a server as a whole when its outbox was cut short, also after a restart of the writer', async () => {
    await withSite(async (site) => {
      const first = await open(site, { quorum: '2', outboxChangesMax: 10 });
      try {
        await first.createDomain(parseDomainName('isp.example'));
        await expect.poll(() => isDrained(first, site), { timeout: 10_000 }).toBe(true);
        await site.own.stop();
        for (let i = 0; i < 30; i += 1) await first.createAccount({ name: account(`u${i}`) });
        expect(statusOf(first, 'own')).toMatchObject({ state: 'away', isCut: true });
        expect((await readdir(join(site.directory, 'outbox'))).length).toBeLessThanOrEqual(12);
      } finally {
        await first[Symbol.asyncDispose]();
      }
      await site.own.start();
      await using second = await open(site);
      await expect.poll(() => isDrained(second, site), { timeout: 20_000 }).toBe(true);
      await expectEqual(site);
    });
  });

  it('compares a server as a whole that answers but does not come along, also where more is dropped while that is done', async () => {
    await withSite(async (site) => {
      await using toOwn = await FaultProxy.before(site.own.url);
      const servers = [{ ...serverOf(site, 'own'), url: toOwn.url }, serverOf(site, 'slapd')];
      await using writer = await open(site, { servers, quorum: '2', outboxChangesMax: 10 });
      await writer.createDomain(parseDomainName('isp.example'));
      await expect.poll(() => isDrained(writer, site), { timeout: 10_000 }).toBe(true);
      let made = 0;
      const addTen = async (): Promise<void> => {
        for (const last = made + 10; made < last; made += 1) await writer.createAccount({ name: account(`u${made}`) });
      };
      toOwn.slow(300, 100_000);
      await addTen();
      await addTen();
      expect(statusOf(writer, 'own')?.isCut).toBe(true);
      await expect.poll(() => statusOf(writer, 'own')?.state, { timeout: 60_000 }).toBe('comparing');
      // Nothing comes through any more; connections stay for some seconds.
      toOwn.silence();
      await addTen();
      await addTen();
      expect(statusOf(writer, 'own')).toMatchObject({ state: 'comparing', isCut: true });
      toOwn.heal();
      await expect.poll(() => isDrained(writer, site), { timeout: 60_000 }).toBe(true);
      await expectEqual(site);
    });
  });

  it('puts writes off while its outbox has no room, also from its start on, and goes on when there is some', async () => {
    await withSite(async (site) => {
      let isFull = true;
      const full = (): Promise<never> => Promise.reject(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }));
      const files = Object.assign(Object.create(ports.files), {
        replace: (path: string, content: string) => (isFull ? full() : ports.files.replace(path, content)),
        writeNew: (path: string, parts: readonly Uint8Array[]) => (isFull ? full() : ports.files.writeNew(path, parts)),
      });
      await using writer = await open(site, {}, { files });
      await expect(writer.createDomain(parseDomainName('isp.example'))).rejects.toMatchObject({ code: 'DIR_BUSY' });
      expect(statusOf(writer, 'slapd')).toMatchObject({ state: 'away', lastError: expect.stringContaining('no space left') });
      isFull = false;
      const create = (): Promise<boolean> =>
        writer.createDomain(parseDomainName('isp.example')).then(
          () => true,
          () => false,
        );
      await expect.poll(create, { timeout: 20_000 }).toBe(true);
      await expectEqual(site);
      await site.own.stop();
      await expect.poll(() => statusOf(writer, 'own')?.state, { timeout: 10_000 }).toBe('away');
      await expect.poll(() => statusOf(writer, 'own')?.lastError, { timeout: 10_000 }).toContain('cannot connect');
      isFull = true;
      await expect(writer.createAccount({ name: account('alice') })).rejects.toMatchObject({ code: 'DIR_BUSY' });
      expect(statusOf(writer, 'own')?.lastError).toMatch(/no space left.*cannot connect/);
      expect(statusOf(writer, 'slapd')?.lastError).toContain('no space left');
      isFull = false;
      await site.own.start();
      await expect.poll(() => statusOf(writer, 'own')?.state, { timeout: 20_000 }).toBe('current');
      await writer.createAccount({ name: account('alice') });
      expect(statusOf(writer, 'own')?.lastError).toBeUndefined();
      await expectEqual(site);
    });
  });

  it('does not leave an older state over a newer one that another writer has carried meanwhile', async () => {
    await withSite(async (site) => {
      await using toOwn = await FaultProxy.before(site.own.url);
      const servers = [{ ...serverOf(site, 'own'), url: toOwn.url }, serverOf(site, 'slapd')];
      await using slow = await open(site, { servers, quorum: 'master' });
      await using fast = await open(site, { outboxDirectory: join(site.directory, 'second') });
      await fast.createDomain(parseDomainName('isp.example'));
      const alice = await fast.createAccount({ name: account('alice') });
      const bob = await fast.createAccount({ name: account('bob') });
      await expect.poll(() => statusOf(slow, 'own')?.state, { timeout: 10_000 }).toBe('current');
      // It has asked the master by then, and waits for what the server says.
      toOwn.silence();
      const before = toOwn.heldBytes;
      await slow.setStatus(alice.uuid, 'locked');
      await slow.setStatus(bob.uuid, 'locked');
      await expect.poll(() => toOwn.heldBytes - before, { timeout: 4000, interval: 5 }).toBeGreaterThan(200);
      await fast.setStatus(alice.uuid, 'active');
      await fast.removeAccount(bob.uuid);
      toOwn.heal();
      await expect.poll(() => isDrained(slow, site), { timeout: 20_000 }).toBe(true);
      const content = await expectEqual(site);
      expect(content).toContain('uid=alice,');
      expect(content).not.toContain('uid=bob,');
    });
  });

  it('lets nobody begin a change in an outbox that somebody else has opened since', async () => {
    await withSite(async (site) => {
      await using first = await open(site, { quorum: 'master' });
      await first.createDomain(parseDomainName('isp.example'));
      await using second = await open(site, { quorum: 'master' });
      await expect(first.createAccount({ name: account('alice') })).rejects.toThrow('has opened it since');
      await second.createAccount({ name: account('bob') });
      await rm(join(site.directory, 'outbox'), { recursive: true });
      await expect(second.createAccount({ name: account('carol') })).rejects.toMatchObject({ code: 'DIR_BUSY' });
      const content = await exportOf(site.master, true);
      expect(['alice', 'bob', 'carol'].filter((name) => content.includes(`uid=${name},`))).toEqual(['bob']);
    });
  });

  it('carries what the new master has after a promotion, and does not count that one twice', async () => {
    await withSite(async (site) => {
      await using writer = await open(site, { quorum: '3', answerWithinMs: 4000 }, {}, adminDn);
      await writer.createDomain(parseDomainName('isp.example'));
      await using old = await site.master.connect();
      await using next = await site.own.connect();
      await expect.poll(async () => (await askAuthority(next, { op: 'look' })).isFilled, { timeout: 20_000 }).toBe(true);
      await writer.createAccount({ name: account('alice') });
      await askAuthority(old, { op: 'follow', term: 2, master: site.own.url });
      await askAuthority(next, { op: 'promote', term: 2 });
      // At once, while the old master is still taken for the master by whoever asked it a moment ago.
      const made = writer.createAccount({ name: account('bob') });
      await expect(made).rejects.toMatchObject({ code: 'DIR_QUORUM' });
      await expect(made).rejects.toThrow(/only 2 of the 3 servers .* own is the master itself by now/);
      expect(await exportOf(site.slapd, false)).toContain('uid=bob,');
    });
  });

  it('sets an entry aside that a server refuses, says so, and carries it once it is taken', async () => {
    const extraSchema = "\nobjectclass ( 2.25.11233386167282336856843219451289651251.2.99 NAME 'oddThing' SUP top AUXILIARY )\n";
    await withSite(
      async (site) => {
        await using writer = await open(site, { quorum: '2' });
        await writer.createDomain(parseDomainName('isp.example'));
        await using admin = await site.master.connect();
        const { uuid } = await writer.createAccount({ name: account('odd') });
        const odd = 'uid=odd,cn=isp.example,o=mail';
        await admin.modify(odd, [{ kind: 'add', attribute: attribute('objectClass', 'oddThing') }]);
        await writer.setStatus(uuid, 'locked');
        await expect.poll(() => statusOf(writer, 'slapd')?.refused[0]?.reason ?? '', { timeout: 10_000 }).toContain('oddThing');
        await using strict = await open(site, { outboxDirectory: join(site.directory, 'second'), answerWithinMs: 1000 });
        const wanted = strict.setStatus(uuid, 'maintenance');
        await expect(wanted).rejects.toMatchObject({ code: 'DIR_QUORUM' });
        await expect(wanted).rejects.toThrow(/only 2 of the 3 .* slapd does not take it: .*oddThing/);
        await writer.createAccount({ name: account('next') });
        await admin.modify(odd, [{ kind: 'delete', attribute: attribute('objectClass', 'oddThing') }]);
        await writer.setStatus(uuid, 'active');
        await expect.poll(() => isDrained(writer, site), { timeout: 20_000 }).toBe(true);
        await expectEqual(site);
      },
      () => startSlapd({ extraSchema }),
    );
  });

  it('takes a compared server for equal once it has taken what it refused in the comparison, and not before', async () => {
    const extraSchema = "\nobjectclass ( 2.25.11233386167282336856843219451289651251.2.99 NAME 'oddThing' SUP top AUXILIARY )\n";
    await withSite(
      async (site) => {
        await using writer = await open(site, { quorum: '2', outboxChangesMax: 10 });
        await writer.createDomain(parseDomainName('isp.example'));
        await expect.poll(() => isDrained(writer, site), { timeout: 10_000 }).toBe(true);
        await site.slapd.stop();
        await writer.createAccount({ name: account('odd') });
        await using admin = await site.master.connect();
        const odd = 'uid=odd,cn=isp.example,o=mail';
        await admin.modify(odd, [{ kind: 'add', attribute: attribute('objectClass', 'oddThing') }]);
        for (let i = 0; i < 20; i += 1) await writer.createAccount({ name: account(`u${i}`) });
        await site.slapd.start();
        await expect.poll(() => statusOf(writer, 'slapd')?.refused[0]?.reason ?? '', { timeout: 20_000 }).toContain('oddThing');
        await expect.poll(() => statusOf(writer, 'slapd')?.backlogChanges, { timeout: 20_000 }).toBe(0);
        expect(statusOf(writer, 'slapd')).toMatchObject({ isCut: true });
        await admin.modify(odd, [{ kind: 'delete', attribute: attribute('objectClass', 'oddThing') }]);
        await expect.poll(() => isDrained(writer, site), { timeout: 20_000 }).toBe(true);
        expect(await exportOf(site.slapd, false)).toBe(await exportOf(site.master, false));
      },
      () => startSlapd({ extraSchema }),
    );
  });

  it('may die at any moment: its successor leaves all servers equal, with everything that was answered', async () => {
    await withSite(async (site) => {
      {
        await using writer = await open(site);
        await writer.createDomain(parseDomainName('isp.example'));
        await writer.createAccount({ name: account('old') });
        await expect.poll(() => isDrained(writer, site), { timeout: 10_000 }).toBe(true);
      }
      const answered: string[] = [];
      let died = true;
      let round = 0;
      for (; died && round < 200; round += 1) {
        const world = new MortalWorld(site.master.url, site.own.url, site.slapd.url);
        world.arm(round * 2);
        const doomed = await open(site, { answerWithinMs: 300 }, { network: world.network, files: world.files }).catch(() => undefined);
        const work = async (): Promise<void> => {
          if (doomed === undefined) return;
          const { uuid } = await doomed.createAccount({ name: account(`made${round}`) });
          answered.push(`uid=made${round},`);
          await doomed.renameAccount(uuid, account(`kept${round}`));
          answered[answered.length - 1] = `uid=kept${round},`;
          const gone = await doomed.createAccount({ name: account(`gone${round}`) });
          await doomed.removeAccount(gone.uuid);
        };
        const isOver = work().catch((error: unknown) => {
          if (!(error instanceof PlatformError) && !world.hasEnded) throw error;
        });
        await Promise.race([world.ended, isOver]);
        died = world.hasEnded;
        await doomed?.[Symbol.asyncDispose]();
        await isOver;
        await using successor = await open(site);
        await expect.poll(() => isDrained(successor, site), { timeout: 20_000, interval: 10 }).toBe(true);
        const content = await expectEqual(site);
        // A rename whose answer did not come may have happened.
        const lost = answered.filter((uid) => !content.includes(uid) && !content.includes(uid.replace('made', 'kept')));
        expect(lost, `after dying before deed ${round * 2 + 1}`).toEqual([]);
      }
      expect(round).toBeGreaterThan(5);
    });
  });
});
