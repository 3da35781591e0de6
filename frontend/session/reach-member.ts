/**
 * Goes from member to member until one takes the question, and back to the directory when none should have been asked.
 *
 *   route ──► select member ──► ask it
 *     ▲                            │ done               → that is the answer
 *     │                            │ at                 → ask that member (fewer than `hopsMax` redirects in all)
 *     │                            │ cannot be asked,
 *     │                            │ or says "elsewhere" → next member of the cluster
 *     └── re-read from the master ◄│ moved, not here    → once; then wait for the cluster to hear of its new account
 *                                  │ refused            → that is the answer
 *
 * When some member answered and still nobody may serve (the current host has just died, a Controller is being elected) the cluster is
 * asked anew, with pauses, for as long as a fail-over may take: the client sees a slow answer instead of a refusal.
 *
 * What always holds: it ends, because every round uses up a member, a redirect or a wait; and a stale picture, here or at a member, ends in a
 * second try or a temporary refusal, never in a permanent one.
 */
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { type Clock, sleep } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import type { ClusterRecord } from '#directory/client/records.ts';
import type { AccountRoute } from '#frontend/routing/route-account.ts';
import { selectMember } from '#frontend/routing/select-member.ts';
import { hopsMax } from '#protocol/link/messages.ts';

/** What a member said. */
export type MemberStep<T> =
  | { readonly kind: 'done'; readonly value: T }
  | { readonly kind: 'at'; readonly member: MemberAddress }
  | { readonly kind: 'moved' }
  | { readonly kind: 'refused'; readonly error: PlatformError };

/** The end of it. `cluster` and `member` as far as it came. */
export type Reached<T> =
  | { readonly ok: true; readonly value: T; readonly cluster: ClusterRecord; readonly member: MemberAddress }
  | {
      readonly ok: false;
      readonly error: PlatformError;
      readonly cluster: ClusterRecord | undefined;
      readonly member: MemberAddress | undefined;
    };

/** The question. */
export interface MemberQuestion<T> {
  readonly route: AccountRoute;
  /** Asked first where it may be; see `LastHosts`. */
  readonly likely?: MemberName | undefined;
  /** Asks the master where the account is; missing where there is no account (deliveries). */
  readonly reread?: () => Promise<AccountRoute>;
  /** Rejects when the member cannot be asked. `uuid` is empty where it is not known, or there is no account. */
  ask(member: MemberAddress, uuid: string, hops: number): Promise<MemberStep<T>>;
}

/** What reaching needs. */
export interface ReachOptions {
  readonly link: LinkClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Whole time of one question over all members, milliseconds; a question under way is not cut off. */
export const reachMaxMs = 30_000;
/** Pauses between rounds while a cluster fails over, milliseconds; together a little over the longest lease and its election. */
const failoverWaitsMs = [150, 300, 600, 1_000, 1_500, 2_000, 2_500, 3_000];
/** Waits for a cluster that has not heard yet of an account which the master says is its own, milliseconds. */
const newcomerWaitsMs = [200, 400, 800];

/** See the header of this file. Never rejects. */
export async function reachMember<T>(options: ReachOptions, question: MemberQuestion<T>): Promise<Reached<T>> {
  const { link, clock, random, log } = options;
  const startedAtMs = clock.monotonicMs();
  const tried = new Set<MemberName>();
  let route = question.route;
  let isFromMaster = route.kind === 'routed' && route.source === 'master';
  let newcomerWaits = 0;
  let failoverWaits = 0;
  /** Whether a member of the cluster answered in this round: one that is down as a whole is not waited for. */
  let hasAnswer = false;
  let hops = 0;
  let redirect: MemberAddress | undefined;
  let lastError: PlatformError | undefined;
  for (;;) {
    if (route.kind === 'unknown') {
      return {
        ok: false,
        error: new PlatformError('ROUTE_UNKNOWN_ACCOUNT', 'the master has no such account'),
        cluster: undefined,
        member: undefined,
      };
    }
    if (route.kind === 'temporary') return { ok: false, error: route.error, cluster: undefined, member: undefined };
    const { cluster, uuid } = route;
    const isLate = clock.monotonicMs() - startedAtMs > reachMaxMs;
    const health = cluster.members.map((member) => link.health(member));
    const member = isLate
      ? undefined
      : (redirect ?? selectMember(health, tried, random.integer(0x4000_0000), question.likely)?.health.member);
    redirect = undefined;
    const pauseMs = hasAnswer && !isLate ? failoverWaitsMs[failoverWaits] : undefined;
    if (member === undefined && pauseMs !== undefined) {
      failoverWaits += 1;
      await sleep(clock, jitteredMs(random, pauseMs));
      tried.clear();
      hops = 0;
      hasAnswer = false;
      continue;
    }
    if (member === undefined) {
      const seen = health
        .map(({ member: { name }, state, lastError: error }) => `${name} ${state}${error === undefined ? '' : ` (${error})`}`)
        .join('; ');
      const error = new PlatformError(
        'ROUTE_NO_MEMBER',
        `no member of ${cluster.name} could serve: ${lastError?.message ?? (seen === '' ? 'its entry lists no members' : seen)}`,
        { fields: { cluster: cluster.name }, cause: lastError },
      );
      return { ok: false, error, cluster, member: undefined };
    }
    let step: MemberStep<T>;
    try {
      step = await question.ask(member, uuid ?? '', hops);
    } catch (thrown) {
      lastError = asPlatformError(thrown);
      tried.add(member.name);
      log.debug({ peer: member.name, errCode: lastError.code }, `cannot ask ${member.name}: ${lastError.message}`);
      continue;
    }
    hasAnswer = true;
    if (step.kind === 'done') return { ok: true, value: step.value, cluster, member };
    if (step.kind === 'at') {
      hops += 1;
      if (hops >= hopsMax)
        return { ok: false, error: loop(`redirected ${hops} times, last from ${member.name} to ${step.member.name}`), cluster, member };
      // The current host itself could not be asked: until its lease is over nobody else may serve.
      if (!tried.has(step.member.name)) redirect = step.member;
      else tried.add(member.name);
      continue;
    }
    if (step.kind === 'refused' && step.error.retry === 'elsewhere' && step.error.kind !== 'moved') {
      lastError = step.error;
      tried.add(member.name);
      continue;
    }
    const isElsewhere = step.kind === 'moved' || step.error.kind === 'moved' || step.error.kind === 'not-found';
    if (!isElsewhere || question.reread === undefined) {
      const error = step.kind === 'refused' ? step.error : new PlatformError('LINK_MOVED', `${member.name} does not host the account`);
      return { ok: false, error, cluster, member };
    }
    if (isFromMaster) {
      const waitMs = newcomerWaitsMs[newcomerWaits];
      newcomerWaits += 1;
      if (waitMs === undefined) {
        const error = loop(`the master says that ${cluster.name} hosts the account, and ${member.name} says that it does not (yet)`);
        return { ok: false, error, cluster, member };
      }
      await sleep(clock, waitMs);
      continue;
    }
    isFromMaster = true;
    tried.clear();
    route = await question.reread();
  }
}

function loop(message: string): PlatformError {
  return new PlatformError('ROUTE_LOOP', message);
}
