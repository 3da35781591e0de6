import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AccountName, parseAccountName } from '#common/account-name.ts';
import { type ClusterName, parseClusterName } from '#common/host-server.ts';
import { AddressHash } from '#frontend/routing/address-hash.ts';
import { IdTable } from '#frontend/routing/id-table.ts';
import { addressesPerAccountMax, RouteIndex } from '#frontend/routing/route-index.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { uuidOf, west } from './fakes.ts';

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

describe('the table of ids', () => {
  it('holds what a set holds, when hashes crowd and while it doubles', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.array(fc.tuple(fc.boolean(), fc.nat(2999)), { minLength: 4000, maxLength: 6000 }),
        (spread, steps) => {
          // Few different hashes, at the end of the table, so that runs are long and wrap around.
          const hashOf = (id: number): number => (0xffff_ffff - (id % spread) * 7) >>> 0;
          const table = new IdTable(hashOf);
          const model = new Set<number>();
          for (const [isPut, id] of steps) {
            const isHeld = table.find(hashOf(id), (other) => other === id) === id;
            expect(isHeld).toBe(model.has(id));
            if (isPut && !isHeld) {
              table.insert(id);
              model.add(id);
            } else if (!isPut) {
              expect(table.remove(id)).toBe(model.delete(id));
            }
          }
          expect(table.count).toBe(model.size);
          for (const id of model) expect(table.find(hashOf(id), (other) => other === id)).toBe(id);
        },
      ),
      { numRuns: 12 },
    );
  });
});

describe('the route index', () => {
  it('answers as a map does, through renames, aliases, removals and growth', () => {
    const step = fc.record({
      isRemoval: fc.integer({ min: 0, max: 4 }).map((number) => number === 0),
      account: fc.nat(300),
      addresses: fc.array(fc.nat(400), { minLength: 1, maxLength: 4 }),
      cluster: fc.constantFrom<ClusterName | undefined>(west, east, undefined),
    });
    fc.assert(
      fc.property(fc.nat(), fc.array(step, { minLength: 200, maxLength: 800 }), (seed, steps) => {
        const index = new RouteIndex(seededRandom(seed));
        const model = new Map<number, { addresses: number[]; cluster: ClusterName | undefined }>();
        for (const { isRemoval, account, addresses, cluster } of steps) {
          if (isRemoval) {
            expect(index.remove(uuidOf(account))).toBe(model.delete(account));
          } else {
            index.put(
              uuidOf(account),
              cluster,
              addresses.map((address) => name(`u${address}`)),
            );
            model.set(account, { addresses, cluster });
          }
        }
        expect(index.accounts).toBe(model.size);
        for (let address = 0; address <= 400; address += 1) {
          const owners = [...model].filter(([, known]) => known.addresses.includes(address));
          const named = owners.filter(([, known]) => known.addresses[0] === address);
          const allowed = (named.length > 0 ? named : owners).map(([account, { cluster }]) => `${uuidOf(account)} ${cluster}`);
          const found = index.find(name(`u${address}`));
          if (allowed.length === 0) expect(found).toBeUndefined();
          else expect(allowed).toContain(`${found?.uuid} ${found?.cluster}`);
        }
        for (const [account, { cluster }] of model) expect(index.get(uuidOf(account))).toEqual({ uuid: uuidOf(account), cluster });
      }),
      { numRuns: 40 },
    );
  });

  it('keeps every route while it grows over page and table bounds', () => {
    const index = new RouteIndex(seededRandom(1));
    const count = 40_000;
    for (let i = 0; i < count; i += 1) index.put(uuidOf(i), i % 2 === 0 ? west : east, [name(`u${i}`), name(`alias.${i}`)]);
    for (let i = 0; i < count; i += 97) {
      expect(index.find(name(`u${i}`))).toEqual({ uuid: uuidOf(i), cluster: i % 2 === 0 ? west : east });
      expect(index.find(name(`alias.${i}`))?.uuid).toBe(uuidOf(i));
    }
    expect(index.find(name('nobody'))).toBeUndefined();
    expect([index.accounts, index.addresses]).toEqual([count, 2 * count]);
  });

  it('takes an account’s old names out when it is renamed, and its rows and keys are used again', () => {
    const index = new RouteIndex(seededRandom(2));
    index.put(uuidOf(1), west, [name('alice'), name('a.liddell')]);
    index.put(uuidOf(2), west, [name('bob')]);
    for (let i = 0; i < 50_000; i += 1) index.put(uuidOf(1), west, [name(`alice${i}`), name(`a.liddell${i}`)]);
    expect(index.find(name('alice'))).toBeUndefined();
    expect(index.find(name('a.liddell'))).toBeUndefined();
    expect(index.find(name('alice49999'))?.uuid).toBe(uuidOf(1));
    expect(index.find(name('bob'))?.uuid).toBe(uuidOf(2));
    expect(index.addresses).toBe(3);
    expect(index.bytes).toBeLessThan(1_000_000);
  });

  it('moves an account to another cluster without touching its names', () => {
    const index = new RouteIndex(seededRandom(3));
    index.put(uuidOf(1), west, [name('alice'), name('x'), name('y'), name('x')]);
    index.put(uuidOf(1), east, [name('alice'), name('x'), name('y')]);
    expect(index.find(name('y'))).toEqual({ uuid: uuidOf(1), cluster: east });
    expect(index.addresses).toBe(3);
  });

  it('holds a stated number of addresses for an account and leaves the rest to look-up', () => {
    const index = new RouteIndex(seededRandom(4));
    index.put(
      uuidOf(1),
      west,
      Array.from({ length: addressesPerAccountMax + 10 }, (_, i) => name(`a${i}`)),
    );
    expect(index.addresses).toBe(addressesPerAccountMax);
    expect(index.find(name(`a${addressesPerAccountMax}`))).toBeUndefined();
    index.remove(uuidOf(1));
    expect(index.addresses).toBe(0);
  });

  it('costs about 41 bytes for an account with one address', () => {
    const index = new RouteIndex(seededRandom(5));
    for (let i = 0; i < 190_000; i += 1) index.put(uuidOf(i), west, [name(`u${i}`)]);
    expect(index.bytes / 190_000).toBeLessThan(43);
  });
});
