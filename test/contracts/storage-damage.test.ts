/** Bit rot in each kind of file, on each engine: the account is read-only and says why, nothing else is touched, and a repair brings it back. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AccountStore, StoredAccount } from '#backend-cluster/storage/account-store.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { type AccountUuid, parseAccountUuid } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { openNodeExchange } from '#common/http/node-exchange.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { S3Server } from '#test/fakes/s3-server.ts';
import { storeIn } from '#test/fakes/s3-store.ts';
import { codeOf, Ledger, mailboxOf, opening, uuid } from '#test/unit/backend-cluster/storage/ledger.ts';

const neighbour = parseAccountUuid('99999999-2222-4333-8444-555555555555');
const tuning = { snapshotRecords: 1_000, snapshotAtCloseSlots: 6 };

interface Place {
  readonly store: AccountStore;
  /** Names of what is stored for the account, in order, as findings call it. */
  names(): Promise<string[]>;
  change(name: string, change: (bytes: Buffer) => Buffer): Promise<void>;
  remove(name: string): Promise<void>;
}

async function posixPlace(undo: AsyncDisposableStack): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), 'archipelago-damage-'));
  undo.defer(() => rm(root, { recursive: true, force: true }));
  const ports = { clock: systemClock, random: systemRandom, log: silentLogger, metrics: createMetrics() };
  const store = await openAccountStore({ root, files: nodeFiles, ...ports, tuning });
  const base = `accounts/${uuid.slice(0, 2)}/${uuid.slice(2, 4)}/${uuid}`;
  return {
    store,
    names: async () =>
      (
        await Promise.all(
          ['log', 'snap', 'body'].map(async (part) =>
            (await readdir(join(root, base, part))).sort().map((name) => `${base}/${part}/${name}`),
          ),
        )
      ).flat(),
    change: async (name, change) => writeFile(join(root, name), change(await readFile(join(root, name)))),
    remove: (name) => rm(join(root, name)),
  };
}

async function s3Place(undo: AsyncDisposableStack): Promise<Place> {
  const server = undo.use(await S3Server.start());
  const store = storeIn(server, undo.use(openNodeExchange({ clock: systemClock })), tuning);
  return {
    store,
    names: async () => server.keys(`accounts/${uuid}`).map((key) => key.slice('west/'.length)),
    change: async (name, change) => server.damage(`west/${name}`, change),
    remove: async (name) => void server.objects.delete(`west/${name}`),
  };
}

const places = { posix: posixPlace, s3: s3Place } as const;

const flipLate = (bytes: Buffer): Buffer => {
  const at = bytes.length - 40;
  bytes[at] = (bytes[at] as number) ^ 0x10;
  return bytes;
};

let undo: AsyncDisposableStack;
beforeEach(() => {
  undo = new AsyncDisposableStack();
});
afterEach(() => undo.disposeAsync());

describe.each(Object.keys(places) as (keyof typeof places)[])('damage on %s', (engine) => {
  let place: Place;
  let ledger: Ledger;

  /** Opens, reads every message, and answers with how many could not be read. */
  async function readAll(account: StoredAccount): Promise<number> {
    let unread = 0;
    for (const mailbox of account.mailboxes()) {
      for (const uid of mailbox.uids()) {
        const code = await codeOf(Promise.all([account.readSummary(mailbox.id, uid), account.readRaw(mailbox.id, uid)]));
        if (code !== 'no failure') unread += 1;
      }
    }
    return unread;
  }

  async function expectRepaired(lost: { messages: number; slots: number }): Promise<StoredAccount> {
    const { store } = place;
    const request = { opening: opening('back1'), discardLost: false, isDryRun: true };
    const look = await store.repair(uuid, request);
    expect(look.outcome).toBe(lost.messages + lost.slots > 0 ? 'would-lose' : 'can-be-repaired');
    expect(look).toMatchObject({ lostMessages: lost.messages, lostSlots: lost.slots });
    if (lost.messages + lost.slots > 0) {
      // Without consent nothing is changed, and the account may be read as before.
      expect((await store.repair(uuid, { ...request, opening: opening('back1'), isDryRun: false })).outcome).toBe('would-lose');
      const still = await store.open(uuid, opening('back1'));
      await readAll(still);
      expect(still.isReadOnly).toBe(true);
      await still.close();
    }
    expect((await store.repair(uuid, { opening: opening('back1'), discardLost: true, isDryRun: false })).outcome).toBe('repaired');
    expect(await store.damageOf(uuid)).toBeUndefined();
    expect((await store.checkAccount(uuid)).findings).toEqual([]);
    const account = await store.open(uuid, opening('back2'));
    expect(account.isReadOnly).toBe(false);
    expect(await readAll(account)).toBe(0);
    await ledger.deliver(account, ['after the repair']);
    return account;
  }

  beforeEach(async () => {
    place = await places[engine](undo);
    ledger = new Ledger();
    const account = await place.store.open(uuid, opening('back1'));
    for (let i = 0; i < 8; i += 1) await ledger.deliver(account, [`m${i}`], 20_000);
    await ledger.deliver(account, ['large'], 300_000);
    await account.close();
    // Now a snapshot is there; what follows is in slots only.
    const again = await place.store.open(uuid, opening('back1'));
    for (let i = 0; i < 4; i += 1) await ledger.deliver(again, [`n${i}`], 20_000);
    await again.close();
    await (await place.store.open(neighbour, opening('back1'))).close();
  });

  afterEach(async () => {
    const { findings } = await place.store.checkAccount(neighbour);
    expect(findings).toEqual([]);
    const account = await place.store.open(neighbour, opening('back3'));
    expect(account.isReadOnly).toBe(false);
    await account.close();
  });

  it('in the body of a large message: found when it is read, kept in mind, and the message is given up on request', async () => {
    const name = (await place.names()).find((each) => each.includes('/body/f')) as string;
    await place.change(name, flipLate);
    const account = await place.store.open(uuid, opening('back1'));
    expect(account.isReadOnly).toBe(false);
    expect(await readAll(account)).toBe(1);
    expect(account.isReadOnly).toBe(true);
    expect(await codeOf(ledger.deliver(account, ['late']))).toBe('STORE_CORRUPT');
    await account.close();
    const again = await place.store.open(uuid, opening('back2'));
    expect(again.isReadOnly).toBe(true);
    expect((await place.store.listDamaged(10)).accounts).toMatchObject([{ uuid, foundBy: 'reading', findings: [{ file: name }] }]);
    await again.close();
    const repaired = await expectRepaired({ messages: 1, slots: 0 });
    expect(mailboxOf(repaired, 'INBOX').messageCount).toBe(13);
  });

  it('in a body: found by a check that marks it, and over when the file is put back', async () => {
    const name = (await place.names()).find((each) => each.includes('/body/f')) as string;
    let saved: Buffer = Buffer.alloc(0);
    await place.change(name, (bytes) => {
      saved = Buffer.from(bytes);
      return flipLate(bytes);
    });
    expect((await place.store.checkAccount(uuid, { isMarking: true })).isComplete).toBe(false);
    const account = await place.store.open(uuid, opening('back1'));
    expect(account.isReadOnly).toBe(true);
    await account.close();
    await place.change(name, () => saved);
    expect((await place.store.repair(uuid, { opening: opening('back1'), discardLost: false, isDryRun: false })).outcome).toBe('whole');
    const again = await place.store.open(uuid, opening('back1'));
    expect(again.isReadOnly).toBe(false);
    expect(await readAll(again)).toBe(0);
  });

  it('in the only snapshot whose slots are gone: nothing is opened for writing, and what the slots say comes back', async () => {
    const names = await place.names();
    const snapshots = names.filter((name) => name.includes('/snap/'));
    for (const name of snapshots) await place.change(name, flipLate);
    const account = await place.store.open(uuid, opening('back1'));
    // The slots before the first snapshot are kept until there are two: they cover for it.
    expect(account.isReadOnly).toBe(false);
    expect(await ledger.violations(account)).toEqual([]);
    await account.close();
    expect((await place.store.checkAccount(uuid)).findings).toEqual([]);
  });

  it('in a slot: read-only with all the rest, and after the repair no UID names two messages', async () => {
    if (engine === 'posix') {
      const log = (await place.names()).filter((name) => name.includes('/log/'));
      await place.change(log.at(-2) as string, (bytes) => {
        bytes[80] = (bytes[80] as number) ^ 1;
        return bytes;
      });
    } else {
      const segment = (await place.names()).filter((name) => name.includes('/log/')).at(-1) as string;
      await place.change(segment, (bytes) => {
        const at = bytes.lastIndexOf('APSL') + 80;
        bytes[at] = (bytes[at] as number) ^ 1;
        return bytes;
      });
    }
    const account = await place.store.open(uuid, opening('back1'));
    expect(account.isReadOnly).toBe(true);
    expect(await readAll(account)).toBe(0);
    expect(mailboxOf(account, 'INBOX').messageCount).toBe(12);
    expect(await codeOf(ledger.deliver(account, ['late']))).toBe('STORE_CORRUPT');
    const { uidNext } = mailboxOf(account, 'INBOX');
    await account.close();
    const repaired = await expectRepaired({ messages: 0, slots: 1 });
    expect(mailboxOf(repaired, 'INBOX').uidNext).toBeGreaterThan(uidNext + 1_000_000);
  });

  // In a bucket, slots lie in the head and in segments, which are written as one.
  if (engine === 'posix') {
    it('in a slot whose blocks were never written: what was in it is missed', async () => {
      const last = (await place.names()).filter((name) => name.includes('/log/')).at(-2) as string;
      await place.change(last, (bytes) => Buffer.alloc(bytes.length));
      const account = await place.store.open(uuid, opening('back1'));
      expect(account.isReadOnly).toBe(true);
      await account.close();
      await (await expectRepaired({ messages: 0, slots: 1 })).close();
    });

    it('in the first slot: INBOX is there all the same', async () => {
      for (const name of await place.names()) if (name.includes('/snap/')) await place.remove(name);
      const first = (await place.names()).find((name) => name.includes('/log/')) as string;
      await place.change(first, () => Buffer.alloc(0));
      const account = await place.store.open(uuid, opening('back1'));
      expect(account.isReadOnly).toBe(true);
      expect([...mailboxOf(account, 'INBOX').uids()]).toHaveLength(ledger.acknowledged.size);
      expect(await readAll(account)).toBe(0);
      await account.close();
      await (await expectRepaired({ messages: 0, slots: 1 })).close();
    });
  }

  if (engine === 's3') {
    it.each([0, 30])(
      'in a head of which nothing is left but %i octets: listed, not opened, and whole again when it is put back',
      async (left) => {
        const head = `accounts/${uuid}/head`;
        let saved: Buffer = Buffer.alloc(0);
        await place.change(head, (bytes) => {
          saved = bytes;
          return bytes.subarray(0, left);
        });
        const { store } = place;
        expect(await codeOf(store.checkAccount(uuid, { isMarking: true }))).toBe('STORE_CORRUPT');
        expect(await store.damageOf(uuid)).toMatchObject({ foundBy: 'check', findings: [{ file: `accounts/${uuid}` }] });
        expect(await codeOf(store.open(uuid, opening('back1')))).toBe('STORE_CORRUPT');
        expect(await codeOf(store.repair(uuid, { opening: opening('back1'), discardLost: true, isDryRun: false }))).toBe('STORE_CORRUPT');
        expect(await store.damageOf(uuid)).toMatchObject({ foundBy: 'check' });
        await place.change(head, () => saved);
        expect((await store.repair(uuid, { opening: opening('back1'), discardLost: false, isDryRun: false })).outcome).toBe('whole');
        const account = await store.open(uuid, opening('back1'));
        expect(account.isReadOnly).toBe(false);
        expect(await ledger.violations(account)).toEqual([]);
        await account.close();
      },
    );
  }

  it('in a header whose records are whole: nothing is lost by the repair', async () => {
    const slot = (await place.names()).filter((each) => each.includes('/log/')).at(-1) as string;
    await place.change(engine === 'posix' ? slot : `accounts/${uuid}/head`, (bytes) => {
      const at = engine === 'posix' ? 30 : 40;
      bytes[at] = (bytes[at] as number) ^ 1;
      return bytes;
    });
    const account = await place.store.open(uuid, opening('back1'));
    expect(account.isReadOnly).toBe(true);
    expect(await ledger.violations(account)).toEqual([]);
    await account.close();
    expect(await ledger.violations(await expectRepaired({ messages: 0, slots: 0 }))).toEqual([]);
  });

  it.each(engine === 'posix' ? (['snap', 'log'] as const) : (['snap', 'head'] as const))(
    'is not what a newer release wrote (%s): nothing is opened, noted or repaired, and that release finds it as it was',
    async (part) => {
      // Where each kind of file has the checksum of its header, which is over all before it.
      const checksumAt = { snap: 36, log: 60, head: 20 }[part];
      const changed = (await place.names()).filter((name) => name.includes(`/${part}`)).slice(-1);
      expect(changed).toHaveLength(1);
      for (const name of changed) {
        await place.change(name, (bytes) => {
          bytes.writeUInt16LE(bytes.readUInt16LE(4) + 100, 4);
          bytes.writeUInt32LE(crc32(bytes.subarray(0, checksumAt)), checksumAt);
          return bytes;
        });
      }
      const { store } = place;
      expect(await codeOf(store.open(uuid, opening('back1')))).toBe('STORE_NEWER');
      expect(await codeOf(store.checkAccount(uuid, { isMarking: true }))).toBe('STORE_NEWER');
      expect(await codeOf(store.repair(uuid, { opening: opening('back1'), discardLost: true, isDryRun: false }))).toBe('STORE_NEWER');
      expect(await store.damageOf(uuid)).toBeUndefined();
      for (const name of changed) {
        await place.change(name, (bytes) => {
          bytes.writeUInt16LE(bytes.readUInt16LE(4) - 100, 4);
          bytes.writeUInt32LE(crc32(bytes.subarray(0, checksumAt)), checksumAt);
          return bytes;
        });
      }
      const account = await store.open(uuid, opening('back2'));
      expect(account.isReadOnly).toBe(false);
      expect(await ledger.violations(account)).toEqual([]);
      await account.close();
    },
  );

  it('is not touched by anybody else while it is being repaired', async () => {
    const name = (await place.names()).find((each) => each.includes('/body/f')) as string;
    await place.change(name, flipLate);
    const repairing = place.store.repair(uuid, { opening: opening('back1'), discardLost: true, isDryRun: false });
    while ((await place.store.damageOf(uuid))?.repairingUntilMs === undefined) await new Promise((resolve) => setImmediate(resolve));
    const code = await codeOf(place.store.open(uuid, opening('back2')));
    // Either it waits, or the repair was faster than this test.
    expect(['STORE_UNAVAILABLE', 'no failure']).toContain(code);
    expect((await repairing).outcome).toBe('repaired');
  });

  it('lists accounts page by page, and gives a removed account’s mail to another', async () => {
    const seen = async (after: string): Promise<AccountUuid[]> => {
      const found: AccountUuid[] = [];
      for await (const one of place.store.accounts(after)) found.push(one);
      return found;
    };
    expect(await seen('')).toEqual([uuid, neighbour]);
    expect(await seen(uuid)).toEqual([neighbour]);
    const heir = parseAccountUuid('12345678-2222-4333-8444-555555555555');
    expect(await codeOf(place.store.adopt(uuid, heir))).toBe('ACCT_NOT_FOUND');
    const stale = await place.store.open(uuid, opening('back1'));
    await place.store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 1 });
    await place.store.adopt(uuid, heir);
    expect(await place.store.state(uuid)).toBe('absent');
    expect(await codeOf(ledger.deliver(stale, ['late']))).toBe('CLUSTER_DEPOSED');
    const account = await place.store.open(heir, opening('back2'));
    expect(mailboxOf(account, 'INBOX').messageCount).toBe(13);
    expect(await readAll(account)).toBe(0);
    expect(await seen('')).toEqual([heir, neighbour]);
  });
});
