/** The outside world as this machine has it, for programs, tests and measurements that put services together. */
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Logger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';

/** Ports with metrics of their own. */
export function systemPorts(log: Logger): Ports {
  return { clock: systemClock, random: systemRandom, network: systemNetwork, files: nodeFiles, log, metrics: createMetrics() };
}
