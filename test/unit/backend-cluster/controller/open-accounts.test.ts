import { describe, expect, it } from 'vitest';
import { grantMs, OpenAccounts } from '#backend-cluster/controller/open-accounts.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import { parseMemberName } from '#common/host-server.ts';

const uuid = parseAccountUuid('0b7c1f9e-0000-4000-8000-00000000000a');
const a = { member: parseMemberName('back1.west.isp.example'), incarnation: 'a1' };
const b = { member: parseMemberName('back2.west.isp.example'), incarnation: 'b1' };

describe('the Controller’s table', () => {
  it('grants an account once and sends others to its host', () => {
    const table = new OpenAccounts();
    expect(table.request(uuid, a, 0)).toEqual({ outcome: 'grant' });
    expect(table.request(uuid, b, 1)).toEqual({ outcome: 'at', host: a });
    table.opened({ ...a, uuid, epoch: 1 }, 2);
    expect(table.request(uuid, b, grantMs * 2)).toEqual({ outcome: 'at', host: a });
    table.closed(uuid, a, 1);
    expect(table.request(uuid, b, 3)).toEqual({ outcome: 'grant' });
  });

  it('lets a grant that came to nothing lapse', () => {
    const table = new OpenAccounts();
    table.request(uuid, a, 0);
    expect(table.request(uuid, b, grantMs - 1).outcome).toBe('at');
    expect(table.request(uuid, b, grantMs).outcome).toBe('grant');
  });

  it('ignores a close that is not about the opening it holds', () => {
    const table = new OpenAccounts();
    table.opened({ ...a, uuid, epoch: 4 }, 0);
    table.closed(uuid, b, 4);
    table.closed(uuid, { ...a, incarnation: 'a0' }, 4);
    table.closed(uuid, a, 3);
    expect(table.hostOf(uuid)).toMatchObject({ ...a, epoch: 4 });
    table.request(uuid, a, 1);
    table.closed(uuid, a, 4);
    expect(table.request(uuid, b, 2).outcome).toBe('at');
  });

  it('believes the higher epoch of two reports, in either order, and names the loser', () => {
    for (const order of [
      [a, b],
      [b, a],
    ] as const) {
      const table = new OpenAccounts();
      const losers = order.map((by) => table.opened({ ...by, uuid, epoch: by === a ? 7 : 8 }, 0));
      expect(table.hostOf(uuid)).toMatchObject(b);
      expect(losers.filter((loser) => loser !== undefined)).toEqual([{ ...a, uuid, epoch: 7 }]);
    }
  });

  it('frees what a dead member had, and of a restarted one what its former process had', () => {
    const table = new OpenAccounts();
    table.opened({ ...a, uuid, epoch: 1 }, 0);
    expect(table.memberGone(a.member, 'a1')).toBe(0);
    expect(table.memberGone(a.member, 'a2')).toBe(1);
    expect(table.request(uuid, b, 1).outcome).toBe('grant');
  });
});
