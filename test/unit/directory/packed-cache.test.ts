import { expect, test } from 'vitest';
import { PackedCache } from '#directory/store/packed-cache.ts';

test('a packed cache gives back what it was given, under numbers and texts of every kind', () => {
  const cache = new PackedCache(1_048_576);
  const keys: [number, string][] = [
    [0, ''],
    [1, ''],
    [-1, ''],
    [2_147_483_647, ''],
    [1, 'cn=müller'],
    [1, 'cn=Иван'],
    [2, 'cn=Иван'],
    [1, '\u{1f5ff}'],
    [1, 'x'.repeat(5000)],
    [1, 'abc'],
    [1, 'abcd'],
  ];
  for (const [i, [number, text]] of keys.entries()) cache.set(number, text, Buffer.from(`value ${i}`));
  for (const [i, [number, text]] of keys.entries()) expect(cache.get(number, text)?.toString()).toBe(`value ${i}`);
  expect(cache.size).toBe(keys.length);
  cache.set(1, 'abc', Buffer.from('another and longer value'));
  cache.set(1, 'abcd', Buffer.alloc(0));
  cache.delete(2, 'cn=Иван');
  cache.delete(2, 'never there');
  expect(cache.get(1, 'abc')?.toString()).toBe('another and longer value');
  expect(cache.get(1, 'abcd')?.length).toBe(0);
  expect(cache.get(2, 'cn=Иван')).toBeUndefined();
  expect(cache.get(1, 'cn=Иван')?.toString()).toBe('value 5');
  expect(cache.size).toBe(keys.length - 1);
});

test('numbers are kept as such, and what is no integer of 32 bits is not kept at all', () => {
  const cache = new PackedCache(1_048_576);
  cache.setNumbers(7, 'a', [1, -5, 2_147_483_647]);
  cache.setNumbers(7, 'b', [42]);
  cache.setNumbers(7, 'none', []);
  expect(cache.getNumbers(7, 'a')).toEqual([1, -5, 2_147_483_647]);
  expect(cache.getNumber(7, 'b')).toBe(42);
  expect(cache.getNumbers(7, 'none')).toEqual([]);
  cache.setNumbers(7, 'big', [1, 2 ** 31]);
  cache.set(2 ** 31, '', Buffer.from('x'));
  expect(cache.getNumbers(7, 'big')).toBeUndefined();
  expect(cache.get(2 ** 31)).toBeUndefined();
  // Not the one whose lower bits are the same.
  expect(cache.get(-(2 ** 31))).toBeUndefined();
});

test('a full cache stays within its memory, keeps what is read, and drops the rest from the oldest on', () => {
  const bytesMax = 262_144;
  const cache = new PackedCache(bytesMax);
  const value = (i: number): Buffer => Buffer.from(`value ${i} `.repeat(8));
  const often = Array.from({ length: 50 }, (_, i) => -1 - i);
  for (const number of often) cache.set(number, '', value(number));
  for (let i = 0; i < 20_000; i += 1) {
    cache.set(i, 'name', value(i));
    expect(cache.bytes).toBeLessThanOrEqual(bytesMax);
    if (i % 100 === 0) for (const number of often) expect(cache.get(number)?.equals(value(number))).toBe(true);
  }
  let held = 0;
  for (let i = 0; i < 20_000; i += 1) {
    const known = cache.get(i, 'name');
    if (known === undefined) continue;
    held += 1;
    expect(known.equals(value(i))).toBe(true);
  }
  expect(held).toBe(cache.size - often.length);
  expect(held * value(19_999).length).toBeGreaterThan(bytesMax / 3);
  expect(cache.get(19_999, 'name')).toBeDefined();
  expect(cache.get(0, 'name')).toBeUndefined();
});

test('a cache in which everything is read all the time goes on taking new values', () => {
  const cache = new PackedCache(131_072);
  for (let i = 0; i < 30_000; i += 1) {
    cache.set(i, '', Buffer.alloc(100, i));
    for (let back = 0; back < 5; back += 1) expect(cache.get(i - back)?.[0] ?? (i - back) & 255).toBe((i - back) & 255);
    expect(cache.get(i)).toBeDefined();
  }
  // One that is larger than a segment may be does not push out everything else.
  const before = cache.size;
  cache.set(-1, '', Buffer.alloc(100_000));
  expect([cache.get(-1), cache.size]).toEqual([undefined, before]);
  cache.clear();
  expect([cache.size, cache.get(29_999)]).toEqual([0, undefined]);
  cache.set(29_999, '', Buffer.from('again'));
  expect(cache.get(29_999)?.toString()).toBe('again');
});

test('whatever is set, replaced and deleted in whatever order, a value that is found is the last one set', () => {
  const cache = new PackedCache(65_536);
  const model = new Map<string, string>();
  let state = 7;
  const next = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * below);
  };
  let found = 0;
  for (let turn = 0; turn < 200_000; turn += 1) {
    const number = next(40);
    const text = ['', 'a', 'ab', 'ж', 'name of some length'][next(5)] as string;
    const key = `${number}/${text}`;
    const what = next(10);
    if (what < 5) {
      const known = cache.get(number, text)?.toString();
      if (known === undefined) continue;
      found += 1;
      if (known !== model.get(key)) throw new Error(`turn ${turn}: ${key} is ${known}, and ${String(model.get(key))} was set last`);
    } else if (what < 9) {
      const value = `${turn} ${'v'.repeat(next(600))}`;
      cache.set(number, text, Buffer.from(value));
      model.set(key, value);
    } else {
      cache.delete(number, text);
      model.delete(key);
    }
    if (turn % 50_000 === 49_999) {
      cache.clear();
      model.clear();
    }
  }
  expect(found).toBeGreaterThan(1000);
  expect(cache.bytes).toBeLessThanOrEqual(65_536);
});
