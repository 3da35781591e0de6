import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AccountName, parseAccountName } from '#common/account-name.ts';
import { type ClusterName, parseClusterName } from '#common/host-server.ts';
import { AddressHash } from '#frontend/routing/address-hash.ts';
import { addressesPerAccountMax, RouteIndex } from '#frontend/routing/route-index.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { west } from './fakes.ts';

const east = parseClusterName('east.isp.example');
const name = (text: string): AccountName => parseAccountName(`${text}@isp.example`);

describe('the hash of addresses', () => {
  it('is SipHash-2-4, by its authors’ vectors', () => {
    const hash = new AddressHash(Uint8Array.from({ length: 16 }, (_, i) => i));
    const of = (length: number): string => {
      hash.updateBytes(
        Uint8Array.from({ length }, (_, i) => i),
        length,
      );
      return hash.high.toString(16).padStart(8, '0') + hash.low.toString(16).padStart(8, '0');
    };
    expect([of(0), of(1), of(8), of(15)]).toEqual(['726fdb47dd0e0e31', '74f839c593dc67fd', '93f5f5799a932462', 'a129ca6149be45e5']);
  });

  it('takes text beyond ASCII as UTF-8', () => {
    const [a, b] = [new AddressHash(new Uint8Array(16)), new AddressHash(new Uint8Array(16))];
    a.update('jürgen@isp.example');
    const bytes = Buffer.from('jürgen@isp.example');
    b.updateBytes(bytes, bytes.length);
    expect([a.low, a.high]).toEqual([b.low, b.high]);
  });
});

describe('the route index', () => {
  it('answers as a map does, through changes, removals, refreshes and growth', () => {
    const step = fc.record({
      kind: fc.constantFrom('put', 'put', 'put', 'remove', 'refresh', 'break-off'),
      address: fc.nat(900),
      cluster: fc.constantFrom<ClusterName | undefined>(west, east, undefined),
      kept: fc.nat(9),
    });
    fc.assert(
      fc.property(fc.nat(), fc.array(step, { minLength: 200, maxLength: 1200 }), (seed, steps) => {
        const index = new RouteIndex(seededRandom(seed));
        const model = new Map<number, ClusterName | undefined>();
        for (const { kind, address, cluster, kept } of steps) {
          if (kind === 'put') {
            index.put(cluster, [name(`u${address}`)]);
            model.set(address, cluster);
          } else if (kind === 'remove') {
            expect(index.remove(name(`u${address}`))).toBe(model.delete(address));
          } else {
            index.beginRefresh();
            const named = [...model].filter(([known]) => known % 10 >= kept);
            for (const [known, itsCluster] of named) index.put(itsCluster, [name(`u${known}`)]);
            expect(index.unnamed).toEqual({ gone: model.size - named.length, known: model.size });
            if (kind === 'break-off') continue;
            for (const [known] of model) if (known % 10 < kept) model.delete(known);
            index.endRefresh();
            while (index.sweepStep());
          }
          expect(index.addresses).toBe(model.size);
        }
        for (let address = 0; address <= 900; address += 1) {
          const found = index.find(name(`u${address}`));
          expect(found?.cluster).toBe(model.get(address));
          expect(found !== undefined).toBe(model.has(address));
        }
        expect(index.accounts).toBe(model.size);
      }),
      { numRuns: 40 },
    );
  });

  it('keeps every route while segments grow and split', () => {
    const index = new RouteIndex(seededRandom(1));
    const count = 120_000;
    for (let i = 0; i < count; i += 1) index.put(i % 2 === 0 ? west : east, [name(`u${i}`), name(`alias.${i}`)]);
    for (let i = 0; i < count; i += 1) {
      const cluster = i % 2 === 0 ? west : east;
      if (index.find(name(`u${i}`))?.cluster !== cluster || index.find(name(`alias.${i}`))?.cluster !== cluster) expect.fail(`lost ${i}`);
    }
    expect(index.find(name('nobody'))).toBeUndefined();
    expect([index.accounts, index.addresses]).toEqual([count, 2 * count]);
    expect(index.image().segments.length).toBeGreaterThan(8);
  });

  it('sweeps addresses that a whole refresh does not name, also while segments split', () => {
    const index = new RouteIndex(seededRandom(2));
    for (let i = 0; i < 60_000; i += 1) index.put(west, [name(`u${i}`)]);
    index.beginRefresh();
    for (let i = 0; i < 60_000; i += 3) index.put(east, [name(`u${i}`)]);
    expect(index.unnamed).toEqual({ gone: 40_000, known: 60_000 });
    index.endRefresh();
    for (let i = 0; index.sweepStep(); i += 1) for (let n = 0; n < 5000; n += 1) index.put(west, [name(`new.${i}.${n}`)]);
    expect([index.find(name('u1')), index.find(name('u3'))?.cluster, index.unnamed.gone]).toEqual([undefined, east, 0]);
  });

  it('does not sweep after a refresh that is not believed, and counts anew after one that broke off', () => {
    const index = new RouteIndex(seededRandom(3));
    for (const user of ['alice', 'bob', 'carol']) index.put(west, [name(user)]);
    index.beginRefresh();
    index.put(west, [name('alice')]);
    index.cancelRefresh();
    expect([index.unnamed.gone, index.sweepStep(), index.addresses]).toEqual([0, false, 3]);
    index.beginRefresh();
    index.put(west, [name('alice')]);
    index.beginRefresh();
    expect(index.unnamed).toEqual({ gone: 3, known: 3 });
  });

  it('leaves an address to the account whose name it is', () => {
    const index = new RouteIndex(seededRandom(4));
    index.put(west, [name('alice')]);
    index.put(east, [name('bob'), name('alice')]);
    expect([index.find(name('alice'))?.cluster, index.accounts, index.addresses]).toEqual([west, 2, 2]);
    expect(index.remove(name('bob'), true)).toBe(true);
    index.put(east, [name('x'), name('y')]);
    expect(index.remove(name('y'), true)).toBe(false);
  });

  it('moves an account to another cluster without a further byte', () => {
    const index = new RouteIndex(seededRandom(5));
    index.put(west, [name('alice'), name('x'), name('y'), name('x')]);
    const { bytes } = index;
    index.put(east, [name('alice'), name('x'), name('y')]);
    expect([index.find(name('y'))?.cluster, index.addresses, index.bytes]).toEqual([east, 3, bytes]);
  });

  it('holds a stated number of addresses for an account and leaves the rest to look-up', () => {
    const index = new RouteIndex(seededRandom(6));
    index.put(
      west,
      Array.from({ length: addressesPerAccountMax + 10 }, (_, i) => name(`a${i}`)),
    );
    expect(index.addresses).toBe(addressesPerAccountMax);
    expect(index.find(name(`a${addressesPerAccountMax}`))).toBeUndefined();
  });

  it('costs at most 14 bytes an account at any size from a few thousand on', () => {
    const index = new RouteIndex(seededRandom(7));
    for (let i = 0; i < 150_000; i += 1) {
      index.put(west, [name(`u${i}`)]);
      if (i > 5000 && i % 1000 === 0) expect(index.bytes / index.accounts).toBeLessThan(14);
    }
  });

  it('goes on from its image', () => {
    const index = new RouteIndex(seededRandom(8));
    for (let i = 0; i < 50_000; i += 1) index.put(i % 2 === 0 ? west : east, [name(`u${i}`)]);
    index.put(undefined, [name('homeless')]);
    const again = new RouteIndex(seededRandom(9), index.image());
    expect([again.accounts, again.addresses, again.bytes]).toEqual([index.accounts, index.addresses, index.bytes]);
    expect([again.find(name('u1')), again.find(name('homeless')), again.find(name('nobody'))]).toEqual([
      { cluster: east, isName: true },
      { cluster: undefined, isName: true },
      undefined,
    ]);
  });
});
