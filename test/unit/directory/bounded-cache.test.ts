import { expect, test } from 'vitest';
import { BoundedCache } from '#directory/store/bounded-cache.ts';

test('a bounded cache drops what was not used for longest and keeps what is read', () => {
  const cache = new BoundedCache<number, string>(100, () => 10);
  cache.set(0, 'kept');
  for (let i = 1; i <= 20; i += 1) {
    expect(cache.get(0)).toBe('kept');
    cache.set(i, `value ${i}`);
  }
  expect(cache.get(1)).toBeUndefined();
  expect(cache.get(20)).toBe('value 20');
  const held = Array.from({ length: 21 }, (_, i) => cache.get(i)).filter((value) => value !== undefined);
  expect(held.length).toBeLessThanOrEqual(10);
});

test('a bounded cache does not give back what was deleted, in whichever generation it was', () => {
  const cache = new BoundedCache<number, string>(100, () => 10);
  for (let i = 0; i < 8; i += 1) cache.set(i, 'value');
  for (let i = 0; i < 8; i += 1) cache.delete(i);
  expect(Array.from({ length: 8 }, (_, i) => cache.get(i))).toEqual(Array(8).fill(undefined));
});
