import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import { addAccount, addDomain, replicate } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const odd = 'cn=odd,o=mail';
/** A class that only some servers of these tests have. */
const extraSchema = "\nobjectclass ( 2.25.11233386167282336856843219451289651251.2.99 NAME 'oddThing' SUP top STRUCTURAL MUST cn )\n";

async function csnOf(admin: LdapConnection, dn: string): Promise<string> {
  return textOf((await admin.readEntry(dn, ['entryCSN']))?.attributes ?? [], 'entryCSN') ?? '';
}

describe('an entry that a replica refuses', () => {
  it('is set aside with the reason, holds up nothing, is known after a restart, and goes once it is taken', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-refused-'));
    await using master = await startSlapd({ isProvider: true, sessionLog: 100, extraSchema });
    await using replica = await startSlapd({ withSuffix: false });
    await using admin = await master.connect();
    let service = await replicate(master, replica, directory);
    try {
      await addDomain(admin, 'isp.example');
      await admin.add(odd, [attribute('objectClass', 'oddThing'), attribute('cn', 'odd')]);
      await addAccount(admin, 'alice');
      const csn = await csnOf(admin, 'uid=alice,cn=isp.example,o=mail');
      await service.waitFor(csn, undefined, AbortSignal.timeout(20_000));
      const refused = { entries: 1, first: [{ dn: odd, reason: expect.stringContaining('oddThing') }] };
      expect(service.status().replicas[0]).toMatchObject({ state: 'following', refused });
      expect(await service.verify()).toMatchObject([{ differing: 1, differences: [{ kind: 'missing', dn: odd }] }]);
      await service[Symbol.asyncDispose]();
      service = await replicate(master, replica, directory);
      await expect.poll(() => service.status().replicas[0], { timeout: 20_000 }).toMatchObject({ state: 'following', refused });
      await admin.delete(odd);
      await expect.poll(() => service.status().replicas[0]?.refused.entries, { timeout: 20_000 }).toBe(0);
      expect(await service.verify()).toMatchObject([{ differing: 0 }]);
    } finally {
      await service[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    }
  });

  it('holds up none of the many that come with it in a first load', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-refused-'));
    await using master = await startSlapd({ isProvider: true, sessionLog: 100, extraSchema });
    await using replica = await startSlapd({ withSuffix: false });
    await using admin = await master.connect();
    try {
      await addDomain(admin, 'isp.example');
      const unit = (n: number): string => `ou=${n},cn=isp.example,o=mail`;
      for (let n = 0; n < 600; n += 1) {
        await admin.add(unit(n), [attribute('objectClass', 'organizationalUnit'), attribute('ou', `${n}`)]);
        const kind = n % 200 === 7 ? 'oddThing' : 'organizationalRole';
        await admin.add(`cn=below,${unit(n)}`, [attribute('objectClass', kind), attribute('cn', 'below')]);
      }
      await using service = await replicate(master, replica, directory);
      const wanted = { state: 'following', refused: { entries: 3 } };
      await expect.poll(() => service.status().replicas[0], { timeout: 60_000 }).toMatchObject(wanted);
      const missing = [7, 207, 407].map((n) => ({ kind: 'missing', dn: `cn=below,${unit(n)}` }));
      const [report] = await service.verify();
      expect(report).toMatchObject({ differing: 3 });
      expect(report?.differences).toEqual(expect.arrayContaining(missing.map((one) => expect.objectContaining(one))));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  it('is tried again when the replica comes back with another schema', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-refused-'));
    await using master = await startSlapd({ isProvider: true, sessionLog: 100, extraSchema });
    await using narrow = await startSlapd({ withSuffix: false });
    await using wide = await startSlapd({ extraSchema });
    await using admin = await master.connect();
    try {
      {
        await using service = await replicate(master, narrow, directory);
        await admin.add(odd, [attribute('objectClass', 'oddThing'), attribute('cn', 'odd')]);
        await expect.poll(() => service.status().replicas[0]?.refused.entries, { timeout: 20_000 }).toBe(1);
      }
      await using service = await replicate(master, wide, directory);
      await using reader = await wide.connect();
      await expect.poll(() => reader.readEntry(odd, ['cn']), { timeout: 20_000 }).toBeDefined();
      await expect.poll(() => service.status().replicas[0]?.refused.entries, { timeout: 20_000 }).toBe(0);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});
