/**
 * `npm run sim -- --seed N --seeds K`: runs K seeds from N on and says what was broken, with the seed to repeat. With one seed and
 * `--log` it prints what the members logged. Exits with 1 when an invariant was broken.
 */
import { parseArgs } from 'node:util';
import { runSeed } from './run-seed.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    log: { type: 'boolean', default: false },
  },
});
const first = Number(values.seed);
const count = Number(values.seeds);
if (!Number.isInteger(first) || !Number.isInteger(count) || first < 0 || count < 1) {
  process.stderr.write('usage: npm run sim -- [--seed N] [--seeds K] [--log]\n');
  process.exit(2);
}

const startedMs = performance.now();
const faults = new Map<string, number>();
const broken: number[] = [];
let simulatedMs = 0;
let commits = 0;
let sent = 0;
let worst = { recoveryMs: 0, seed: first };
for (let seed = first; seed < first + count; seed += 1) {
  const result = await runSeed(seed, values.log ? { onLog: (line) => console.log(line) } : {});
  simulatedMs += result.simulatedMs;
  commits += result.commits;
  sent += result.sent;
  if (result.recoveryMs > worst.recoveryMs) worst = { recoveryMs: result.recoveryMs, seed };
  for (const [kind, times] of result.faults) faults.set(kind, (faults.get(kind) ?? 0) + times);
  if (result.violations.length > 0) {
    broken.push(seed);
    console.log(`seed ${seed} (trace ${result.trace}): repeat with npm run sim -- --seed ${seed} --log`);
    for (const violation of result.violations) console.log(`  ${violation}`);
  }
  const done = seed - first + 1;
  if (count === 1) console.log(`seed ${seed}: trace ${result.trace}, ${result.events} events`);
  else if (done % 50 === 0 || done === count) {
    const rate = done / ((performance.now() - startedMs) / 1000);
    console.log(
      `${done} seeds, ${rate.toFixed(1)} a second, ${(simulatedMs / 3_600_000).toFixed(2)} simulated hours, ${broken.length} broken`,
    );
  }
}
const kinds = [...faults].sort(([a], [b]) => (a < b ? -1 : 1)).map(([kind, times]) => `${kind} ${times}`);
console.log(`${sent} messages, ${commits} commits; slowest recovery ${(worst.recoveryMs / 1000).toFixed(1)} s (seed ${worst.seed})`);
console.log(`faults: ${kinds.join(', ') || 'none'}`);
console.log(broken.length === 0 ? 'no invariant was broken' : `broken: seeds ${broken.join(', ')}`);
process.exitCode = broken.length === 0 ? 0 : 1;
