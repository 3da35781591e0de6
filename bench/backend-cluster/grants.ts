/** How long a member waits for the Controller's word that it may open an account. */
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import { systemClock } from '#common/clock.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { startRedis } from '#test/interop/redis-server.ts';
import { at } from './lmtp-load.ts';
import { startMemberProcess } from './servers.ts';

const asks = 2_000;

/** Asks for as many accounts, one after the other, as a second member. */
export async function grantTimes(root: string): Promise<{ count: number; p50Ms: number; p99Ms: number; worstMs: number }> {
  await using redis = await startRedis();
  const controller = await startMemberProcess(root, 'back1', 0, redis.url);
  try {
    const name = parseMemberName('back2.west.isp.example');
    const ports = { clock: systemClock, random: systemRandom, log: silentLogger, network: systemNetwork, metrics: createMetrics() };
    await using link = createLinkClient({ name, role: 'backend-cluster', tls: undefined, ports });
    const address = { name: parseMemberName('back1.west.isp.example'), host: '127.0.0.1', port: controller.port };
    const from = { name, host: '127.0.0.1', port: 1, incarnation: 'bench', state: 'active', openAccounts: 0, sessions: 0, duties: [] };
    const times: number[] = [];
    for (let i = 0; i < asks + 100; i += 1) {
      const uuid = `${i.toString(16).padStart(8, '0')}-3333-4333-8333-333333333333`;
      const startMs = performance.now();
      const answer = (await ask(() =>
        link.call(address, 'cluster.request', { uuid, term: 0, from, member: name, incarnation: 'bench' }),
      )) as { outcome?: string };
      if (answer.outcome !== 'grant') throw new Error(`no grant: ${JSON.stringify(answer)}`);
      if (i >= 100) times.push(performance.now() - startMs);
    }
    times.sort((a, b) => a - b);
    return { count: times.length, p50Ms: at(times, 0.5), p99Ms: at(times, 0.99), worstMs: times.at(-1) as number };
  } finally {
    await controller.stop();
  }
}

/** Until the first member leads. */
async function ask(call: () => Promise<unknown>): Promise<unknown> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await call();
    } catch (error) {
      if (tries > 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
