import { describe, expect, it } from 'vitest';
import { type MemberName, parseMemberName } from '#common/host-server.ts';
import type { ClusterMember } from '#directory/client/records.ts';
import { chooseHost } from '#frontend/foreign/choose-host.ts';

const host = (label: string, weight?: number): ClusterMember => ({
  name: parseMemberName(`${label}.legacy.isp.example`),
  host: '192.0.2.1',
  port: 0,
  ...(weight === undefined ? {} : { weight }),
});
const allUp = (): boolean => true;
const without =
  (...down: ClusterMember[]) =>
  (name: MemberName): boolean =>
    !down.some((each) => each.name === name);
const accounts = Array.from({ length: 4000 }, (_, index) => `user${index}@isp.example`);
const [a, b, c] = [host('a'), host('b'), host('c')];

function placed(hosts: readonly ClusterMember[], isUp: (name: MemberName) => boolean = allUp): Map<string, string | undefined> {
  return new Map(accounts.map((account) => [account, chooseHost(hosts, account, undefined, isUp, true)?.host.name]));
}

describe('the choice of a foreign host', () => {
  it('does not depend on the order in which the directory lists the hosts', () => {
    expect(placed([c, a, b])).toEqual(placed([a, b, c]));
  });

  it('spreads accounts by weight, within a tenth', () => {
    const count = new Map<string | undefined, number>();
    for (const name of placed([a, host('b', 50), host('c', 50)]).values()) count.set(name, (count.get(name) ?? 0) + 1);
    expect(count.get(a.name)).toBeGreaterThan(1800);
    expect(count.get(a.name)).toBeLessThan(2200);
    expect(count.get(b.name)).toBeGreaterThan(900);
    expect(count.get(b.name)).toBeLessThan(1100);
  });

  it('moves only the accounts of a host that goes, and brings the same ones back', () => {
    const before = placed([a, b, c]);
    const during = placed([a, b, c], without(b));
    for (const [account, name] of before) {
      if (name === b.name) expect(during.get(account)).not.toBe(b.name);
      else expect(during.get(account)).toBe(name);
    }
    expect(placed([a, b, c])).toEqual(before);
  });

  it('gives no account to a host of weight 0, unless it is pinned there', () => {
    const idle = host('c', 0);
    expect([...placed([a, b, idle]).values()]).not.toContain(idle.name);
    expect(chooseHost([a, b, idle], 'x@isp.example', idle, allUp, true)).toEqual({ host: idle, reason: 'pinned by hostServer' });
  });

  it.each([
    ['its own host is down and it may go elsewhere', undefined, true, 'by hash: its own host is down'],
    ['its own host is down and it may not', undefined, false, undefined],
    ['the host it is pinned to is down and it may go elsewhere', a, true, 'by hash: the host it is pinned to is down'],
    ['the host it is pinned to is down and it may not', a, false, undefined],
  ] as const)('when %s', (_, pinned, mayFailOver, reason) => {
    const account = accounts.find((name) => chooseHost([a, b], name, undefined, allUp, true)?.host === a) as string;
    const choice = chooseHost([a, b], account, pinned, without(a), mayFailOver);
    expect(choice?.reason).toBe(reason);
    if (reason !== undefined) expect(choice?.host).toBe(b);
  });

  it('is none when all are down', () => {
    expect(chooseHost([a, b], 'x@isp.example', undefined, () => false, true)).toBeUndefined();
  });
});
