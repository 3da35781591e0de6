import { describe, expect, it } from 'vitest';
import { parseAccountName } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { parseMemberName } from '#common/host-server.ts';
import { Secret } from '#common/secret.ts';
import { accountsMax, LastHosts, lastHostMs } from '#frontend/routing/last-hosts.ts';
import { passwordOf, type SaslSettings } from '#frontend/session/credentials.ts';
import type { LoginResult, SaltAnswer } from '#frontend/session/open-session.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { account, type Federation, federation, memberWithPassword, west } from './fakes.ts';

const back1 = 'back1.west.isp.example';
const back2 = 'back2.west.isp.example';
const eastBack1 = 'back1.east.isp.example';
const client = { address: '192.0.2.1', port: 4711, tls: true };

/** Logs in; time moves on by itself. */
async function login(world: Federation, loginName = 'alice@isp.example', password = 'wonderland'): Promise<LoginResult> {
  let result: LoginResult | undefined;
  void world.opener.open({ service: 'imap', sessionId: 's1', loginName, credentials: passwordOf(password), client }).then((answer) => {
    result = answer;
  });
  for (let i = 0; i < 200 && result === undefined; i += 1) await world.clock.advance(100);
  if (result === undefined) throw new Error('no answer within 20 s');
  return result;
}

function shown(result: LoginResult): string {
  return result.ok ? `${result.accountName} on ${result.member}` : result.error.code;
}

describe('a login', () => {
  type Row = readonly [what: string, prepare: (world: Federation) => void, shown: string, members: readonly string[]];
  const at = (label: string) => () => ({ outcome: 'at', member: `${label}.west.isp.example`, host: '127.0.0.1', port: 10_201 }) as const;
  const refusal = (code: 'CLUSTER_DRAINING' | 'CLUSTER_NO_CONTROLLER' | 'AUTH_FAILED' | 'LINK_NOT_HERE' | 'ACCT_NOT_FOUND') => () => {
    const { kind } = new PlatformError(code, '');
    return { outcome: 'refused', code, kind, message: 'as told' } as const;
  };
  const cases: readonly Row[] = [
    ['is served by the least loaded member', () => {}, `alice@isp.example on ${back1}`, [back1]],
    [
      'follows a redirect to the current host',
      ({ link }) => link.members.set(back1, at('back2')),
      `alice@isp.example on ${back2}`,
      [back1, back2],
    ],
    [
      'goes to the next member when one cannot be asked',
      ({ link }) => link.members.delete(back1),
      `alice@isp.example on ${back2}`,
      [back1, back2],
    ],
    [
      'goes to the next member when one is draining',
      ({ link }) => link.members.set(back1, refusal('CLUSTER_DRAINING')),
      `alice@isp.example on ${back2}`,
      [back1, back2],
    ],
    ['is refused for now when no member can be asked', ({ link }) => link.members.clear(), 'ROUTE_NO_MEMBER', [back1, back2]],
    [
      'is refused for now after three redirects',
      ({ link }) => {
        link.members.set(back1, at('back2'));
        link.members.set(back2, at('back1'));
      },
      'ROUTE_LOOP',
      [back1, back2, back1],
    ],
    [
      'is refused for now when the cluster has no Controller',
      ({ link }) => link.members.set(back1, refusal('CLUSTER_NO_CONTROLLER')),
      'CLUSTER_NO_CONTROLLER',
      [back1],
    ],
    [
      'follows an account that moved to another cluster, asking the master once',
      ({ link, directory }) => {
        link.members.set(back1, () => ({ outcome: 'moved' }));
        directory.put(account(10, 'alice@isp.example', 'east.isp.example'), 'master');
      },
      `alice@isp.example on ${eastBack1}`,
      [back1, eastBack1],
    ],
    [
      'follows a name that now belongs to another account',
      ({ link, directory }) => {
        link.members.set(back1, (request) =>
          request.account?.uuid === '' ? refusal('LINK_NOT_HERE')() : memberWithPassword('wonderland')(request),
        );
        directory.put(account(11, 'alice@isp.example', 'west.isp.example'), 'master');
      },
      `alice@isp.example on ${back1}`,
      [back1, back1],
    ],
    [
      'is refused for good when the member does not know the account and the master does not either',
      ({ link, directory }) => {
        link.members.set(back1, refusal('ACCT_NOT_FOUND'));
        directory.master.clear();
      },
      'ROUTE_UNKNOWN_ACCOUNT',
      [back1],
    ],
    [
      'is refused for now when the member does not know the account and the master is down',
      ({ link, directory }) => {
        link.members.set(back1, refusal('ACCT_NOT_FOUND'));
        directory.isMasterDown = true;
      },
      'DIR_NO_MASTER',
      [back1],
    ],
    [
      'is refused for now when master and cluster keep contradicting each other',
      ({ link }) => {
        link.members.set(back1, () => ({ outcome: 'moved' }));
        link.members.delete(back2);
        link.healths.set(back2, { state: 'down' });
      },
      'ROUTE_LOOP',
      [back1, back1, back1, back1, back1],
    ],
  ];

  it.each(cases)('%s', async (_what, prepare, result, members) => {
    const world = federation();
    world.link.healths.set(back2, { load: 100 });
    prepare(world);
    expect(shown(await login(world))).toBe(result);
    expect(world.link.requests.map(({ member }) => member)).toEqual(members);
  });

  it('goes straight to the member that had the account open, for as long as an unused account stays open', async () => {
    const world = federation();
    const asked = async (): Promise<string[]> => {
      world.link.requests.length = 0;
      expect(shown(await login(world))).toBe(`alice@isp.example on ${back2}`);
      return world.link.requests.map(({ member }) => member);
    };
    world.link.healths.set(back2, { load: 900 });
    world.link.members.set(back1, at('back2'));
    expect(await asked()).toEqual([back1, back2]);
    expect(await asked()).toEqual([back2]);
    await world.clock.advance(lastHostMs - 1000);
    expect(await asked()).toEqual([back2]);
    await world.clock.advance(lastHostMs);
    expect(await asked()).toEqual([back1, back2]);
    // The default of idleCloseMs.
    expect(lastHostMs).toBe(60_000);
  });

  it('asks another member when that one cannot be asked, or is not the host any more', async () => {
    const world = federation();
    const asked = async (): Promise<string[]> => {
      world.link.requests.length = 0;
      expect(shown(await login(world))).toBe(`alice@isp.example on ${back1}`);
      return world.link.requests.map(({ member }) => member);
    };
    world.opener.lastHosts.opened(parseAccountName('alice@isp.example'), parseMemberName(back2), true);
    world.link.members.delete(back2);
    expect(await asked()).toEqual([back2, back1]);
    world.opener.lastHosts.opened(parseAccountName('alice@isp.example'), parseMemberName(back2), true);
    world.link.members.set(back2, at('back1'));
    expect(await asked()).toEqual([back2, back1]);
    expect(await asked()).toEqual([back1]);
  });

  it('remembers hosts of redirected accounts only, and no more than it may', () => {
    const hosts = new LastHosts(new FakeClock());
    const name = (i: number) => parseAccountName(`a${i}@isp.example`);
    hosts.opened(name(0), parseMemberName(back1), false);
    expect(hosts.find(name(0))).toBeUndefined();
    for (let i = 0; i <= accountsMax; i += 1) hosts.opened(name(i), parseMemberName(back1), true);
    expect([hosts.find(name(0)), hosts.find(name(1)), hosts.find(name(accountsMax))]).toEqual([undefined, back1, back1]);
    hosts.opened(name(1), parseMemberName(back2), false);
    expect(hosts.find(name(1))).toBe(back2);
    // Who came again is not the one that came longest ago.
    hosts.opened(name(accountsMax + 1), parseMemberName(back1), true);
    expect([hosts.find(name(1)), hosts.find(name(2)), hosts.find(name(3))]).toEqual([back2, undefined, back1]);
  });

  it('waits out the fail-over of a dead host, which another member still names', async () => {
    const world = federation();
    world.link.members.delete(back1);
    let asked = 0;
    world.link.members.set(back2, (request) => {
      asked += 1;
      return asked < 4 ? at('back1')() : memberWithPassword('wonderland')(request);
    });
    expect(shown(await login(world))).toBe(`alice@isp.example on ${back2}`);
  });

  it('is refused for now when a dead host is named for longer than a fail-over takes: nobody else may serve', async () => {
    const world = federation();
    world.link.members.delete(back1);
    world.link.members.set(back2, at('back1'));
    const startMs = world.clock.monotonicMs();
    expect(shown(await login(world))).toBe('ROUTE_NO_MEMBER');
    expect(world.clock.monotonicMs() - startMs).toBeGreaterThan(8_000);
    expect(world.clock.monotonicMs() - startMs).toBeLessThan(20_000);
  });

  it('waits for a cluster that has not heard of its new account yet', async () => {
    const world = federation();
    world.directory.put(account(20, 'newcomer@isp.example', 'east.isp.example'), 'master');
    let asked = 0;
    world.link.members.set(eastBack1, (request) => {
      asked += 1;
      return asked < 3 ? { outcome: 'moved' } : memberWithPassword('wonderland')(request);
    });
    expect(shown(await login(world, 'newcomer'))).toBe(`newcomer@isp.example on ${eastBack1}`);
    expect(world.directory.asked).toEqual(['subset newcomer@isp.example', 'master newcomer@isp.example']);
  });

  it('tells the member the folded name, the client and how often it was redirected', async () => {
    const world = federation();
    world.link.healths.set(back2, { load: 100 });
    world.link.members.set(back1, at('back2'));
    await login(world, 'ALICE');
    expect(world.link.requests.map(({ request }) => request)).toMatchObject([
      { hops: 0, account: { uuid: '', name: 'alice@isp.example' }, client, from: 'front1.eu.isp.example' },
      { hops: 1 },
    ]);
  });

  it('takes the same time to fail whether the account exists or not, and counts both', async () => {
    const world = federation();
    const took = async (name: string): Promise<number> => {
      const startMs = world.clock.monotonicMs();
      expect((await login(world, name, 'wrong')).ok).toBe(false);
      return world.clock.monotonicMs() - startMs;
    };
    expect([await took('alice'), await took('nobody'), await took('no@name@at all')]).toEqual([500, 500, 500]);
    expect(world.opener.counts).toEqual({ ok: 0, failed: 3, refused: 0 });
  });

  it('leaves no password in the log', async () => {
    const world = federation();
    await login(world, 'alice', 'hunter2');
    world.link.members.clear();
    await login(world, 'alice', 'hunter2');
    expect(JSON.stringify(world.lines)).not.toContain('hunter2');
  });
});

describe('verifying a password for submission', () => {
  const request = (loginName: string) => ({ loginName, credentials: passwordOf('x'), sessionId: 's', client });

  it('asks a member by a call and gives the account’s own name', async () => {
    const world = federation();
    world.link.answerCall = () => ({ ok: true, name: 'alice.liddell@isp.example' });
    expect(await world.opener.authenticate(request('alice'))).toEqual({ ok: true, name: 'alice.liddell@isp.example' });
    expect(world.link.calls).toMatchObject([
      { method: 'authenticate', params: { uuid: '', name: 'alice@isp.example', password: 'x', sessionId: 's' } },
    ]);
  });

  it('goes on to the next member when one is down, and reports a wrong password as the member did', async () => {
    const world = federation();
    world.link.healths.set(back2, { load: 100 });
    world.link.members.delete(back1);
    world.link.answerCall = () => {
      throw new PlatformError('AUTH_FAILED', 'wrong password');
    };
    const result = world.opener.authenticate(request('alice'));
    await settle();
    await world.clock.advance(1000);
    expect(await result).toMatchObject({ ok: false, error: { code: 'AUTH_FAILED' } });
    expect(world.link.calls.map(({ member }) => member)).toEqual([back1, back2]);
  });
});

describe('a login for submission', () => {
  it('fails alike for an account that does not exist and for a wrong password', async () => {
    const world = federation();
    const result = world.opener.authenticate({ loginName: 'nobody', credentials: passwordOf('x'), sessionId: 's', client });
    await settle();
    await world.clock.advance(1000);
    expect(await result).toMatchObject({ ok: false, error: { code: 'AUTH_FAILED', kind: 'auth' } });
  });
});

describe('a delivery', () => {
  it('is opened at any member that is up', async () => {
    const world = federation();
    world.link.members.delete(back1);
    const { connection: channel } = await world.opener.openDelivery(west);
    expect(world.link.requests.at(-1)).toMatchObject({ member: back2, request: { service: 'lmtp' } });
    expect(world.link.requests.at(-1)?.request.account).toBeUndefined();
    channel.destroy();
  });

  it('fails for now when no member is up', async () => {
    const world = federation();
    world.link.members.clear();
    await expect(world.opener.openDelivery(west)).rejects.toMatchObject({ code: 'ROUTE_NO_MEMBER', kind: 'unavailable' });
  });
});

describe('what a SCRAM exchange begins with', () => {
  const sasl = { scram: { secret: new Secret('site secret'), iterations: 4096 } };

  async function salt(world: Federation, loginName: string): Promise<SaltAnswer> {
    let answer: SaltAnswer | undefined;
    void world.opener.scramSalt({ loginName, client }).then((found) => {
      answer = found;
    });
    for (let i = 0; i < 400 && answer === undefined; i += 1) await world.clock.advance(100);
    if (answer === undefined) throw new Error('no answer within 40 s');
    return answer;
  }

  it('is the account’s own, or for everybody else a salt that stays the same', async () => {
    const world = federation({ sasl });
    world.link.answerCall = () => ({ salt: 'c2FsdA==', iterations: 8192 });
    expect(await salt(world, 'alice@isp.example')).toEqual({ ok: true, salt: 'c2FsdA==', iterations: 8192 });
    world.link.answerCall = () => ({});
    const [keyless, unknown, again] = [
      await salt(world, 'alice@isp.example'),
      await salt(world, 'nobody@isp.example'),
      await salt(federation({ sasl }), 'nobody@isp.example'),
    ];
    for (const made of [keyless, unknown])
      expect(made).toMatchObject({ ok: true, salt: expect.stringMatching(/^[A-Za-z0-9+/]{22}==$/), iterations: 4096 });
    expect(again).toEqual(unknown);
    expect(keyless).not.toEqual(unknown);
  });

  it('is not made up for an account that cannot be asked for', async () => {
    const world = federation({ sasl });
    world.link.members.clear();
    expect(await salt(world, 'alice@isp.example')).toMatchObject({ ok: false, error: { code: 'ROUTE_NO_MEMBER' } });
  });
});

describe('an access token', () => {
  const ofToken = (loginName: string) => ({
    loginName,
    credentials: { kind: 'token', mechanism: 'OAUTHBEARER', token: new Secret('abc') } as const,
    sessionId: 's',
    client,
  });
  const verifier = (accountOf: () => Promise<string>): SaslSettings => ({ tokens: { verifier: { accountOf }, hints: {} } });

  async function opened(world: Federation, loginName: string): Promise<LoginResult> {
    let result: LoginResult | undefined;
    void world.opener.open({ service: 'imap', ...ofToken(loginName) }).then((answer) => {
      result = answer;
    });
    for (let i = 0; i < 400 && result === undefined; i += 1) await world.clock.advance(100);
    if (result === undefined) throw new Error('no answer within 40 s');
    return result;
  }

  it('goes to the member, which judges it, under the name that the client gave or the token has', async () => {
    const world = federation({ sasl: verifier(async () => 'alice@isp.example') });
    for (const name of [back1, back2]) {
      world.link.members.set(name, ({ login: shown, account: whose }) =>
        shown?.mechanism === 'BEARER' && shown.token === 'abc'
          ? { outcome: 'opened', capabilities: [], accountName: whose?.name ?? '' }
          : { outcome: 'refused', code: 'AUTH_FAILED', kind: 'auth', message: 'wrong' },
      );
    }
    expect(shown(await opened(world, 'alice'))).toBe(`alice@isp.example on ${back1}`);
    expect(shown(await opened(world, ''))).toBe(`alice@isp.example on ${back1}`);
  });

  it('that cannot be judged now is a temporary refusal, and counts for nobody', async () => {
    const world = federation({
      sasl: verifier(async () => {
        throw new PlatformError('AUTH_TOKEN_UNVERIFIED', 'the issuer is down');
      }),
    });
    expect(shown(await opened(world, ''))).toBe('AUTH_TOKEN_UNVERIFIED');
    expect(world.guard.entries(10)).toEqual([]);
  });

  it('is brought to another member when one is of a release that knows no tokens, and is refused for now by a cluster of such', async () => {
    const world = federation({ sasl: verifier(async () => 'alice@isp.example') });
    world.link.members.set(back1, () => ({ outcome: 'refused', code: 'LINK_PROTOCOL', kind: 'protocol', message: 'malformed' }));
    world.link.members.set(back2, () => ({ outcome: 'opened', capabilities: [], accountName: 'alice@isp.example' }));
    expect(shown(await opened(world, 'alice'))).toBe(`alice@isp.example on ${back2}`);
    world.link.members.set(back2, () => ({ outcome: 'refused', code: 'LINK_PROTOCOL', kind: 'protocol', message: 'malformed' }));
    expect(shown(await opened(world, 'alice'))).toBe('ROUTE_NO_MEMBER');
    expect(world.guard.entries(10)).toEqual([]);
  });
});
