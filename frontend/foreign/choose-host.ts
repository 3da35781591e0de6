/**
 * Which host of a foreign cluster an account belongs on: the same on every frontend, without any of them asking another.
 *
 * Weighted rendezvous hashing: each host draws a number from the account's uuid and its own name, and the lowest wins. When a host goes, its
 * accounts alone move, spread over those that are left in proportion to their weights; when it comes back, the same accounts come back.
 */
import { hash } from 'node:crypto';
import type { MemberName } from '#common/host-server.ts';
import type { ClusterMember } from '#directory/client/records.ts';

/** The choice, and why, for `user why`. */
export interface HostChoice {
  readonly host: ClusterMember;
  readonly reason: 'pinned by hostServer' | 'by hash' | 'by hash: its own host is down' | 'by hash: the host it is pinned to is down';
}

/**
 * Chooses a host. Pure: same picture, same answer.
 *
 * @param pinned host that the account's hostServer names, if it names one
 * @param isUp whether a host may be used
 * @param mayFailOver whether an account may leave a host that is down; without it `undefined` is the answer then
 */
export function chooseHost(
  hosts: readonly ClusterMember[],
  uuid: string,
  pinned: ClusterMember | undefined,
  isUp: (host: MemberName) => boolean,
  mayFailOver: boolean,
): HostChoice | undefined {
  if (pinned !== undefined && isUp(pinned.name)) return { host: pinned, reason: 'pinned by hostServer' };
  if (pinned !== undefined && !mayFailOver) return undefined;
  const own = pinned ?? lowest(hosts, uuid);
  if (own === undefined) return undefined;
  if (pinned === undefined && isUp(own.name)) return { host: own, reason: 'by hash' };
  if (!mayFailOver) return undefined;
  const other = lowest(
    hosts.filter(({ name }) => isUp(name)),
    uuid,
  );
  if (other === undefined) return undefined;
  const reason = pinned === undefined ? 'by hash: its own host is down' : 'by hash: the host it is pinned to is down';
  return { host: other, reason };
}

function lowest(hosts: readonly ClusterMember[], uuid: string): ClusterMember | undefined {
  // One host needs no draw.
  if (hosts.length === 1) return hosts[0]?.weight === 0 ? undefined : hosts[0];
  let best: ClusterMember | undefined;
  let bestScore = Number.POSITIVE_INFINITY;
  for (const host of hosts) {
    const weight = host.weight ?? 100;
    if (weight === 0) continue;
    // -ln(u)/w is an exponential draw of rate w: the least of several is host i's with probability w_i / sum(w).
    const score = -Math.log(draw(uuid, host.name)) / weight;
    if (score < bestScore || (score === bestScore && best !== undefined && host.name < best.name)) {
      best = host;
      bestScore = score;
    }
  }
  return best;
}

/** A number in (0, 1) that only the two texts decide. */
function draw(uuid: string, host: string): number {
  const digest = hash('sha256', `${uuid} ${host}`, 'buffer');
  return (digest.readUIntBE(0, 6) + 1) / (2 ** 48 + 1);
}
