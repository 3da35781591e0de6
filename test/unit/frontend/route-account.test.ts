import { describe, expect, it } from 'vitest';
import { parseAccountName } from '#common/account-name.ts';
import { parseMemberName } from '#common/host-server.ts';
import { explainRoute } from '#frontend/routing/explain.ts';
import { createMailRouter } from '#frontend/routing/mail-router.ts';
import { type AccountRoute, AccountRouter, negativeCacheMs } from '#frontend/routing/route-account.ts';
import { Routes } from '#frontend/routing/routes.ts';
import { account, cluster, domain, type Federation, federation, uuidOf } from './fakes.ts';

const alice = parseAccountName('alice@isp.example');
const newcomer = parseAccountName('newcomer@isp.example');

function shown(route: AccountRoute): string {
  if (route.kind === 'routed') return `${route.cluster.name} by ${route.source}`;
  return route.kind === 'temporary' ? route.error.code : route.kind;
}

/** What explaining needs, in this federation. */
function explaining(world: Federation): Parameters<typeof explainRoute>[0] {
  const follower = {
    status: () => ({
      server: 'ldap://subset',
      state: 'following' as const,
      refreshedOnce: true,
      silentMs: 1500,
      changes: 0,
      lastError: undefined,
    }),
    whenRefreshed: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
  return {
    ...world,
    lastHosts: world.opener.lastHosts,
    frontend: 'front1.eu.isp.example',
    subset: 'eu',
    defaultDomain: undefined,
    reader: world.directory,
    follower,
  };
}

describe('the route of an address', () => {
  type Row = readonly [what: string, address: string, prepare: (world: Federation) => void, shown: string, asked: readonly string[]];
  const cases: readonly Row[] = [
    ['is found in the index without a question', 'alice@isp.example', () => {}, 'west.isp.example by index', []],
    ['is found at a domain alias', 'alice@alias.example', () => {}, 'west.isp.example by index', []],
    [
      'is found while the whole directory is down: routes are frozen, not gone',
      'alice@isp.example',
      ({ directory }) => {
        directory.isSubsetDown = true;
        directory.isMasterDown = true;
      },
      'west.isp.example by index',
      [],
    ],
    [
      'is looked up at the subset’s directory when it is not in the index',
      'newcomer@isp.example',
      ({ directory }) => directory.put(account(20, newcomer, 'east.isp.example')),
      'east.isp.example by subset',
      ['subset newcomer@isp.example'],
    ],
    [
      'is asked of the master when the subset’s directory is behind',
      'newcomer@isp.example',
      ({ directory }) => directory.put(account(20, newcomer, 'east.isp.example'), 'master'),
      'east.isp.example by master',
      ['subset newcomer@isp.example', 'master newcomer@isp.example'],
    ],
    [
      'is asked of the master when the subset’s directory is down',
      'newcomer@isp.example',
      ({ directory }) => {
        directory.put(account(20, newcomer, 'east.isp.example'));
        directory.isSubsetDown = true;
      },
      'east.isp.example by master',
      ['subset newcomer@isp.example', 'master newcomer@isp.example'],
    ],
    [
      'is unknown when the master says so',
      'nobody@isp.example',
      () => {},
      'unknown',
      ['subset nobody@isp.example', 'master nobody@isp.example'],
    ],
    [
      'is temporarily not known when the master is down, whatever a replica says',
      'nobody@isp.example',
      ({ directory }) => {
        directory.isMasterDown = true;
      },
      'DIR_NO_MASTER',
      ['subset nobody@isp.example', 'master nobody@isp.example'],
    ],
    [
      'is a temporary failure without hostServer',
      'alice@isp.example',
      ({ routes }) => routes.apply({ type: 'put', record: account(10, alice, undefined) }),
      'ROUTE_NO_HOST_SERVER',
      [],
    ],
    [
      'is a temporary failure with a hostServer that names no cluster',
      'alice@isp.example',
      ({ routes }) => routes.apply({ type: 'put', record: account(10, alice, 'north.isp.example') }),
      'ROUTE_UNKNOWN_CLUSTER',
      [],
    ],
    [
      'is gone with the removal of the entry',
      'alice@isp.example',
      ({ routes, directory }) => {
        routes.apply({ type: 'remove', uuid: uuidOf(10), name: alice });
        directory.subset.clear();
        directory.master.clear();
      },
      'unknown',
      ['subset alice@isp.example', 'master alice@isp.example'],
    ],
  ];

  it.each(cases)('%s', async (_what, address, prepare, result, asked) => {
    const world = federation();
    prepare(world);
    expect(shown(await world.router.route(parseAccountName(address)))).toBe(result);
    expect(world.directory.asked).toEqual(asked);
  });

  it('leads nowhere for now when several accounts have it, whatever was known of it before', async () => {
    const world = federation();
    const { router, directory, clock } = world;
    directory.put(account(20, newcomer, 'east.isp.example'), 'master');
    expect(shown(await router.route(newcomer))).toBe('east.isp.example by master');
    directory.ambiguous.add(newcomer).add(alice);
    expect(shown(await router.routeByMaster(newcomer))).toBe('DIR_ADDRESS_AMBIGUOUS');
    expect(shown(await router.route(newcomer))).toBe('DIR_ADDRESS_AMBIGUOUS');
    directory.isMasterDown = true;
    expect(shown(await router.route(newcomer))).toBe('DIR_ADDRESS_AMBIGUOUS');
    // Mail is for whom the directory names, and not for whom the index has.
    expect(shown(await router.routeWithUuid(alice))).toBe('DIR_ADDRESS_AMBIGUOUS');
    directory.isMasterDown = false;
    const { verdict, steps } = await explainRoute(explaining(world), newcomer);
    expect(verdict).toBe('unavailable');
    expect(steps.map(({ found }) => found)).toContain(`nothing to go by: 2 accounts have the address ${newcomer}: uid=bob; uid=carol`);
    directory.ambiguous.clear();
    await clock.advance(1);
    expect(shown(await router.route(newcomer))).toBe('east.isp.example by master');
  });

  it('is asked for once, however many wait for it', async () => {
    const { router, directory } = federation();
    const gate = Promise.withResolvers<void>();
    directory.gate = gate.promise;
    const answers = Promise.all(Array.from({ length: 50 }, () => router.route(newcomer)));
    gate.resolve();
    expect((await answers).map(shown)).toEqual(Array(50).fill('unknown'));
    expect(directory.asked).toEqual(['subset newcomer@isp.example', 'master newcomer@isp.example']);
  });

  it('is not asked for again for two seconds when the master did not know it, and then is', async () => {
    const { router, directory, clock } = federation();
    await router.route(newcomer);
    await clock.advance(negativeCacheMs - 1);
    expect(shown(await router.route(newcomer))).toBe('unknown');
    expect(directory.asked.length).toBe(2);
    directory.put(account(20, newcomer, 'east.isp.example'), 'master');
    await clock.advance(1);
    expect(shown(await router.route(newcomer))).toBe('east.isp.example by master');
  });

  it('is there at once when the directory reports a new account, also within those two seconds', async () => {
    const { router, routes } = federation();
    await router.route(newcomer);
    routes.apply({ type: 'put', record: account(20, newcomer, 'east.isp.example') });
    expect(shown(await router.route(newcomer))).toBe('east.isp.example by index');
  });

  it('is a temporary failure when the master has been asked too often, and the master is asked no more', async () => {
    const { router, directory } = federation();
    const results = await Promise.all(Array.from({ length: 500 }, (_, i) => router.route(parseAccountName(`guess${i}@isp.example`))));
    const counts = Object.groupBy(results, shown);
    expect(counts.unknown?.length).toBe(400);
    expect(counts.ROUTE_MASTER_BUSY?.length).toBe(100);
    expect(directory.asked.filter((question) => question.startsWith('master')).length).toBe(400);
  });

  it('of an old name leads to a member in vain once, and then the master’s word holds', async () => {
    const { router, routes, directory } = federation();
    routes.apply({ type: 'put', record: account(10, 'bob@isp.example', 'west.isp.example') });
    directory.subset.clear();
    directory.master.clear();
    expect(shown(await router.route(alice))).toBe('west.isp.example by index');
    // The member says that it has no account of that name:
    expect(shown(await router.routeByMaster(alice))).toBe('unknown');
    expect(shown(await router.route(alice))).toBe('unknown');
    expect(directory.asked).toEqual(['master alice@isp.example']);
  });

  it('that the master gave goes before an index that is behind, for a while', async () => {
    const { router, directory, clock } = federation();
    directory.put(account(10, alice, 'east.isp.example'), 'master');
    expect(shown(await router.routeByMaster(alice))).toBe('east.isp.example by master');
    expect(shown(await router.route(alice))).toBe('east.isp.example by cache');
    clock.advance(10_001);
    expect(shown(await router.route(alice))).toBe('west.isp.example by index');
  });

  it('that was found by look-up is used while nobody answers, also when it is no longer fresh', async () => {
    const { router, directory, clock } = federation();
    directory.put(account(20, newcomer, 'east.isp.example'));
    expect(shown(await router.route(newcomer))).toBe('east.isp.example by subset');
    clock.advance(3_600_000);
    directory.isSubsetDown = true;
    directory.isMasterDown = true;
    expect(shown(await router.route(newcomer))).toBe('east.isp.example by cache');
    clock.advance(86_400_000);
    expect(shown(await router.route(newcomer))).toBe('DIR_NO_MASTER');
  });

  it('comes with the uuid for mail, from the index alone only while no directory answers', async () => {
    const { router, directory } = federation();
    expect(await router.routeWithUuid(alice)).toMatchObject({ kind: 'routed', uuid: uuidOf(10), source: 'subset' });
    const dark = federation();
    dark.directory.isSubsetDown = true;
    dark.directory.isMasterDown = true;
    expect(await dark.router.routeWithUuid(alice)).toMatchObject({ kind: 'routed', uuid: undefined, source: 'index' });
    expect(directory.asked).toEqual(['subset alice@isp.example']);
  });

  it('is looked up with its cluster before the directory has been seen whole', async () => {
    const { directory, clock, metrics, random, cache } = federation();
    const routes = new Routes({ random, clock });
    const router = new AccountRouter({ routes, reader: directory, clock, metrics, cache, masterPerSecond: 200 });
    expect(shown(await router.route(alice))).toBe('west.isp.example by subset');
    expect(directory.asked).toEqual(['subset alice@isp.example', 'clusters']);
  });
});

describe('mail’s routing', () => {
  function mailRouter(state: 'following' | 'frozen' = 'following') {
    const world = federation();
    const follower = {
      status: () => ({ server: 'ldap://subset', state, refreshedOnce: true, silentMs: 0, changes: 0, lastError: undefined }),
      whenRefreshed: async () => {},
      [Symbol.asyncDispose]: async () => {},
    };
    return { ...world, mail: createMailRouter({ ...world, reader: world.directory, follower }), follower };
  }

  it('finds an account at a domain alias, and an alternate address that was entered at one before it was known', async () => {
    const { mail, routes, directory } = mailRouter();
    const dan = account(30, 'dan@isp.example', 'west.isp.example', ['d@later.example']);
    directory.put(dan);
    directory.subset.set(parseAccountName('alice@alias.example'), account(10, 'alice@isp.example', 'west.isp.example'));
    routes.apply({ type: 'put', record: dan });
    expect(routes.find(parseAccountName('d@later.example'))?.cluster).toBe('west.isp.example');
    routes.apply({ type: 'put', record: domain(1, 'isp.example', ['alias.example', 'later.example']) });
    expect(await mail.resolve(parseAccountName('d@later.example'))).toMatchObject({
      kind: 'local',
      uuid: uuidOf(30),
      name: 'd@later.example',
    });
    expect(await mail.resolve(parseAccountName('alice@alias.example'))).toEqual({
      kind: 'local',
      uuid: uuidOf(10),
      name: 'alice@alias.example',
      cluster: 'west.isp.example',
    });
  });

  it('knows a foreign domain by the list while the directory is followed, and asks while it is not', async () => {
    const { mail, directory } = mailRouter();
    expect(await mail.resolve(parseAccountName('a@elsewhere.example'))).toEqual({ kind: 'foreign-domain' });
    const frozen = mailRouter('frozen');
    const fresh = domain(4, 'new.example');
    frozen.directory.domains.set(fresh.name, fresh);
    expect((await frozen.mail.resolve(parseAccountName('a@new.example'))).kind).toBe('unknown');
    frozen.directory.isSubsetDown = true;
    expect((await frozen.mail.resolve(parseAccountName('a@newer.example'))).kind).toBe('temporary');
    expect(directory.asked).toEqual([]);
  });

  it('gives mail for addresses that nobody has to the domain’s catch-all, by the master’s word only', async () => {
    const { mail, routes, directory } = mailRouter();
    routes.apply({ type: 'put', record: { ...domain(1, 'isp.example', ['alias.example']), catchAll: alice } });
    const toAlice = { kind: 'local', uuid: uuidOf(10), name: alice, cluster: 'west.isp.example' };
    expect(await mail.resolve(parseAccountName('nobody@isp.example'))).toEqual(toAlice);
    expect(await mail.resolve(parseAccountName('nobody@alias.example'))).toEqual(toAlice);
    directory.isMasterDown = true;
    // It may be an account that was made a moment ago.
    expect((await mail.resolve(parseAccountName('new@isp.example'))).kind).toBe('temporary');
    directory.isMasterDown = false;
    // Of a domain that is not followed the entry says it.
    const frozen = mailRouter('frozen');
    const fresh = { ...domain(4, 'new.example'), catchAll: alice };
    frozen.directory.domains.set(fresh.name, fresh);
    expect(await frozen.mail.resolve(parseAccountName('a@new.example'))).toEqual(toAlice);
    // A catch-all that names nobody is a mistake to be mended, not a reason to send mail back.
    routes.apply({ type: 'put', record: { ...domain(1, 'isp.example'), catchAll: parseAccountName('gone@isp.example') } });
    expect(await mail.resolve(parseAccountName('nobody@isp.example'))).toMatchObject({ error: { code: 'ROUTE_NO_CATCH_ALL' } });
    expect(await mail.resolve(parseAccountName('gone@isp.example'))).toEqual({ kind: 'unknown' });
  });

  it('follows an account by its uuid to the name it has now', async () => {
    const { mail, directory } = mailRouter();
    directory.put(account(10, 'bob@isp.example', 'east.isp.example'));
    directory.subset.delete(alice);
    expect(await mail.resolveUuid(uuidOf(10))).toEqual({
      kind: 'local',
      uuid: uuidOf(10),
      name: 'bob@isp.example',
      cluster: 'east.isp.example',
    });
    expect((await mail.resolveUuid(uuidOf(99))).kind).toBe('unknown');
    directory.isMasterDown = true;
    expect((await mail.resolveUuid(uuidOf(98))).kind).toBe('temporary');
  });
});

describe('explaining a route', () => {
  it('shows every step, the choice of member and what is stale', async () => {
    const world = federation();
    world.directory.put(account(10, alice, 'east.isp.example'), 'master');
    const options = explaining(world);
    const explained = await explainRoute(options, 'Alice@ISP.example');
    expect(explained).toMatchObject({
      verdict: 'routed',
      uuid: uuidOf(10),
      hostServer: 'west.isp.example',
      member: 'back1.west.isp.example',
    });
    expect(explained.memberReason).toBe('equally loaded, by turns');
    expect(explained.steps.map(({ what }) => what)).toContain('comparison');
    world.opener.lastHosts.opened(parseAccountName('alice@isp.example'), parseMemberName('back2.west.isp.example'), true);
    expect(await explainRoute(options, 'Alice@ISP.example')).toMatchObject({
      member: 'back2.west.isp.example',
      memberReason: 'had the account open lately',
    });
    expect((await explainRoute(options, 'no such name')).verdict).toBe('unknown-account');
    expect((await explainRoute(options, 'nobody@isp.example')).verdict).toBe('unknown-account');
    world.directory.isMasterDown = true;
    expect((await explainRoute(options, 'someone@isp.example')).verdict).toBe('unavailable');
  });
});

describe('the topology and the domains', () => {
  it('follow renames and removals of their entries', () => {
    const { routes } = federation();
    routes.apply({ type: 'put', record: cluster(3, 'south.isp.example', ['back1']) });
    expect([...routes.topology.clusters.keys()].sort()).toEqual(['south.isp.example', 'west.isp.example']);
    routes.apply({ type: 'remove', uuid: uuidOf(3) });
    expect([...routes.topology.clusters.keys()]).toEqual(['west.isp.example']);
    routes.apply({ type: 'put', record: domain(1, 'isp.example', ['other.example']) });
    expect(routes.find(parseAccountName('alice@alias.example'))).toBeUndefined();
    expect(routes.find(parseAccountName('alice@other.example'))?.cluster).toBe('west.isp.example');
    routes.apply({ type: 'remove', uuid: uuidOf(1) });
    expect(routes.domains.count).toBe(0);
    expect(routes.find(alice)?.cluster).toBe('west.isp.example');
  });

  it('give a name back that two domains had claimed', () => {
    const { routes } = federation();
    routes.apply({ type: 'put', record: domain(5, 'alias.example') });
    expect(routes.domains.canonicalAddress(parseAccountName('a@alias.example'))).toBe('a@alias.example');
    routes.apply({ type: 'remove', uuid: uuidOf(5) });
    expect(routes.domains.canonicalAddress(parseAccountName('a@alias.example'))).toBe('a@isp.example');
  });
});
