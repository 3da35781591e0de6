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
import { openNodeExchange } from '#common/http/node-exchange.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { type MemoryClient, MemoryDisk } from '#test/fakes/memory-files.ts';
import { type S3Behaviour, S3Server } from '#test/fakes/s3-server.ts';
import { storeIn } from '#test/fakes/s3-store.ts';
import { codeOf, Ledger, opening, turn, uuid } from '#test/unit/backend-cluster/storage/ledger.ts';
import { type CommitFault, describeStorage, type Engine, tuning } from './storage-suite.ts';

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

let undo: AsyncDisposableStack;
beforeEach(() => {
  undo = new AsyncDisposableStack();
});
afterEach(() => undo.disposeAsync());

const start = (name: string): Promise<Engine> => (engines[name] as (typeof engines)[string])(undo);

for (const [name, start] of Object.entries(engines)) describeStorage(name, start);

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
