import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseAccountName } from '#common/account-name.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { SharedMemory } from '#common/shared-memory.ts';
import type { DirectoryChange, FollowedPosition } from '#directory/client/directory.ts';
import { RouteSnapshots } from '#frontend/routing/route-snapshot.ts';
import { Routes } from '#frontend/routing/routes.ts';
import { SharedIndexMemory, SharedIndexReader, sharedFactsOf } from '#frontend/routing/shared-index.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { account, cluster, domain, keepingLogger, subset, uuidOf } from './fakes.ts';

const urls = ['ldap://one', 'ldap://two'];
const position: FollowedPosition = {
  url: 'ldap://two',
  cookie: Buffer.from([0, 1, 255]),
  domainDns: [[uuidOf(1), 'cn=isp.example,o=mail']],
};

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'routes-'));
});
afterEach(() => rm(directory, { recursive: true }));

function snapshots(origin: { urls?: string[]; suffix?: string } = {}) {
  const { log, lines } = keepingLogger();
  const clock = new FakeClock();
  const made = new RouteSnapshots({
    directory,
    origin: { urls, suffix: 'o=mail', bindDn: 'cn=frontend', ...origin },
    files: nodeFiles,
    clock,
    log,
  });
  return { made, lines, clock };
}

function someRoutes(accounts: number): Routes {
  const routes = new Routes({ random: seededRandom(1), clock: new FakeClock() });
  const put = (record: Extract<DirectoryChange, { type: 'put' }>['record']): void => routes.apply({ type: 'put', record });
  put(domain(1, 'isp.example', ['alias.example']));
  put(cluster(2, 'west.isp.example', ['back1']));
  put(subset(3, 'eu', ['weight 50']));
  for (let i = 0; i < accounts; i += 1) put(account(10 + i, `u${i}@isp.example`, 'west.isp.example', [`a${i}@isp.example`]));
  return routes;
}

describe('a snapshot of routes', () => {
  it('gives back accounts, domains, clusters and position', async () => {
    const { made } = snapshots();
    const routes = someRoutes(30_000);
    await made.write(routes, position);
    const read = await made.read();
    expect(read?.position).toEqual(position);
    const again = new Routes({ random: seededRandom(2), clock: new FakeClock(), known: read });
    expect([again.index.accounts, again.index.addresses, again.isRefreshed]).toEqual([30_000, 60_000, true]);
    expect(again.find(parseAccountName('a29999@alias.example'))?.cluster).toBe('west.isp.example');
    expect(again.find(parseAccountName('nobody@isp.example'))).toBeUndefined();
    expect([...again.topology.clusters.keys()]).toEqual(['west.isp.example']);
    expect([...again.subsets]).toEqual([subset(3, 'eu', ['weight 50'])]);
  });

  it('is read into the memory of the index, which needs no second one', async () => {
    const { made } = snapshots();
    const routes = someRoutes(30_000);
    await made.write(routes, position);
    const memory = SharedIndexMemory.create() as SharedIndexMemory;
    const known = await made.read({ memory });
    const used = memory.bytesUsed;
    expect(used).toBeGreaterThanOrEqual(routes.index.bytes);
    const again = new Routes({ random: seededRandom(2), clock: new FakeClock(), known, memory });
    // What an index begins with.
    expect(memory.bytesUsed - used).toBeLessThanOrEqual(SharedMemory.roundUp(1));
    const reader = SharedIndexReader.open(memory.fd, memory.bytes, sharedFactsOf(again.index));
    expect(reader?.find(parseAccountName('u29999@isp.example'))).toEqual({ cluster: 'west.isp.example', isName: true });
  });

  it('leaves nothing in the memory of the index when it cannot be used', async () => {
    const { made, lines } = snapshots();
    await made.write(someRoutes(100), position);
    const file = join(directory, 'snapshot.json');
    const manifest = JSON.parse(await readFile(file, 'utf8')) as { parts: { crc: number }[] };
    const [part] = manifest.parts;
    await writeFile(file, JSON.stringify({ ...manifest, parts: [part, { ...part, crc: 0 }] }));
    const memory = SharedIndexMemory.create() as SharedIndexMemory;
    const free = vi.spyOn(memory, 'free');
    expect(await made.read({ memory })).toBeUndefined();
    expect([free.mock.calls.length, memory.bytesUsed, lines.length]).toEqual([1, 0, 1]);
  });

  it('replaces the one before and leaves nothing of it', async () => {
    const { made, clock } = snapshots();
    await made.write(someRoutes(10), position);
    clock.advance(1000);
    await made.write(someRoutes(20), position);
    expect((await readdir(directory)).length).toBe(2);
    const known = await made.read();
    expect(new Routes({ random: seededRandom(2), clock, known }).index.accounts).toBe(20);
  });

  it('that is missing is simply missing', async () => {
    const { made, lines } = snapshots();
    expect(await made.read()).toBeUndefined();
    expect(lines).toEqual([]);
  });

  it.each<[string, (name: string, content: Buffer) => Buffer | undefined, RegExp]>([
    ['with a flipped bit', (name, content) => (name.startsWith('part') ? flipped(content) : undefined), /damaged/],
    ['that is cut', (name, content) => (name.startsWith('part') ? content.subarray(0, content.length - 1) : undefined), /damaged/],
    ['whose list is cut', (name, content) => (name.endsWith('json') ? content.subarray(0, 40) : undefined), /JSON/],
    ['of another format', (name) => (name.endsWith('json') ? Buffer.from('{"format":99}') : undefined), /format/],
  ])('%s is not used, and that is logged', async (_what, damage, message) => {
    const { made, lines } = snapshots();
    await made.write(someRoutes(100), position);
    for (const name of await readdir(directory)) {
      const damaged = damage(name, await readFile(join(directory, name)));
      if (damaged !== undefined) await writeFile(join(directory, name), damaged);
    }
    expect(await made.read()).toBeUndefined();
    expect(lines.map((line) => line.message).join()).toMatch(message);
  });

  it('of a release that followed no subsets is used, and the directory read anew all the same', async () => {
    const { made } = snapshots();
    await made.write(someRoutes(3), position);
    const file = join(directory, 'snapshot.json');
    const { subsets, ...earlier } = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
    expect(subsets).toHaveLength(1);
    await writeFile(file, JSON.stringify(earlier));
    expect(await made.read()).toMatchObject({ subsets: [], position: { ...position, cookie: undefined } });
  });

  it('of another suffix, or of a server that is not this subset’s, is not used', async () => {
    await snapshots().made.write(someRoutes(3), position);
    expect(await snapshots({ suffix: 'o=other' }).made.read()).toBeUndefined();
    expect(await snapshots({ urls: ['ldap://one'] }).made.read()).toBeUndefined();
    expect(await snapshots().made.read()).toBeDefined();
  });
});

function flipped(content: Buffer): Buffer {
  const copy = Buffer.from(content);
  copy[100] = (copy[100] as number) ^ 1;
  return copy;
}
