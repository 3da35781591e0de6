/**
 * `npm run sim -- --seed N --seeds K`: runs K seeds from N on and says what was broken, with the seed to repeat. One seed with `--log`
 * prints what the members logged. `--only kill|stop|pause|"power off"` has nothing but that fault, and measures how long accounts cannot
 * be opened. `--threads T` uses more than one core. Exits with 1 when an invariant was broken.
 */
import { parseArgs } from 'node:util';
import { type AvailabilityFault, availabilityFaults } from './availability.ts';
import { runSeed, type SeedResult } from './run-seed.ts';
import { runSwarm, type SwarmResult } from './swarm.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    threads: { type: 'string', default: '1' },
    only: { type: 'string' },
    log: { type: 'boolean', default: false },
  },
});
const first = Number(values.seed);
const count = Number(values.seeds);
const threads = Number(values.threads);
const onlyFault = values.only as AvailabilityFault | undefined;
const isWell =
  [first, count, threads].every(Number.isInteger) &&
  first >= 0 &&
  count >= 1 &&
  threads >= 1 &&
  (onlyFault === undefined || availabilityFaults.includes(onlyFault));
if (!isWell) {
  const kinds = availabilityFaults.map((kind) => `"${kind}"`).join('|');
  process.stderr.write(`usage: npm run sim -- [--seed N] [--seeds K] [--threads T] [--only ${kinds}] [--log]\n`);
  process.exit(2);
}
const again = onlyFault === undefined ? '' : ` --only "${onlyFault}"`;

function tell(result: SeedResult): void {
  if (result.violations.length === 0) return;
  console.log(`seed ${result.seed} (trace ${result.trace}): repeat with npm run sim -- --seed ${result.seed}${again} --log`);
  for (const violation of result.violations) console.log(`  ${violation}`);
}

function summary({ seeds, sent, commits, recovery, unavailable, faults, broken }: SwarmResult): void {
  const kinds = [...faults].sort(([a], [b]) => (a < b ? -1 : 1)).map(([kind, times]) => `${kind} ${times}`);
  const seconds = (ms: number): string => (ms / 1000).toFixed(1);
  console.log(`${seeds} seeds, ${sent} messages, ${commits} commits; slowest recovery ${seconds(recovery.ms)} s (seed ${recovery.seed})`);
  if (onlyFault !== undefined) console.log(`longest time without an account: ${seconds(unavailable.ms)} s (seed ${unavailable.seed})`);
  console.log(`faults: ${kinds.join(', ') || 'none'}`);
  console.log(broken.length === 0 ? 'no invariant was broken' : `broken: seeds ${broken.map(({ seed }) => seed).join(', ')}`);
  process.exitCode = broken.length === 0 ? 0 : 1;
}

if (count === 1) {
  const log = values.log ? { onLog: (line: string) => console.log(line) } : {};
  const result = await runSeed(first, { ...log, ...(onlyFault === undefined ? {} : { onlyFault }) });
  tell(result);
  console.log(`seed ${first}: trace ${result.trace}, ${result.events} events, ${result.commits} commits, ${result.sent} messages`);
  console.log(result.violations.length === 0 ? 'no invariant was broken' : 'broken');
  process.exitCode = result.violations.length === 0 ? 0 : 1;
} else {
  const startedMs = performance.now();
  summary(
    await runSwarm(
      { first, count },
      {
        threads,
        ...(onlyFault === undefined ? {} : { onlyFault }),
        onResult: (result, { seeds, simulatedMs, broken }) => {
          tell(result);
          if (seeds % 100 !== 0 && seeds !== count) return;
          const rate = (seeds / ((performance.now() - startedMs) / 1000)).toFixed(1);
          console.log(`${seeds} seeds, ${rate} a second, ${(simulatedMs / 3_600_000).toFixed(2)} simulated hours, ${broken.length} broken`);
        },
      },
    ),
  );
}
