/**
 * Sequence sets (RFC 9051 §9 sequence-set): `1,3:5,*`, `*:3`. A set is kept as ranges and never spelled out: `1:4294967295` costs as much
 * as `1`.
 */

/** Stands for `*`: the highest number in use. */
export const star = Number.POSITIVE_INFINITY;

/** Ranges as written; each end a number or `star`. */
export type SequenceSet = readonly (readonly [number, number])[];

/** Ranges in ascending order that do not touch. */
export type NumberRanges = readonly (readonly [number, number])[];

/** The set with `*` put in, ordered and merged. `highest` is the number that `*` means. */
export function resolveSet(set: SequenceSet, highest: number): NumberRanges {
  const ranges = set
    .map(([a, b]): [number, number] => {
      const from = a === star ? highest : a;
      const to = b === star ? highest : b;
      return from <= to ? [from, to] : [to, from];
    })
    .sort((x, y) => x[0] - y[0]);
  const merged: [number, number][] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && range[0] <= last[1] + 1) last[1] = Math.max(last[1], range[1]);
    else merged.push(range);
  }
  return merged;
}

/** Whether a number is in resolved ranges. */
export function contains(ranges: NumberRanges, number: number): boolean {
  let low = 0;
  let high = ranges.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const [from, to] = ranges[middle] as readonly [number, number];
    if (number < from) high = middle - 1;
    else if (number > to) low = middle + 1;
    else return true;
  }
  return false;
}

/** Ascending numbers as a set in its shortest form. */
export function formatNumbers(numbers: Iterable<number>): string {
  const out: string[] = [];
  let from: number | undefined;
  let to = 0;
  const flush = (): void => {
    if (from !== undefined) out.push(from === to ? String(from) : `${from}:${to}`);
  };
  for (const number of numbers) {
    if (from !== undefined && number === to + 1) to = number;
    else {
      flush();
      from = number;
      to = number;
    }
  }
  flush();
  return out.join(',');
}
