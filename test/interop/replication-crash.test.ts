import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import { MortalWorld } from './mortal-world.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, exportOf, rename, replicate, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const at = (uid: string, domain = 'isp.example'): string => `uid=${uid},cn=${domain},o=mail`;

async function prepare(admin: LdapConnection): Promise<void> {
  await addDomain(admin, 'isp.example');
  await addDomain(admin, 'other.example');
  for (const uid of ['a', 'b', 'c', 'd']) await addAccount(admin, uid);
  await addAccount(admin, 'old0');
}

/** Of every kind of change one: swap, chain with the old name given anew, move and back, change, addition, deletion. Repeatable. */
async function batch(admin: LdapConnection, round: number): Promise<string> {
  await rename(admin, at('a'), 'uid=swap');
  await rename(admin, at('b'), 'uid=a');
  await rename(admin, at('swap'), 'uid=b');
  await addAccount(admin, `old${round + 1}`);
  await rename(admin, at('c'), 'uid=c2');
  await rename(admin, at('c2'), `uid=kept${round}`);
  await addAccount(admin, 'c');
  await rename(
    admin,
    round % 2 === 0 ? at('d') : at('d', 'other.example'),
    'uid=d',
    `cn=${round % 2 === 0 ? 'other' : 'isp'}.example,o=mail`,
  );
  await admin.delete(at(`old${round}`));
  if (round > 0) await admin.delete(at(`kept${round - 1}`));
  await admin.modify(at('a'), [{ kind: 'replace', attribute: attribute('description', `${round}`) }]);
  const last = await admin.readEntry(at('a'), ['entryCSN']);
  return textOf(last?.attributes ?? [], 'entryCSN') ?? '';
}

/** Ends the service before its 1st, 2nd, 3rd … deed of a batch until it gets through; returns the number of moments it died at. */
async function dieEverywhere(
  master: TestServer,
  replica: TestServer,
  when: 'catch-up' | 'comparison' | 'following',
  stride: number,
): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-crash-'));
  await using admin = await master.connect();
  try {
    await prepare(admin);
    for (let round = 0; ; round += 1) {
      const world = new MortalWorld(replica.url);
      let csn = '';
      if (when === 'comparison') await rm(join(directory, 'state'), { recursive: true, force: true });
      if (when !== 'following') {
        csn = await batch(admin, round);
        world.arm(round * stride);
      }
      const doomed = await replicate(master, replica, directory, { ports: { network: world.network, files: world.files } });
      if (when === 'following') {
        await expect.poll(() => doomed.status().replicas[0], { timeout: 10_000 }).toMatchObject({ state: 'following', backlogChanges: 0 });
        world.arm(round * stride);
        csn = await batch(admin, round);
      }
      const arrived = doomed.waitFor(csn, undefined, AbortSignal.timeout(20_000));
      await Promise.race([world.ended, arrived]);
      arrived.catch(() => {});
      const died = world.hasEnded;
      await doomed[Symbol.asyncDispose]();
      const successor = await replicate(master, replica, directory);
      try {
        await successor.waitFor(csn, undefined, AbortSignal.timeout(20_000));
        const [ofMaster, ofReplica] = await Promise.all([exportOf(master, false), exportOf(replica, false)]);
        expect(ofReplica, `after dying before deed ${round * stride + 1}`).toBe(ofMaster);
      } finally {
        await successor[Symbol.asyncDispose]();
      }
      if (!died) return round;
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

describe('a replication service that dies at any moment', () => {
  it('leaves our replica to its successor, whatever it was about to do in a catch-up', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    // A batch is one deed: it is there as a whole or not at all.
    expect(await dieEverywhere(master, replica, 'catch-up', 1)).toBeGreaterThan(2);
  });

  it('leaves our replica to its successor, whatever it was about to do in a comparison without its checkpoint', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    expect(await dieEverywhere(master, replica, 'comparison', 1)).toBeGreaterThan(10);
  });

  it('leaves our replica to its successor, whatever it was about to do while following', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    expect(await dieEverywhere(master, replica, 'following', 1)).toBeGreaterThan(3);
  });

  it('leaves an OpenLDAP replica to its successor, whatever it was about to do in a catch-up', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startSlapd({ withSuffix: false });
    expect(await dieEverywhere(master, replica, 'catch-up', 2)).toBeGreaterThan(4);
  });

  it('leaves an OpenLDAP replica of our master to its successor', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startSlapd({ withSuffix: false });
    expect(await dieEverywhere(master, replica, 'following', 3)).toBeGreaterThan(2);
  });
});
