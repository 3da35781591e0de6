import { describe, expect, it } from 'vitest';
import type { MemberHealth } from '#backend-cluster/client/cluster-client.ts';
import { parseMemberName } from '#common/host-server.ts';
import { selectMember } from '#frontend/routing/select-member.ts';

type Row = readonly [
  what: string,
  members: string,
  excluded: string,
  turn: number,
  chosen: string | undefined,
  reason: string | undefined,
  likely?: string,
];

// Members as `name state load`.
const cases: readonly Row[] = [
  ['none when the entry lists none', '', '', 0, undefined, undefined],
  ['the only member', 'b1 up 900', '', 5, 'b1', 'only member'],
  ['the least loaded', 'b1 up 300, b2 up 100, b3 up 200', '', 5, 'b2', 'least loaded'],
  ['none when all are down', 'b1 down 0, b2 down 0', '', 0, undefined, undefined],
  ['the one that is up', 'b1 down 0, b2 up 900', '', 0, 'b2', 'only one up'],
  ['turn by turn among the equally loaded: first', 'b1 up 100, b2 up 103, b3 up 500', '', 0, 'b1', 'equally loaded, by turns'],
  ['turn by turn among the equally loaded: second', 'b1 up 100, b2 up 103, b3 up 500', '', 1, 'b2', 'equally loaded, by turns'],
  ['a tenth of a large load is no difference', 'b1 up 10000, b2 up 10900', '', 1, 'b2', 'equally loaded, by turns'],
  ['not one that was tried', 'b1 up 0, b2 up 900', 'b1', 0, 'b2', 'only one up'],
  ['none when all were tried', 'b1 up 0, b2 up 900', 'b1 b2', 0, undefined, undefined],
  ['a member not asked yet, so that its load is learnt', 'b1 up 50, b2 unknown 0', '', 0, 'b2', 'least loaded'],
  ['not a draining one while another is up', 'b1 draining 0, b2 up 900', '', 0, 'b2', 'only one up'],
  ['the one that had the account open, whatever its load', 'b1 up 0, b2 up 900', '', 0, 'b2', 'had the account open lately', 'b2'],
  ['not such a one when it is draining', 'b1 up 900, b2 draining 0', '', 0, 'b1', 'only one up', 'b2'],
  ['not such a one when it is down', 'b1 up 900, b2 down 0', '', 0, 'b1', 'only one up', 'b2'],
  ['not such a one when it was tried', 'b1 up 900, b2 up 0', 'b2', 0, 'b1', 'only one up', 'b2'],
  ['not one that is no member any more', 'b1 up 900, b2 up 0', '', 0, 'b2', 'least loaded', 'b3'],
  ['a draining one when no other is', 'b1 draining 10, b2 down 0', '', 0, 'b1', 'draining, but no other is up'],
];

describe('choosing a member', () => {
  it.each(cases.map((row) => [row[0], row] as const))('takes %s', (_what, [, members, excluded, turn, chosen, reason, likely]) => {
    const choice = selectMember(
      members === '' ? [] : members.split(', ').map(health),
      new Set(excluded === '' ? [] : excluded.split(' ').map(nameOf)),
      turn,
      likely === undefined ? undefined : nameOf(likely),
    );
    expect(choice?.health.member.name).toBe(chosen === undefined ? undefined : nameOf(chosen));
    expect(choice?.reason).toBe(reason);
  });
});

function health(text: string): MemberHealth {
  const [label = '', state, load] = text.split(' ');
  return {
    member: { name: nameOf(label), host: '127.0.0.1', port: 1 },
    state: state as MemberHealth['state'],
    load: Number(load),
    lastError: undefined,
  };
}

function nameOf(label: string) {
  return parseMemberName(`${label}.west.isp.example`);
}
