import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sleep, systemClock } from '#common/clock.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { openStatePlace } from '#replication/state-place.ts';
import { startOwnDirectory } from './own-directory.ts';
import { type ServiceProcess, startReplicationProcess } from './replication-process.ts';
import { addAccount, addDomain, exportOf, rename, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const leaseMs = 1500;
const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;

/** Additions, renames and removals, a round of them every 5 ms, until told to stop; resolves with how many rounds there were. */
async function writeOnAndOn(admin: LdapConnection, signal: AbortSignal): Promise<number> {
  let count = 0;
  for (let i = 0; !signal.aborted; i += 1) {
    await addAccount(admin, `u${i}`);
    if (i % 3 === 0) await rename(admin, at(`u${i}`), `uid=r${i}`);
    if (i % 3 === 1 && i > 1) {
      // The name of the one before, given anew.
      await admin.delete(at(`r${i - 1}`));
      await addAccount(admin, `r${i - 1}`);
    }
    if (i % 21 === 20) await admin.delete(at(`u${i}`));
    await sleep(systemClock, 5, signal);
    count += 1;
  }
  return count;
}

/** Who holds the replica's lease, asked at the replica itself. */
async function holderOf(replica: TestServer): Promise<string> {
  await using connection = await replica.connect();
  const place = await openStatePlace(connection, 'o=mail', async () => {});
  return (await place.readLease())?.holder.split('/')[0] ?? '';
}

async function takenBy(replica: TestServer, other: ServiceProcess): Promise<number> {
  const startedMs = performance.now();
  await expect
    .poll(
      () => {
        if (other.hasExited()) throw new Error(other.describe());
        return holderOf(replica);
      },
      { timeout: 30_000, interval: 20 },
    )
    .toBe(other.name);
  return performance.now() - startedMs;
}

async function loseTheActiveOne(kind: string, replica: TestServer, withCsn: boolean): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-takeover-'));
  await using master = await startOwnDirectory('master');
  await using admin = await master.connect();
  await addDomain(admin, 'isp.example');
  const start = (name: string): Promise<ServiceProcess> =>
    startReplicationProcess(master, { 'ldap-eu': replica }, directory, { name, service: { leaseMs, refreshDeletesMaxPercent: 100 } });
  const running: ServiceProcess[] = [];
  const enough = new AbortController();
  try {
    let active = await start('one.isp.example');
    running.push(active);
    await takenBy(replica, active);
    let other = await start('two.isp.example');
    running.push(other);
    const writing = writeOnAndOn(admin, enough.signal);
    const took: string[] = [];

    await expect.poll(async () => (await exportOf(replica, false)).includes('uid=u22,'), { timeout: 20_000, interval: 200 }).toBe(true);
    await active.kill();
    took.push(`after kill -9 ${Math.round(await takenBy(replica, other))} ms`);
    active = other;
    other = await start('three.isp.example');
    running.push(other);
    await expect.poll(() => other.hasSaid('started') || other.hasExited(), { timeout: 20_000 }).toBe(true);

    // Stopped in the middle of its work: what it sends when it wakes up must not count any more.
    active.pause();
    took.push(`after SIGSTOP ${Math.round(await takenBy(replica, other))} ms`);
    const before = await exportOf(replica, false);
    await expect.poll(() => exportOf(replica, false), { timeout: 20_000, interval: 200 }).not.toBe(before);
    active.resume();
    await expect.poll(() => active.hasSaid('the lease is lost'), { timeout: 20_000 }).toBe(true);

    enough.abort();
    const changes = await writing;
    await expect
      .poll(() => exportOf(replica, withCsn), {
        timeout: 30_000,
      })
      .toBe(await exportOf(master, withCsn));
    process.stdout.write(`take-over at ${kind} with a lease of ${leaseMs} ms under ${changes} rounds of writes: ${took.join(', ')}\n`);
  } catch (error) {
    throw new Error(running.map((one) => `${one.name}: ${one.describe()}`).join('\n'), { cause: error });
  } finally {
    enough.abort();
    await Promise.all(running.map((one) => one.kill()));
    await rm(directory, { recursive: true, force: true });
  }
}

describe('two replication services for one replica', () => {
  it('take over from each other at our server, killed or stopped, and no change is missing or undone', async () => {
    await using replica = await startOwnDirectory('replica');
    await loseTheActiveOne('our replica', replica, true);
  });

  it('take over from each other at OpenLDAP', async () => {
    await using replica = await startSlapd({ withSuffix: false });
    await loseTheActiveOne('an OpenLDAP replica', replica, false);
  });
});
