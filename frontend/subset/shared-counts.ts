/**
 * Connections over the processes of one frontend. Each counts its own, tells the others now and then, and adds what they told to its own when a
 * limit is in question.
 *
 * Told are only addresses and prefixes that come near a limit, so that a million clients from everywhere cost nothing. With what is not told and what comes
 * between two reports a limit may be passed: by an eighth, and by what the other processes accept from that address in `reportEveryMs`.
 */

/** How often a process tells. */
export const reportEveryMs = 250;
/** Addresses, and prefixes, told of one listener: those with most connections. */
const toldMax = 5_000;
/** Part of a limit up to which the others together need not be told. */
const untoldShare = 1 / 8;

/** Connections of one listener in one process, or in several. */
export interface ListenerCounts {
  readonly total: number;
  readonly addresses: readonly (readonly [group: string, connections: number])[];
  readonly prefixes: readonly (readonly [prefix: string, connections: number])[];
}

/** The same, to look things up in. */
export interface CountsElsewhere {
  readonly total: number;
  readonly addresses: ReadonlyMap<string, number>;
  readonly prefixes: ReadonlyMap<string, number>;
}

/** Nobody else serves. */
export const nothingElsewhere: CountsElsewhere = { total: 0, addresses: new Map(), prefixes: new Map() };

/**
 * What is told of a table.
 *
 * @param limit of one key, over all processes
 * @param others processes beside this one
 */
export function told(counts: ReadonlyMap<string, number>, limit: number, others: number): [string, number][] {
  // Each of the others may keep so many for itself.
  const from = Math.max(1, Math.floor((limit * untoldShare) / Math.max(1, others)) + 1);
  const found = [...counts].filter(([, count]) => count >= from);
  return found.length <= toldMax ? found : found.sort((a, b) => b[1] - a[1]).slice(0, toldMax);
}

/** Sums of what processes told, by listener. */
export function sumOf(reports: readonly (readonly ListenerCounts[])[]): ListenerCounts[] {
  const length = Math.max(0, ...reports.map((report) => report.length));
  return Array.from({ length }, (_, index) => {
    const of = reports.flatMap((report) => report[index] ?? []);
    return {
      total: of.reduce((sum, { total }) => sum + total, 0),
      addresses: added(of.map(({ addresses }) => addresses)),
      prefixes: added(of.map(({ prefixes }) => prefixes)),
    };
  });
}

/** For look-ups. */
export function elsewhereOf(counts: ListenerCounts): CountsElsewhere {
  return { total: counts.total, addresses: new Map(counts.addresses), prefixes: new Map(counts.prefixes) };
}

function added(tables: readonly (readonly (readonly [string, number])[])[]): [string, number][] {
  const sums = new Map<string, number>();
  for (const table of tables) for (const [key, count] of table) sums.set(key, (sums.get(key) ?? 0) + count);
  return [...sums];
}
