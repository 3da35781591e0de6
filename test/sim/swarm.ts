/**
 * Many seeds, on several threads. Each thread takes a stretch of seeds at a time, so that all end together; a seed's history does not
 * depend on which thread runs it, nor on what ran there before.
 */
import { Worker } from 'node:worker_threads';
import type { SeedResult } from './run-seed.ts';

const stretch = 10;

/** What came of many seeds. */
export interface SwarmResult {
  readonly seeds: number;
  readonly broken: readonly SeedResult[];
  readonly simulatedMs: number;
  readonly commits: number;
  readonly sent: number;
  /** The slowest. */
  readonly recovery: { readonly ms: number; readonly seed: number };
  readonly unavailable: { readonly ms: number; readonly seed: number };
  readonly faults: ReadonlyMap<string, number>;
}

/** What a thread is asked for. */
export interface Stretch {
  readonly first: number;
  readonly count: number;
  readonly onlyFault: string | undefined;
}

/** Runs all `seeds`; `onResult` is told of each. Rejects when a thread breaks. */
export async function runSwarm(
  seeds: { readonly first: number; readonly count: number },
  options: { readonly threads: number; readonly onlyFault?: string; onResult?(result: SeedResult, soFar: SwarmResult): void },
): Promise<SwarmResult> {
  const faults = new Map<string, number>();
  const broken: SeedResult[] = [];
  let total: SwarmResult = {
    seeds: 0,
    broken,
    simulatedMs: 0,
    commits: 0,
    sent: 0,
    recovery: { ms: 0, seed: seeds.first },
    unavailable: { ms: 0, seed: seeds.first },
    faults,
  };
  const add = (result: SeedResult): void => {
    for (const [kind, times] of result.faults) faults.set(kind, (faults.get(kind) ?? 0) + times);
    if (result.violations.length > 0) broken.push(result);
    const { seed, recoveryMs, unavailableMs } = result;
    total = {
      ...total,
      seeds: total.seeds + 1,
      simulatedMs: total.simulatedMs + result.simulatedMs,
      commits: total.commits + result.commits,
      sent: total.sent + result.sent,
      recovery: recoveryMs > total.recovery.ms ? { ms: recoveryMs, seed } : total.recovery,
      unavailable: unavailableMs > total.unavailable.ms ? { ms: unavailableMs, seed } : total.unavailable,
    };
    options.onResult?.(result, total);
  };
  let next = seeds.first;
  const end = seeds.first + seeds.count;
  const thread = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL('./swarm-thread.ts', import.meta.url));
      const ask = (): void => {
        if (next >= end) {
          void worker.terminate();
          return;
        }
        const asked: Stretch = { first: next, count: Math.min(stretch, end - next), onlyFault: options.onlyFault };
        next += asked.count;
        worker.postMessage(asked);
      };
      worker.on('message', (results: readonly SeedResult[]) => {
        for (const result of results) add(result);
        ask();
      });
      worker.once('error', reject);
      worker.once('exit', () => resolve());
      ask();
    });
  await Promise.all(Array.from({ length: Math.min(options.threads, Math.ceil(seeds.count / stretch)) }, thread));
  return total;
}
