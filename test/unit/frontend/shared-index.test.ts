/** The route index in memory that other processes read. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AccountName, parseAccountName } from '#common/account-name.ts';
import { type ClusterName, parseClusterName } from '#common/host-server.ts';
import { RouteIndex } from '#frontend/routing/route-index.ts';
import { SharedIndexMemory, SharedIndexReader, sharedFactsOf } from '#frontend/routing/shared-index.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { west } from './fakes.ts';

const east = parseClusterName('east.isp.example');
const name = (text: string): AccountName => parseAccountName(`${text}@isp.example`);

function shared(seed = 1, bytes?: number): { readonly index: RouteIndex; readonly memory: SharedIndexMemory; reader(): SharedIndexReader } {
  const memory = SharedIndexMemory.create(bytes);
  if (memory === undefined) throw new Error('no memory can be shared here');
  const index = new RouteIndex(seededRandom(seed), undefined, memory);
  const reader = (): SharedIndexReader => SharedIndexReader.open(memory.fd, memory.bytes, sharedFactsOf(index)) as SharedIndexReader;
  return { index, memory, reader };
}

describe('a route index in shared memory', () => {
  it('is read as it is, through changes, removals, refreshes and growth', () => {
    const step = fc.record({
      kind: fc.constantFrom('put', 'put', 'put', 'remove', 'refresh'),
      address: fc.nat(900),
      cluster: fc.constantFrom<ClusterName | undefined>(west, east, undefined),
      kept: fc.nat(9),
    });
    fc.assert(
      fc.property(fc.nat(), fc.array(step, { minLength: 200, maxLength: 800 }), (seed, steps) => {
        const { index, reader } = shared(seed);
        index.put(west, [name('first')]);
        index.put(east, [name('second')]);
        const early = reader();
        for (const { kind, address, cluster, kept } of steps) {
          if (kind === 'put') index.put(cluster, [name(`u${address}`), name(`also.${address}`)]);
          else if (kind === 'remove') index.remove(name(`u${address}`));
          else {
            index.beginRefresh();
            for (let known = 0; known <= 900; known += 1) if (known % 10 >= kept) index.put(cluster, [name(`u${known}`)]);
            index.endRefresh();
            while (index.sweepStep());
          }
        }
        const late = reader();
        for (let address = 0; address <= 900; address += 1) {
          for (const one of [name(`u${address}`), name(`also.${address}`)]) {
            expect([early.find(one), late.find(one)]).toEqual([index.find(one), index.find(one)]);
          }
        }
      }),
      { numRuns: 20 },
    );
  });

  it('is found by one who opened it when it was small', () => {
    const { index, reader } = shared();
    index.put(west, [name('u0')]);
    index.put(east, [name('u1')]);
    const early = reader();
    for (let i = 0; i < 200_000; i += 1) index.put(i % 2 === 0 ? west : east, [name(`u${i}`)]);
    expect(index.image().segments.length).toBeGreaterThan(8);
    for (let i = 0; i < 200_000; i += 97) expect(early.find(name(`u${i}`))).toEqual({ cluster: i % 2 === 0 ? west : east, isName: true });
    expect(early.find(name('nobody'))).toBeUndefined();
  });

  it('goes on from a snapshot, and keeps what a snapshot is made of while it is written', () => {
    const { index } = shared();
    for (let i = 0; i < 30_000; i += 1) index.put(west, [name(`u${i}`)]);
    const image = index.image();
    for (let i = 30_000; i < 60_000; i += 1) index.put(west, [name(`u${i}`)]);
    const memory = SharedIndexMemory.create() as SharedIndexMemory;
    const again = new RouteIndex(seededRandom(2), image, memory);
    image[Symbol.dispose]();
    const reader = SharedIndexReader.open(memory.fd, memory.bytes, sharedFactsOf(again)) as SharedIndexReader;
    for (let i = 0; i < 30_000; i += 7) expect(reader.find(name(`u${i}`))).toEqual({ cluster: west, isName: true });
    expect(reader.find(name('nobody'))).toBeUndefined();
  });

  it('gives back what it has outgrown once no snapshot needs it', () => {
    const { index, memory } = shared();
    for (let i = 0; i < 20_000; i += 1) index.put(west, [name(`u${i}`)]);
    const image = index.image();
    const kept = image.segments.map((one) => one.memory);
    for (let i = 20_000; i < 60_000; i += 1) index.put(west, [name(`u${i}`)]);
    expect(kept.every((one) => one.some((byte) => byte !== 0))).toBe(true);
    image[Symbol.dispose]();
    expect(kept.every((one) => one.every((byte) => byte === 0))).toBe(true);
    expect(memory.bytesUsed).toBeLessThan(index.bytes * 1.2 + 200_000);
  });

  it('says that it is unsure while something changes, and of a cluster that is new', () => {
    const { index, memory, reader } = shared();
    index.put(west, [name('one')]);
    const early = reader();
    memory.changing();
    expect(early.find(name('one'))).toBe('unsure');
    memory.changed();
    expect(early.find(name('one'))).toEqual({ cluster: west, isName: true });
    index.put(east, [name('two')]);
    expect([early.clusterCount, early.find(name('two'))]).toEqual([1, 'unsure']);
    early.setClusters(index.clusters);
    expect([early.clusterCount, early.find(name('two'))]).toEqual([2, { cluster: east, isName: true }]);
    index.put(undefined, [name('three')]);
    expect(early.find(name('three'))).toEqual({ cluster: undefined, isName: true });
  });

  it('goes on in memory of its own when all was used, and readers are unsure of that', () => {
    const { index, reader } = shared(1, 9_000_000);
    index.put(west, [name('first')]);
    const early = reader();
    for (let i = 0; i < 100_000; i += 1) index.put(west, [name(`u${i}`)]);
    const answers = Array.from({ length: 1_000 }, (_, i) => early.find(name(`u${i * 97}`)));
    expect(answers.filter((answer) => answer === 'unsure').length).toBeGreaterThan(0);
    for (const [i, answer] of answers.entries()) {
      expect(index.find(name(`u${i * 97}`))).toEqual({ cluster: west, isName: true });
      if (answer !== 'unsure') expect(answer).toEqual({ cluster: west, isName: true });
    }
  });

  it('is never read wrongly by another process while it changes, grows and shrinks', async () => {
    const { index, memory } = shared(3);
    const steady = 20_000;
    index.put(west, [name('first')]);
    index.put(east, [name('second')]);
    for (let i = 0; i < steady; i += 1) index.put(i % 2 === 0 ? west : east, [name(`user${i}`)]);
    const script = new URL('./shared-index-process.ts', import.meta.url).pathname;
    const args = [
      '--disable-warning=ExperimentalWarning',
      script,
      JSON.stringify({ ...sharedFactsOf(index), bytes: memory.bytes }),
      '400000',
      String(steady),
    ];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', 'ignore', memory.fd] });
    const exited = once(child, 'exit');
    const lines: string[] = [];
    const reads = Promise.withResolvers<void>();
    createInterface(child.stdout as Readable).on('line', (line) => {
      lines.push(line);
      reads.resolve();
    });
    await reads.promise;
    let changes = 0;
    while (child.exitCode === null && child.signalCode === null) {
      // Others come and go between the steady ones: entries are shifted, segments are copied, split and given back.
      for (let i = 0; i < 500; i += 1, changes += 1) {
        const number = changes % 120_000;
        if (changes % 240_000 < 120_000) index.put(changes % 3 === 0 ? west : east, [name(`other${number}`)]);
        else index.remove(name(`other${number}`));
      }
      await new Promise(setImmediate);
    }
    await exited;
    const counts = JSON.parse(lines.at(-1) as string);
    expect(counts).toMatchObject({ wrong: 0, missed: 0 });
    expect(counts.right).toBeGreaterThan(200_000);
    expect(changes).toBeGreaterThan(1_000);
  }, 60_000);
});
