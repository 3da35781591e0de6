import { expect, test } from 'vitest';
import { BoundedCache } from '#directory/store/bounded-cache.ts';

test('a bounded cache drops what was not read for longest, keeps what is read, and is always full', () => {
  const cache = new BoundedCache<number, string>(100, () => 10);
  cache.set(0, 'kept');
  for (let i = 1; i <= 50; i += 1) {
    expect(cache.get(0)).toBe('kept');
    cache.set(i, `value ${i}`);
    expect(cache.bytes).toBe(Math.min(100, (i + 1) * 10));
  }
  expect(cache.get(1)).toBeUndefined();
  expect(cache.get(50)).toBe('value 50');
  const held = Array.from({ length: 51 }, (_, i) => cache.get(i)).filter((value) => value !== undefined);
  expect(held.length).toBe(10);
});

test('a bounded cache goes on when everything in it was read, deleted or replaced', () => {
  const cache = new BoundedCache<number, string>(100, (value) => value.length);
  for (let i = 0; i < 10; i += 1) cache.set(i, 'ten octets');
  for (let i = 0; i < 10; i += 1) cache.get(i);
  cache.set(10, 'ten octets');
  expect(cache.bytes).toBe(100);
  for (let i = 0; i < 10; i += 1) cache.delete(i);
  expect(Array.from({ length: 10 }, (_, i) => cache.get(i))).toEqual(Array(10).fill(undefined));
  cache.set(10, 'more');
  expect([cache.get(10), cache.bytes]).toEqual(['more', 4]);
  // One that is larger than the room does not push out everything else.
  cache.set(11, 'x'.repeat(200));
  expect([cache.get(10), cache.get(11), cache.bytes]).toEqual(['more', undefined, 4]);
  cache.clear();
  for (let i = 0; i < 100; i += 1) cache.set(i, 'ten octets');
  expect(cache.bytes).toBe(100);
});
