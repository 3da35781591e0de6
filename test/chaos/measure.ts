/**
 * How long an account cannot be reached when its host is killed or stopped: the time from the signal until a client that tries all the time
 * through both frontends has logged in and selected its inbox again. Worst, median and all are printed.
 */
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import type { ClusterStatus } from '#backend-cluster/client/status.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { canRead } from './clients.ts';
import type { Hosts } from './hosts.ts';
import { frontends, Installation, linkPort, membersOf, serverOf } from './installation.ts';

const account = { name: 'east1@isp.example', cluster: 'east' };
const tryEveryMs = 40;
const givenUpMs = 60_000;

/** What is done to the host. */
export type Blow = 'kill' | 'stop';

/** See the header of this file. Milliseconds, in order of time. */
export async function measureFailover(options: {
  lab: Hosts;
  directory: string;
  blow: Blow;
  times: number;
  say(line: string): void;
}): Promise<number[]> {
  const { lab, directory, blow, times, say } = options;
  const installation = await Installation.start(lab, directory, [account]);
  try {
    const { caFile, certFile, keyFile } = installation.layout.link('client');
    const [ca, cert, key] = await Promise.all([caFile, certFile, keyFile].map(async (file) => (await nodeFiles.read(file)).toString()));
    const ports = { clock: systemClock, random: systemRandom, network: systemNetwork, log: silentLogger };
    const tls = { ca, cert, key } as { ca: string; cert: string; key: string };
    await using link = createLinkClient({ name: serverOf('client').name, role: 'operate', tls, ports });
    const addressOf = (host: string) => ({ name: parseMemberName(serverOf(host).name), host: lab.addressOf(host), port: linkPort });
    const measured: number[] = [];
    for (let round = 1; round <= times; round += 1) {
      await untilReadable(lab);
      const host = await hostOfAccount(async (asked) => (await link.call(addressOf(asked), 'status', {}, 2_000)) as ClusterStatus);
      const startedMs = performance.now();
      if (blow === 'kill') await installation.kill(host);
      else await installation.signal(host, 'SIGSTOP');
      await untilReadable(lab);
      const tookMs = performance.now() - startedMs;
      measured.push(tookMs);
      say(`${round}: ${host}, ${(tookMs / 1000).toFixed(2)} s`);
      if (blow === 'kill') await installation.restart(host);
      else await installation.signal(host, 'SIGCONT');
    }
    return measured;
  } finally {
    await installation.stop();
  }
}

/** The member that has the account open, once all members agree that all are active. */
async function hostOfAccount(status: (host: string) => Promise<ClusterStatus>): Promise<string> {
  const members = membersOf(account.cluster);
  let last: unknown;
  for (let tries = 0; tries < 300; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    const seen = await Promise.all(members.map((host) => status(host).catch(() => undefined)));
    const isCalm = seen.every((one) => one?.controller !== undefined && one.members.filter(({ state }) => state === 'active').length === 3);
    const hosts = members.filter((host, index) =>
      seen[index]?.members.some(({ name, openAccounts }) => name === serverOf(host).name && openAccounts === 1),
    );
    if (isCalm && hosts.length === 1) return hosts[0] as string;
    last = seen.map((one) => one && { controller: one.controller, members: one.members.map((m) => [m.name, m.state, m.openAccounts]) });
  }
  throw new Error(`the cluster did not come to rest: ${members.join(', ')} say ${JSON.stringify(last)}`);
}

/** Tries all the time, through both frontends; an attempt that hangs is left behind. */
async function untilReadable(lab: Hosts): Promise<void> {
  const startedMs = performance.now();
  let isReadable = false;
  for (let tries = 0; !isReadable; tries += 1) {
    if (performance.now() - startedMs > givenUpMs) throw new Error(`${account.name} could not be read for ${givenUpMs} ms`);
    const attempt = canRead(account.name, lab.addressOf(frontends[tries % frontends.length] as string)).then((isIt) => {
      isReadable ||= isIt;
    });
    await Promise.race([attempt, new Promise((resolve) => setTimeout(resolve, 400))]);
    await new Promise((resolve) => setTimeout(resolve, tryEveryMs));
  }
}
