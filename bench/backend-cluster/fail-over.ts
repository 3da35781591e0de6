/** How long an account is out of reach when its member is killed, or stopped. */
import { join } from 'node:path';
import { startRedis } from '#test/interop/redis-server.ts';
import { at, deliver, linkDoor } from './lmtp-load.ts';
import { type MailServer, startMemberProcess } from './servers.ts';

const attemptMs = 20;
const limitMs = 60_000;

/** Three members on one Redis; an account on the one that is hit is delivered to through another one until that works. */
export async function failOver(root: string, signal: 'SIGKILL' | 'SIGSTOP', rounds: number): Promise<{ p50Ms: number; worstMs: number }> {
  const times: number[] = [];
  await using redis = await startRedis();
  const storage = join(root, signal);
  const members = new Map<string, MailServer>();
  const start = async (label: string): Promise<void> => void members.set(label, await startMemberProcess(storage, label, 3, redis.url));
  await Promise.all(['back1', 'back2', 'back3'].map(start));
  try {
    for (let round = 0; round < rounds; round += 1) {
      // Each in turn, so that the Controller is hit in a third of all rounds.
      const [victim, witness] = [`back${(round % 3) + 1}`, `back${((round + 1) % 3) + 1}`];
      await delivered(members.get(victim) as MailServer, victim);
      const struck = members.get(victim) as MailServer;
      const startMs = performance.now();
      struck.signal(signal);
      await delivered(members.get(witness) as MailServer, witness);
      times.push(performance.now() - startMs);
      struck.signal('SIGKILL');
      await start(victim);
    }
  } finally {
    await Promise.all([...members.values()].map((member) => member.stop()));
  }
  times.sort((a, b) => a - b);
  return { p50Ms: at(times, 0.5), worstMs: times.at(-1) as number };
}

/** One message through a member, tried again until it is acknowledged. */
async function delivered(member: MailServer, label: string): Promise<void> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    try {
      await using door = linkDoor(member.port, label);
      await deliver(door, { inFlight: 1, accounts: 1, seconds: 0.000_001 });
      return;
    } catch (error) {
      if (performance.now() > endMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, attemptMs));
    }
  }
}
