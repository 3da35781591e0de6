/** One suite over every storage engine: what the account store promises, whatever the members share. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { systemClock } from '#common/clock.ts';
import type { Files } from '#common/files/files.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseMemberName } from '#common/host-server.ts';
import { openNodeExchange } from '#common/http/node-exchange.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { type MemoryClient, MemoryDisk } from '#test/fakes/memory-files.ts';
import { type S3Behaviour, S3Server } from '#test/fakes/s3-server.ts';
import { storeIn } from '#test/fakes/s3-store.ts';
import { codeOf, Ledger, mailboxOf, opening, openPatiently, turn, uuid } from '#test/unit/backend-cluster/storage/ledger.ts';

/** What becomes of the next commit, on an engine that can be made to fail. */
type CommitFault = 'reply lost' | 'full' | 'arrives late';

interface Engine {
  /** A member's door to the storage. */
  open(): Promise<AccountStore>;
  /** From now on commits meet this, until `heal`; a late one arrives then. Missing where the storage is a real disk. */
  readonly faults?: { cause(fault: CommitFault): void; heal(): void; isHolding(): boolean };
  /** Names of what is stored for the account. */
  stored(): Promise<string[]>;
}

const tuning = { snapshotRecords: 4, snapshotAtCloseSlots: 2 };

function onFiles(files: () => Files, root: string): Promise<AccountStore> {
  const ports = { clock: systemClock, random: systemRandom, log: silentLogger, metrics: createMetrics() };
  return openAccountStore({ root, files: files(), ...ports, tuning });
}

async function memoryEngine(): Promise<Engine> {
  const disk = new MemoryDisk();
  let fault: CommitFault | undefined;
  const clients: MemoryClient[] = [];
  const files = (): Files => {
    const client = disk.client(({ name, target }) => {
      if (fault === undefined || name !== 'link' || target?.includes('/log/') !== true) return undefined;
      if (fault === 'full') return { kind: 'fails', code: 'ENOSPC' };
      // A file system whose own repetition finds that the first try got through.
      return fault === 'reply lost' ? { kind: 'happens-but-fails', code: 'EEXIST' } : { kind: 'held' };
    });
    clients.push(client);
    return client;
  };
  return {
    open: () => onFiles(files, '/store'),
    stored: async () => disk.paths().filter((path) => path.includes(uuid)),
    faults: {
      cause: (next) => {
        fault = next;
      },
      heal: () => {
        fault = undefined;
        for (const client of clients) client.release();
      },
      isHolding: () => clients.some(({ isStuck }) => isStuck),
    },
  };
}

async function diskEngine(undo: AsyncDisposableStack): Promise<Engine> {
  const root = await mkdtemp(join(tmpdir(), 'archipelago-storage-'));
  undo.defer(() => rm(root, { recursive: true, force: true }));
  return {
    open: () => onFiles(() => nodeFiles, root),
    async stored() {
      const at = join(root, 'accounts', uuid.slice(0, 2), uuid.slice(2, 4));
      return (await nodeFiles.size(at)) === undefined ? [] : nodeFiles.list(at);
    },
  };
}

function s3Engine(behaviour: S3Behaviour) {
  return async (undo: AsyncDisposableStack): Promise<Engine> => {
    const server = undo.use(await S3Server.start(behaviour));
    return {
      async open() {
        const store = storeIn(server, undo.use(openNodeExchange({ clock: systemClock })), tuning);
        // It finds out how this server wants its ETags.
        await store.probe();
        return store;
      },
      stored: async () => server.keys(`accounts/${uuid}`),
      faults: {
        cause(fault) {
          let isFirst = true;
          server.decide = ({ method, key, isConditional }) => {
            if (method !== 'PUT' || !isConditional || !key.includes(uuid)) return undefined;
            if (fault === 'full') return { kind: 'answers', status: 403, code: 'QuotaExceeded' };
            if (fault === 'arrives late') return { kind: 'held' };
            if (!isFirst) return undefined;
            isFirst = false;
            return { kind: 'happens-but-no-reply' };
          };
        },
        heal() {
          server.decide = () => undefined;
          server.release();
        },
        isHolding: () => server.heldCount > 0,
      },
    };
  };
}

const engines: Record<string, (undo: AsyncDisposableStack) => Promise<Engine>> = {
  'posix, on a disk in memory': memoryEngine,
  'posix, on this machine’s disk': diskEngine,
  's3, as the standard has it': s3Engine({}),
  's3, as radosgw has it': s3Engine({ wantsBareEtags: true, lostStatus: 500 }),
  's3, answering 409 to losers': s3Engine({ lostStatus: 409 }),
};
const withFaults = Object.keys(engines).filter((name) => !name.includes('this machine'));

const back1 = { member: parseMemberName('back1.west.isp.example'), incarnation: 'a' };
const back2 = { member: parseMemberName('back2.west.isp.example'), incarnation: 'b' };

let undo: AsyncDisposableStack;
beforeEach(() => {
  undo = new AsyncDisposableStack();
});
afterEach(() => undo.disposeAsync());

const start = (name: string): Promise<Engine> => (engines[name] as (typeof engines)[string])(undo);

describe.each(Object.keys(engines))('storage engine %s', (name) => {
  let engine: Engine;
  let store: AccountStore;
  let other: AccountStore;
  beforeEach(async () => {
    engine = await start(name);
    store = await engine.open();
    other = await engine.open();
  });

  it('passes its probe and leaves nothing of it behind', async () => {
    const { checks } = await store.probe();
    expect(checks.length).toBeGreaterThan(7);
    expect(await engine.stored()).toEqual([]);
    expect(await store.state(uuid)).toBe('absent');
  });

  it('keeps what was acknowledged over closings and openings, in groups and large messages too', async () => {
    const ledger = new Ledger();
    for (let round = 0; round < 3; round += 1) {
      const account = await (round % 2 === 0 ? store : other).open(uuid, opening('back1'));
      expect(await ledger.violations(account)).toEqual([]);
      await ledger.deliver(account, [`one-${round}`]);
      await ledger.deliver(account, [`a-${round}`, `b-${round}`, `c-${round}`]);
      await ledger.deliver(account, [`large-${round}`], 270_000);
      await ledger.deliver(account, [`medium-${round}`], 90_000);
      await ledger.remove(account, `b-${round}`);
      expect(await ledger.violations(account)).toEqual([]);
      await account.close();
    }
    const account = await other.open(uuid, opening('back2'));
    expect(account.epoch).toBe(4);
    expect(account.isReadOnly).toBe(false);
    expect(await ledger.violations(account)).toEqual([]);
    expect((await store.checkAccount(uuid)).findings).toEqual([]);
  });

  it('takes many changes of one account at once', async () => {
    const account = await store.open(uuid, opening('back1'));
    const ledger = new Ledger();
    await ledger.deliver(
      account,
      Array.from({ length: 120 }, (_, i) => `m${i}`),
      2_000,
    );
    await account.close();
    const again = await other.open(uuid, opening('back2'));
    expect(mailboxOf(again, 'INBOX').messageCount).toBe(120);
    expect(await ledger.violations(again)).toEqual([]);
  });

  it('deposes the owner whom another one overtakes, and the same delivery is stored once', async () => {
    const ledger = new Ledger();
    const sleeper = await store.open(uuid, opening('back1'));
    await ledger.deliver(sleeper, ['one']);
    const owner = await other.open(uuid, opening('back2'));
    await ledger.deliver(owner, ['two']);
    expect(await codeOf(ledger.deliver(sleeper, ['three']))).toBe('CLUSTER_DEPOSED');
    expect(sleeper.isOpen).toBe(false);
    await sleeper.close();
    await ledger.deliver(owner, ['one', 'three']);
    expect(await ledger.violations(owner)).toEqual([]);
    expect(owner.isOpen).toBe(true);
  });

  it('tells an owner whom another one overtook, before it writes anything', async () => {
    const ledger = new Ledger();
    const sleeper = await store.open(uuid, opening('back1'));
    await ledger.deliver(sleeper, ['one']);
    expect(await sleeper.checkHeld()).toBe(true);
    await ledger.deliver(sleeper, ['two']);
    const owner = await other.open(uuid, opening('back2'));
    expect(await sleeper.checkHeld()).toBe(false);
    expect(sleeper.isOpen).toBe(false);
    expect(await owner.checkHeld()).toBe(true);
    await ledger.deliver(owner, ['three']);
    expect(await ledger.violations(owner)).toEqual([]);
  });

  it('does not let a sleeper write into numbers that compaction freed', async () => {
    const ledger = new Ledger();
    const sleeper = await store.open(uuid, opening('back1'));
    await ledger.deliver(sleeper, ['one']);
    const owner = await other.open(uuid, opening('back2'));
    for (let i = 0; i < 20; i += 1) await ledger.deliver(owner, [`m${i}`]);
    await owner.close();
    expect(await codeOf(ledger.deliver(sleeper, ['late']))).toBe('CLUSTER_DEPOSED');
    const last = await store.open(uuid, opening('back3'));
    expect(await ledger.violations(last)).toEqual([]);
    expect(last.isReadOnly).toBe(false);
  });

  it('has one owner when several open at the same time, and loses nothing', async () => {
    const ledger = new Ledger();
    const contend = async (door: AccountStore, member: string): Promise<void> => {
      for (let round = 0; round < 4; round += 1) {
        const code = await codeOf(
          door.open(uuid, opening(member)).then(async (account) => {
            for (let i = 0; i < 3; i += 1) await ledger.deliver(account, [`${member}-${round}-${i}`]);
          }),
        );
        expect(['no failure', 'CLUSTER_DEPOSED']).toContain(code);
      }
    };
    await Promise.all([contend(store, 'back1'), contend(other, 'back2'), contend(await engine.open(), 'back3')]);
    const account = await openPatiently(store, 'back4');
    expect(await ledger.violations(account)).toEqual([]);
    expect(account.isReadOnly).toBe(false);
  });

  it('keeps its log short, with the bodies that are wanted and without the others', async () => {
    const ledger = new Ledger();
    const account = await store.open(uuid, opening('back1'));
    for (let i = 0; i < 30; i += 1) await ledger.deliver(account, [`m${i}`], i % 10 === 0 ? 280_000 : 9_000);
    for (let i = 0; i < 25; i += 1) await ledger.remove(account, `m${i}`);
    await account.close();
    const again = await other.open(uuid, opening('back2'));
    await ledger.deliver(again, ['x']);
    await ledger.deliver(again, ['y']);
    await again.close();
    const check = await store.checkAccount(uuid);
    expect(check.findings).toEqual([]);
    expect(check.slots).toBeLessThan(16);
    expect(check.snapshots).toBeLessThanOrEqual(2);
    expect((await engine.stored()).length).toBeLessThan(35);
    expect(await ledger.violations(await store.open(uuid, opening('back3')))).toEqual([]);
  });

  it('checks an account while it is in use, and says when there is none', async () => {
    expect(await codeOf(store.checkAccount(uuid))).toBe('ACCT_NOT_FOUND');
    const ledger = new Ledger();
    const account = await store.open(uuid, opening('back1'));
    await ledger.deliver(account, ['one', 'two']);
    const check = await other.checkAccount(uuid);
    expect(check).toMatchObject({ epoch: 1, messages: 2, bodies: 2, findings: [] });
    await ledger.deliver(account, ['three']);
    expect(account.isOpen).toBe(true);
  });

  it('entombs, restores and purges an account', async () => {
    const ledger = new Ledger();
    const owner = await store.open(uuid, opening('back1'));
    await ledger.deliver(owner, ['one']);
    await other.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 1234 });
    expect(await codeOf(ledger.deliver(owner, ['two']))).toBe('CLUSTER_DEPOSED');
    expect(await store.state(uuid)).toBe('tombstone');
    expect(await codeOf(store.open(uuid, opening('back1')))).toBe('ACCT_REMOVED');
    await store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 9999 });
    expect(await store.listTombstones()).toEqual([{ uuid, name: 'alice@isp.example', removedAtMs: 1234 }]);
    await store.restore(uuid);
    expect(await ledger.violations(await other.open(uuid, opening('back2')))).toEqual([]);
    expect(await codeOf(store.purge(uuid))).toBe('ACCT_EXISTS');
    await store.entomb(uuid, { name: 'alice@isp.example', removedAtMs: 5678 });
    await store.purge(uuid);
    expect(await other.state(uuid)).toBe('absent');
    expect(await other.listTombstones()).toEqual([]);
    expect(await engine.stored()).toEqual([]);
  });

  it('gives a term to one claimant, for ever', async () => {
    expect(await store.highestTerm()).toBe(0);
    const answers = await Promise.all([store.claimTerm(1, back1), other.claimTerm(1, back2)]);
    expect(answers.filter((isClaimed) => isClaimed)).toHaveLength(1);
    const [owner, loser] = answers[0] === true ? [back1, back2] : [back2, back1];
    expect(await other.readTerm(1)).toEqual(owner);
    expect(await store.claimTerm(1, owner)).toBe(true);
    expect(await other.claimTerm(1, loser)).toBe(false);
    for (const term of [2, 3, 4, 5, 6, 17]) expect(await other.claimTerm(term, back2)).toBe(true);
    expect(await store.highestTerm()).toBe(17);
    expect(await store.readTerm(16)).toBeUndefined();
  });

  it('stores intents whole, creates them once, replaces and removes them', async () => {
    await store.intents.put('b', { step: 1 });
    await other.intents.put('b', { step: 2, text: 'ü' });
    const answers = await Promise.all([store.intents.create('a', 1), other.intents.create('a', 1)]);
    expect(answers.filter((isCreated) => isCreated)).toHaveLength(1);
    expect(await store.intents.list()).toEqual([
      { id: 'a', value: 1 },
      { id: 'b', value: { step: 2, text: 'ü' } },
    ]);
    await store.intents.remove('a');
    await store.intents.remove('never');
    expect((await other.intents.list()).map(({ id }) => id)).toEqual(['b']);
    expect(await other.intents.create('a', 2)).toBe(true);
  });
});

describe.each(withFaults)('storage engine %s, when it fails', (name) => {
  let engine: Engine;
  let store: AccountStore;
  let ledger: Ledger;
  beforeEach(async () => {
    engine = await start(name);
    store = await engine.open();
    ledger = new Ledger();
  });

  it('knows its own commit again when the answer was lost', async () => {
    const account = await store.open(uuid, opening('back1'));
    engine.faults?.cause('reply lost');
    await ledger.deliver(account, ['one']);
    engine.faults?.heal();
    await ledger.deliver(account, ['two']);
    expect(account.isOpen).toBe(true);
    expect(await ledger.violations(account)).toEqual([]);
    expect(await ledger.violations(await store.open(uuid, opening('back2')))).toEqual([]);
  });

  it('refuses changes while it is full, stays open, and goes on when there is room', async () => {
    const account = await store.open(uuid, opening('back1'));
    await ledger.deliver(account, ['one']);
    engine.faults?.cause('full');
    expect(await codeOf(ledger.deliver(account, ['two']))).toBe('STORE_FULL');
    expect(account.isOpen).toBe(true);
    engine.faults?.heal();
    await ledger.deliver(account, ['two', 'three']);
    expect(await ledger.violations(account)).toEqual([]);
    expect(await ledger.violations(await store.open(uuid, opening('back2')))).toEqual([]);
  });

  it('is not surprised by a commit that arrives after its owner was replaced', async () => {
    const account = await store.open(uuid, opening('back1'));
    await ledger.deliver(account, ['one']);
    engine.faults?.cause('arrives late');
    const late = codeOf(ledger.deliver(account, ['late']));
    while (engine.faults?.isHolding() !== true) await turn();
    if (name.startsWith('s3')) {
      // It repeats its question until it gives up, and never guesses.
      expect(await late).toBe('STORE_UNAVAILABLE');
      expect(account.isOpen).toBe(false);
    }
    // What was held stays held while the next owner works.
    const next = await takeOver(engine);
    await ledger.deliver(next, ['late', 'two']);
    engine.faults?.heal();
    if (!name.startsWith('s3')) expect(await late).toBe('CLUSTER_DEPOSED');
    await ledger.deliver(next, ['three']);
    expect(await ledger.violations(next)).toEqual([]);
    expect(await ledger.violations(await store.open(uuid, opening('back3')))).toEqual([]);
  }, 30_000);
});

/** Opens as another member whose own requests go through, while the held ones of the first stay held. */
async function takeOver(engine: Engine): ReturnType<AccountStore['open']> {
  engine.faults?.cause('reply lost');
  return (await engine.open()).open(uuid, opening('back2'));
}
