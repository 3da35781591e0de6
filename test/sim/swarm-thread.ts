/** A thread of swarm.ts: runs the seeds that it is sent. */
import { parentPort } from 'node:worker_threads';
import type { AvailabilityFault } from './availability.ts';
import { runSeed, type SeedResult } from './run-seed.ts';
import type { Stretch } from './swarm.ts';

// Stacks of the many errors that faults make would be a good part of the work; a seed that is repeated alone has them.
Error.stackTraceLimit = 0;

parentPort?.on('message', async ({ first, count, onlyFault }: Stretch) => {
  const results: SeedResult[] = [];
  for (let seed = first; seed < first + count; seed += 1) {
    results.push(await runSeed(seed, onlyFault === undefined ? {} : { onlyFault: onlyFault as AvailabilityFault }));
  }
  parentPort?.postMessage(results);
});
