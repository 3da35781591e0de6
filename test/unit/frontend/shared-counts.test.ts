import { describe, expect, it } from 'vitest';
import { elsewhereOf, sumOf, told } from '#frontend/subset/shared-counts.ts';

describe('connections that processes tell each other', () => {
  it('are those of addresses near the limit', () => {
    const counts = new Map([
      ['192.0.2.1', 20],
      ['192.0.2.2', 12],
      ['192.0.2.3', 1],
    ]);
    // One other process: an eighth of 100 may be kept back.
    expect(told(counts, 100, 1)).toEqual([['192.0.2.1', 20]]);
    // Three others keep back a third of that each.
    expect(told(counts, 100, 3)).toEqual([
      ['192.0.2.1', 20],
      ['192.0.2.2', 12],
    ]);
    expect(told(counts, 1, 3)).toHaveLength(3);
  });

  it('are the most crowded when there are too many', () => {
    const counts = new Map(Array.from({ length: 6_000 }, (_, index) => [`address ${index}`, 1 + index] as const));
    const all = told(counts, 1, 1);
    expect(all).toHaveLength(5_000);
    expect(all[0]).toEqual(['address 5999', 6_000]);
  });

  it('add up by listener, also of processes that have told nothing yet', () => {
    const one = [
      { total: 3, addresses: [['a', 2]] as const, prefixes: [['p', 3]] as const },
      { total: 1, addresses: [], prefixes: [] },
    ];
    const other = [
      {
        total: 4,
        addresses: [
          ['a', 1],
          ['b', 3],
        ] as const,
        prefixes: [],
      },
    ];
    expect(sumOf([one, [], other])).toEqual([
      {
        total: 7,
        addresses: [
          ['a', 3],
          ['b', 3],
        ],
        prefixes: [['p', 3]],
      },
      { total: 1, addresses: [], prefixes: [] },
    ]);
    expect(sumOf([])).toEqual([]);
    expect(elsewhereOf({ total: 1, addresses: [['a', 1]], prefixes: [] }).addresses.get('a')).toBe(1);
  });
});
