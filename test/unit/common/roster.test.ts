import { expect, it } from 'vitest';
import { Roster, type Seat } from '#common/roster.ts';

it('holds what was added and not removed, whatever the order', () => {
  const roster = new Roster<number>();
  const seats = new Map<number, Seat>();
  const expected = new Set<number>();
  // A fixed walk: three come, two go, by numbers that are far apart.
  for (let i = 0; i < 3_000; i += 1) {
    seats.set(i, roster.add(i));
    expected.add(i);
    if (i % 3 === 0) continue;
    const gone = (i * 7919) % (i + 1);
    roster.remove(seats.get(gone) as Seat);
    expected.delete(gone);
  }
  expect(new Set(roster)).toEqual(expected);
  expect(roster.size).toBe(expected.size);
  for (const seat of seats.values()) roster.remove(seat);
  expect(roster.values()).toEqual([]);
});

it('removes once, and nobody else in its place', () => {
  const roster = new Roster<string>();
  const [a, b] = [roster.add('a'), roster.add('b')];
  roster.remove(a);
  roster.remove(a);
  expect(roster.values()).toEqual(['b']);
  roster.add('c');
  roster.remove(a);
  roster.remove(b);
  expect(roster.values()).toEqual(['c']);
});
