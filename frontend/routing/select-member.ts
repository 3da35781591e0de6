/**
 * Chooses the member that a new session is sent to: second-level load balancing (Guide: Frontend Servers).
 *
 * Pure: same picture, same answer. Members whose reported load differs by little count as equal and take turns, because the reports are a
 * heartbeat old: if all frontends sent everything to the one least loaded, it would be the most loaded by the next report.
 */
import type { MemberHealth } from '#backend-cluster/client/cluster-client.ts';
import type { MemberName } from '#common/host-server.ts';

/** The choice, and why, for `user why`. */
export interface MemberChoice {
  readonly health: MemberHealth;
  readonly reason:
    | 'only member'
    | 'only one up'
    | 'had the account open lately'
    | 'least loaded'
    | 'equally loaded, by turns'
    | 'draining, but no other is up';
}

/** Loads within this many sessions, or within a tenth, of the least count as equal. */
const equalLoad = { sessions: 5, share: 0.1 };

/**
 * @param members the cluster's members as known now
 * @param excluded members that this session has already tried in vain
 * @param turn any number that differs from session to session
 * @param likely the member that had the account open lately: it would be redirected to
 * @returns `undefined` when none may be asked: the caller reports that as temporary
 */
export function selectMember(
  members: readonly MemberHealth[],
  excluded: ReadonlySet<MemberName>,
  turn: number,
  likely?: MemberName,
): MemberChoice | undefined {
  const askable = members.filter((health) => health.state !== 'down' && !excluded.has(health.member.name));
  const ready = askable.filter((health) => health.state !== 'draining');
  // A draining member still leads to the current host of what is open, and says so itself when it can do no more.
  const candidates = ready.length > 0 ? ready : askable;
  if (candidates.length === 0) return undefined;
  const host = ready.find(({ member }) => member.name === likely);
  if (host !== undefined) return { health: host, reason: 'had the account open lately' };
  // A member not asked yet has no load to show: it is taken for an idle one, which also is how its load is learnt.
  const least = Math.min(...candidates.map(loadOf));
  const limit = Math.max(least + equalLoad.sessions, least * (1 + equalLoad.share));
  const equals = candidates.filter((health) => loadOf(health) <= limit);
  const health = equals[Math.abs(turn) % equals.length] as MemberHealth;
  return { health, reason: reasonOf(members.length, ready.length, candidates.length, equals.length) };
}

function loadOf(health: MemberHealth): number {
  return health.state === 'unknown' ? 0 : health.load;
}

function reasonOf(members: number, ready: number, candidates: number, equals: number): MemberChoice['reason'] {
  if (ready === 0) return 'draining, but no other is up';
  if (members === 1) return 'only member';
  if (candidates === 1) return 'only one up';
  return equals === 1 ? 'least loaded' : 'equally loaded, by turns';
}
