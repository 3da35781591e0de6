/** Histories of one account in a bucket, under faults drawn by lot; and what is left behind and what rots. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { openNodeExchange } from '#common/http/node-exchange.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { type S3Fault, S3Server } from '#test/fakes/s3-server.ts';
import { storeIn } from '#test/fakes/s3-store.ts';
import { Ledger, opening, openPatiently, uuid } from '../ledger.ts';

let undo: AsyncDisposableStack;
let server: S3Server;
beforeEach(async () => {
  undo = new AsyncDisposableStack();
  server = undo.use(await S3Server.start());
});
afterEach(() => undo.disposeAsync());

const openStore = (): AccountStore =>
  storeIn(server, undo.use(openNodeExchange({ clock: systemClock })), { snapshotRecords: 4, snapshotAtCloseSlots: 2 });

const faults: readonly S3Fault[] = [
  { kind: 'no-reply' },
  { kind: 'happens-but-no-reply' },
  { kind: 'held' },
  { kind: 'answers', status: 500, code: 'InternalError' },
  { kind: 'answers', status: 503, code: 'SlowDown' },
];

/** Two members contend for the account while one request in eight fails; what was held back arrives now and then. */
async function contend(seed: number): Promise<string[]> {
  const random = seededRandom(seed);
  const ledger = new Ledger();
  server.decide = ({ method }) => {
    if (random.integer(20) === 0) server.release();
    if (random.integer(8) !== 0) return undefined;
    const fault = faults[random.integer(faults.length)] as S3Fault;
    return fault.kind === 'held' && method !== 'PUT' ? undefined : fault;
  };
  const member = async (name: string): Promise<void> => {
    const store = openStore();
    for (let round = 0; round < 4; round += 1) {
      try {
        const account = await store.open(uuid, opening(name));
        for (let i = 0; i < 4; i += 1) await ledger.deliver(account, [`${name}-${round}-${i}`], i === 2 ? 40_000 : 200);
        await account.close();
      } catch (error) {
        if (!(error instanceof PlatformError) || !['CLUSTER_DEPOSED', 'STORE_UNAVAILABLE'].includes(error.code)) throw error;
      }
    }
  };
  await Promise.all([member('back1'), member('back2')]);
  server.decide = () => undefined;
  const store = openStore();
  const account = await openPatiently(store, 'back3');
  server.release();
  // What arrived late may have been an opening: then this owner is deposed, and nothing of it was promised.
  await ledger.deliver(account, ['last']).catch(() => {});
  const last = await openPatiently(store, 'back4');
  const found = await ledger.violations(last);
  if (last.isReadOnly) found.push('the account is read-only');
  found.push(...(await store.checkAccount(uuid)).findings.map(({ file, problem }) => `${file}: ${problem}`));
  return found;
}

describe('an account in a bucket', () => {
  it('breaks no promise, whatever fails', async () => {
    for (let seed = 1; seed <= 8; seed += 1) {
      server.objects.clear();
      expect({ seed, violations: await contend(seed) }).toEqual({ seed, violations: [] });
    }
  }, 60_000);

  it('breaks promises on a server that ignores conditions, which this suite must find', async () => {
    server.behaviour = { ignoresConditions: true };
    let broken = 0;
    for (let seed = 1; seed <= 6 && broken === 0; seed += 1) {
      server.objects.clear();
      const violations = await contend(seed).catch((error: unknown) => [String(error)]);
      if (violations.length > 0) broken += 1;
    }
    expect(broken).toBe(1);
  }, 60_000);

  it('is rid of what a dead member left unnamed, and keeps what is named', async () => {
    const ledger = new Ledger();
    const first = await openStore().open(uuid, opening('back1'));
    await ledger.deliver(first, ['one'], 90_000);
    const root = `west/accounts/${uuid}`;
    const left = { body: Buffer.from('left by a member that died'), etag: '"x"' };
    server.objects.set(`${root}/log/1-99-0badcafe`, left);
    server.objects.set(`${root}/snap/000000000007-1-98-0badcafe`, left);
    // Of an opening that is yet to come: whoever writes it may still name it.
    server.objects.set(`${root}/log/9-1-0badcafe`, left);
    const second = await openStore().open(uuid, opening('back2'));
    for (let i = 0; i < 6; i += 1) await ledger.deliver(second, [`m${i}`]);
    await second.close();
    expect(server.keys('0badcafe')).toEqual([`${root}/log/9-1-0badcafe`]);
    expect(await ledger.violations(await openStore().open(uuid, opening('back3')))).toEqual([]);
  });

  it('is read-only when a segment or its head rots, and refused with the name of the object when nothing can be made of the head', async () => {
    const ledger = new Ledger();
    const account = await openStore().open(uuid, opening('back1'));
    await ledger.deliver(account, ['one'], 90_000);
    const flip = (at: number) => (body: Buffer) => {
      body[at] = (body[at] as number) ^ 0x10;
      return body;
    };
    const segment = server.keys(`accounts/${uuid}/log/`)[0] as string;
    server.damage(segment, flip(70));
    const damaged = await openStore().open(uuid, opening('back2'));
    expect(damaged.isReadOnly).toBe(true);
    const { findings } = await openStore().checkAccount(uuid);
    expect(findings.map(({ file }) => file).join()).toContain(segment.slice('west/'.length));
    const headObject = `west/accounts/${uuid}/head`;
    server.damage(headObject, flip(30));
    expect((await openStore().open(uuid, opening('back3'))).isReadOnly).toBe(true);
    expect((await openStore().checkAccount(uuid)).findings.map(({ file }) => file)).toContain(`accounts/${uuid}/head`);
    server.damage(headObject, (body) => body.subarray(0, 60));
    await expect(openStore().open(uuid, opening('back3'))).rejects.toThrow(/accounts\/.*\/head fails its checksum/);
  });
});
