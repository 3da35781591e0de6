import { expect, it } from 'vitest';
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { Membership } from '#backend-cluster/controller/membership.ts';
import { createEmbeddedCoordinators } from '#backend-cluster/coordination/embedded.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { parseClusterName, parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { FakeClock } from '#test/fakes/clock.ts';

const leaseMs = 3000;
const refused = new PlatformError('NET_CONNECT_FAILED', 'refused', {
  cause: Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }),
});

function address(name: string): MemberAddress {
  return { name: parseMemberName(name), host: '127.0.0.1', port: 1 };
}

function clusterOfTwo() {
  const clock = new FakeClock();
  const leases = createEmbeddedCoordinators().open(parseClusterName('west.isp.example'), clock);
  const events: string[] = [];
  let answer: () => Promise<unknown> = () => Promise.reject(refused);
  const membership = new Membership({
    self: {
      address: address('back1.west.isp.example'),
      incarnation: 'one',
      state: () => 'active',
      openAccounts: () => 0,
      sessions: () => 0,
    },
    leases,
    link: { call: () => answer() } as unknown as LinkClient,
    clock,
    log: silentLogger,
    leaseMs,
    onGone: (_member, living, gone) => void events.push(`gone ${gone}, living ${living}`),
    onBack: (view) => void events.push(`back ${view.incarnation}`),
  });
  return {
    clock,
    membership,
    events,
    renewOther: () => leases.take('member/back2.west.isp.example', 'two', { host: '127.0.0.1', port: 1, state: 'active' }, leaseMs),
    answerWith: (next: () => Promise<unknown>) => {
      answer = next;
    },
    pingAll: async () => {
      for (const view of membership.askable()) await membership.ping(view, {}, () => {});
    },
  };
}

it('takes a member back that was started again at once and met by an old refusal', async () => {
  const { membership, events, renewOther, answerWith, pingAll } = clusterOfTwo();
  await renewOther();
  await membership.refresh();
  await pingAll();
  expect(membership.living()).toEqual([]);

  answerWith(async () => ({ incarnation: 'two', state: 'active', openAccounts: 3, sessions: 1 }));
  await renewOther();
  await membership.refresh();
  await pingAll();
  expect(membership.living().map((view) => [view.incarnation, view.openAccounts])).toEqual([['two', 3]]);
  expect(events).toEqual(['gone two, living undefined', 'back two']);
});

it('stops asking a dead member once its lease is gone', async () => {
  const { clock, membership, renewOther, pingAll } = clusterOfTwo();
  await renewOther();
  await membership.refresh();
  await pingAll();
  expect(membership.askable()).toHaveLength(1);
  await clock.advance(leaseMs + 1);
  await membership.refresh();
  expect(membership.askable()).toEqual([]);
});

it('takes nobody for dead because this process was stopped itself', async () => {
  const { clock, membership, events, renewOther, answerWith } = clusterOfTwo();
  answerWith(() => Promise.reject(new PlatformError('NET_TIMEOUT', 'no answer')));
  await renewOther();
  await membership.refresh();
  await clock.advance(60_000);
  await membership.refresh();
  for (const view of membership.living()) await membership.ping(view, {}, () => {});
  expect(events).toEqual([]);
  for (let i = 0; i < 3; i += 1) {
    await clock.advance(leaseMs / 2);
    await membership.refresh();
    for (const view of membership.living()) await membership.ping(view, {}, () => {});
  }
  expect(events).toEqual(['gone two, living undefined']);
});

it('does not take a member for dead because its machine refused a connection before it was seen', async () => {
  const { clock, membership, events, renewOther, answerWith, pingAll } = clusterOfTwo();
  const refusedBefore = new PlatformError(refused.code, refused.message, {
    fields: { dialledAtMs: clock.monotonicMs() },
    cause: refused.cause,
  });
  await clock.advance(500);
  await renewOther();
  await membership.refresh();
  answerWith(() => Promise.reject(refusedBefore));
  await pingAll();
  expect(events).toEqual([]);

  const refusedSince = new PlatformError(refused.code, refused.message, {
    fields: { dialledAtMs: clock.monotonicMs() },
    cause: refused.cause,
  });
  answerWith(() => Promise.reject(refusedSince));
  await pingAll();
  expect(events).toEqual(['gone two, living undefined']);
});
