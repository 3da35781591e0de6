import { describe, expect, it } from 'vitest';
import { errnoOf, type Files } from '#common/files/files.ts';
import { Outbox } from '#replication/client/outbox.ts';
import { settle } from '#test/fakes/clock.ts';
import { MemoryDisk } from '#test/fakes/memory-files.ts';

const servers = ['ldap-eu', 'ldap-us'];
const uuid = '00000000-0000-4000-8000-000000000001';
const open = (files: Files, owner = 'a'): Promise<Outbox> => Outbox.open(files, '/outbox', owner, servers);

/** Files of an outbox, without its owner. */
const left = (disk: MemoryDisk): string[] => disk.paths().filter((path) => path !== '/outbox/owner');

describe('an outbox', () => {
  it.each([{ uuid }, { dn: 'uid=müller,cn=isp.example,o=mail' }])(
    'whose file is damaged at any octet gives what was written, or has every server compared: %j',
    async (subject) => {
      const disk = new MemoryDisk();
      const { number } = await (await open(disk.client())).begin(subject);
      const [path = ''] = left(disk);
      const whole = await disk.client().read(path);
      const damages = Array.from({ length: whole.length }, (_, at) => at).flatMap((at) => [
        () => whole.subarray(0, at),
        ...Array.from({ length: 8 }, (_, bit) => () => {
          const flipped = Buffer.from(whole);
          flipped[at] = (flipped[at] as number) ^ (1 << bit);
          return flipped;
        }),
      ]);
      let survived = 0;
      for (const damage of damages) {
        disk.damage(path, damage);
        const again = await open(disk.client(), 'b');
        if (again.damaged === 0) {
          survived += 1;
          expect(again.intents()).toEqual([{ number, subject }]);
          continue;
        }
        expect(again.intents()).toEqual([]);
        expect(servers.every((server) => again.isCut(server))).toBe(true);
        expect(disk.has(path)).toBe(false);
        for (const server of servers) await again.healed(server, () => true);
        await disk.client().writeNew(path, [whole]);
      }
      // White space is no damage.
      expect(survived).toBeLessThan(10);
    },
  );

  it('reads what an earlier version wrote', async () => {
    const disk = new MemoryDisk();
    await disk.client().mkdirAll('/outbox');
    await disk.client().writeNew('/outbox/000000000007.intent', [Buffer.from(`{"uuid":"${uuid}"}\n`)]);
    await disk.client().writeNew('/outbox/ldap-eu.cut', [Buffer.from('ldap-eu\n')]);
    const outbox = await open(disk.client());
    expect(outbox.intents()).toEqual([{ number: 7, subject: { uuid } }]);
    expect(servers.map((server) => outbox.isCut(server))).toEqual([true, false]);
  });

  it('knows a server whose changes were dropped by the name of a file, whatever is in that', async () => {
    const disk = new MemoryDisk();
    await (await open(disk.client())).cut('ldap-eu', () => {});
    disk.damage('/outbox/ldap-eu.cut', () => Buffer.alloc(0));
    expect((await open(disk.client())).isCut('ldap-eu')).toBe(true);
  });

  it.each(['dies-before', 'dies-half-way', 'dies-after'] as const)(
    'that dies at any step of a beginning leaves no half of it: the intent is whole, or nobody was asked (%s)',
    async (kind) => {
      let isDead = true;
      let step = 0;
      for (; isDead && step < 20; step += 1) {
        const disk = new MemoryDisk();
        const client = disk.client();
        const outbox = await open(client);
        const last = client.operations + step;
        client.decideBy(({ index }) => (index === last ? { kind } : undefined));
        const begun = await Promise.race([outbox.begin({ uuid }), settle().then(() => undefined)]);
        isDead = client.isDead;
        disk.powerCut();
        const again = await open(disk.client(), 'b');
        expect(again.damaged, `step ${step}`).toBe(0);
        if (begun !== undefined) expect(again.intents()).toEqual([{ number: 1, subject: { uuid } }]);
        expect(left(disk).filter((path) => !path.endsWith('.intent'))).toEqual([]);
      }
      expect(step).toBeGreaterThan(4);
      expect(step).toBeLessThan(20);
    },
  );

  it.each(['writeNew', 'link', 'syncDirectory'] as const)(
    'whose disk is full at %s begins nothing, and leaves nothing behind',
    async (name) => {
      const disk = new MemoryDisk();
      let isFull = false;
      const outbox = await open(
        disk.client((operation) => {
          if (!isFull || ![name, 'replace'].includes(operation.name)) return undefined;
          return { kind: operation.name === 'writeNew' ? 'happens-but-fails' : 'fails', code: 'ENOSPC' };
        }),
      );
      isFull = true;
      for (let i = 0; i < 3; i += 1) await expect(outbox.begin({ uuid })).rejects.toMatchObject({ code: 'DIR_BUSY' });
      expect(left(disk)).toEqual([]);
      await expect(outbox.cut('ldap-eu', () => {})).rejects.toMatchObject({ code: 'DIR_BUSY' });
      isFull = false;
      expect(await outbox.begin({ uuid })).toMatchObject({ subject: { uuid } });
      expect(left(disk)).toHaveLength(1);
    },
  );

  it('does not write over what another one began under the same number', async () => {
    const disk = new MemoryDisk();
    let others: Outbox | undefined;
    const client = disk.client((operation) => (operation.name === 'writeNew' && others === undefined ? { kind: 'held' } : undefined));
    const late = (await open(client)).begin({ dn: 'cn=late,o=mail' });
    await expect.poll(() => client.isStuck).toBe(true);
    others = await open(disk.client(), 'b');
    await others.begin({ uuid });
    client.release();
    await expect(late).rejects.toMatchObject({ code: 'DIR_BUSY' });
    expect((await open(disk.client(), 'c')).intents()).toEqual([{ number: 1, subject: { uuid } }]);
  });

  it('keeps a server cut whose changes are dropped while it is being noted as equal', async () => {
    const disk = new MemoryDisk();
    const outbox = await open(disk.client());
    await outbox.cut('ldap-eu', () => {});
    let drops = 0;
    const seen = drops;
    const drop = (): void => {
      drops += 1;
    };
    await Promise.all([outbox.cut('ldap-eu', drop), outbox.healed('ldap-eu', () => drops === seen)]);
    expect(outbox.isCut('ldap-eu')).toBe(true);
    await Promise.all([outbox.healed('ldap-eu', () => true), outbox.cut('ldap-eu', drop)]);
    expect(outbox.isCut('ldap-eu')).toBe(true);
    expect((await open(disk.client(), 'b')).isCut('ldap-eu')).toBe(true);
    await outbox.healed('ldap-eu', () => true);
    expect((await open(disk.client(), 'c')).isCut('ldap-eu')).toBe(false);
  });

  it('is compared once more where it cannot be noted that a server is equal', async () => {
    const disk = new MemoryDisk();
    let isReadOnly = false;
    const outbox = await open(disk.client(() => (isReadOnly ? { kind: 'fails', code: 'EROFS' } : undefined)));
    await outbox.cut('ldap-eu', () => {});
    isReadOnly = true;
    expect(errnoOf(await outbox.healed('ldap-eu', () => true).catch((error: unknown) => error))).toBe('EROFS');
    expect(outbox.isCut('ldap-eu')).toBe(false);
    expect((await open(disk.client(), 'b')).isCut('ldap-eu')).toBe(true);
  });
});
