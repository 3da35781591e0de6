import { describe, expect, it } from 'vitest';
import type { PlatformError } from '#common/errors/platform-error.ts';
import { parseClusterName, parseMemberName } from '#common/host-server.ts';
import { Secret } from '#common/secret.ts';
import type { ClusterRecord, ForeignService } from '#directory/client/records.ts';
import { defaultForeignSettings, type ForeignSettings } from '#frontend/foreign/settings.ts';
import { type Credentials, passwordOf } from '#frontend/session/credentials.ts';
import type { LoginResult } from '#frontend/session/open-session.ts';
import type { MemoryConnection } from '#test/fakes/memory-connection.ts';
import { account, domain, type Federation, federation, uuidOf } from '../fakes.ts';

const legacy = parseClusterName('legacy.isp.example');
const services: readonly ForeignService[] = [
  { protocol: 'imap', port: 143, tls: 'none' },
  { protocol: 'lmtp', port: 24, tls: 'none' },
];

function foreignCluster(weights: Readonly<Record<string, number>> = { dove1: 100, dove2: 100 }, offered = services): ClusterRecord {
  const members = Object.entries(weights).map(([label, weight]) => ({
    name: parseMemberName(`${label}.legacy.isp.example`),
    host: label,
    port: 0,
    weight,
  }));
  return {
    kind: 'cluster',
    uuid: uuidOf(4),
    dn: 'cn=legacy',
    name: legacy,
    members,
    weight: 100,
    region: undefined,
    foreign: offered,
    csn: '1',
  };
}

/** An IMAP server of one host: it notes logins and lets those in whose password is right. */
function imapServer(logins: string[], host: string, connections: MemoryConnection[] = [], early = '') {
  return (connection: MemoryConnection): void => {
    connections.push(connection);
    connection.write('* OK ready\r\n');
    connection.handle({
      data: (chunk) => {
        const line = /L LOGIN "([^"]*)" "([^"]*)"/.exec(chunk.toString());
        if (line === null) return;
        logins.push(`${line[1]} at ${host}`);
        connection.write(
          line[2] === 'wonderland' ? `L OK [CAPABILITY IMAP4rev1 IDLE] in\r\n${early}` : 'L NO [AUTHENTICATIONFAILED] no\r\n',
        );
      },
      close: () => {},
    });
  };
}

function world(settings?: Partial<ForeignSettings>, cluster = foreignCluster()) {
  const records = [
    domain(1, 'isp.example', ['alias.example']),
    cluster,
    account(10, 'alice@isp.example', 'legacy.isp.example', ['al@isp.example']),
  ];
  const made = federation({
    records,
    ...(settings === undefined ? {} : { foreignSettings: new Map([[legacy, { ...defaultForeignSettings, ...settings }]]) }),
  });
  made.routes.watcher = {
    account: (name, hostServer) => made.foreign.moved(name, hostServer === legacy ? { cluster, pinned: undefined, name } : undefined),
    clusters: (clusters) => made.foreign.recheck(clusters),
    subsets: () => {},
  };
  const logins: string[] = [];
  const connections: MemoryConnection[] = [];
  for (const label of ['dove1', 'dove2']) made.foreignHosts.servers.set(`${label}:143`, imapServer(logins, label, connections));
  return { ...made, logins, connections };
}

function login(made: Federation, loginName = 'alice@isp.example', password = 'wonderland'): Promise<LoginResult> {
  return loginWith(made, loginName, passwordOf(password));
}

async function loginWith(made: Federation, loginName: string, credentials: Credentials): Promise<LoginResult> {
  let result: LoginResult | undefined;
  const client = { address: '192.0.2.1', port: 4711, tls: true };
  void made.opener.open({ service: 'imap', sessionId: 's1', loginName, credentials, client }).then((answer) => {
    result = answer;
  });
  for (let i = 0; i < 200 && result === undefined; i += 1) await made.clock.advance(100);
  if (result === undefined) throw new Error('no answer within 20 s');
  return result;
}

const shown = (result: LoginResult): string => (result.ok ? `${result.accountName} on ${result.member}` : result.error.code);

describe('a login to an account of a foreign cluster', () => {
  it('goes to one host, by whatever address the account is named', async () => {
    const made = world();
    const first = await login(made);
    expect(shown(first)).toMatch(/^alice@isp.example on dove[12].legacy.isp.example$/);
    for (const name of ['ALICE@isp.example', 'alice@alias.example', 'al@isp.example', 'alice']) {
      expect(shown(await login(made, name))).toBe(shown(first));
    }
    expect(new Set(made.logins).size).toBe(1);
  });

  it('is put off where it names a further address and no directory server knows whose', async () => {
    const made = world();
    made.directory.isSubsetDown = true;
    made.directory.isMasterDown = true;
    expect(shown(await login(made, 'al@isp.example'))).toBe('DIR_UNAVAILABLE');
    expect(shown(await login(made, 'alice@isp.example'))).toMatch(/^alice@isp.example on /);
  });

  it('is refused as the server refuses it', async () => {
    expect(shown(await login(world(), 'alice', 'wrong'))).toBe('AUTH_FAILED');
  });

  it.each([
    ['passed', undefined],
    [
      'judged by the directory',
      { login: { kind: 'master-user', name: 'master', password: new Secret('m'), form: 'sasl', separator: '*' } },
    ],
  ] as const)('is put off, and nothing held against it, when a SCRAM exchange would have to be %s', async (_how, settings) => {
    const made = world(settings);
    const scram: Credentials = { kind: 'scram', authMessage: 'n=,r=a', proof: new Secret('cHJvb2Y=') };
    const result = await loginWith(made, 'alice', scram);
    expect(result.ok || [result.error.code, result.error.kind]).toEqual(['AUTH_MECHANISM', 'unavailable']);
    expect(made.guard.entries(10)).toEqual([]);
    expect(made.opener.counts).toEqual({ ok: 0, failed: 0, refused: 1 });
  });

  it('hands over what the server said after its login, and what it offers', async () => {
    const made = world();
    for (const label of ['dove1', 'dove2']) {
      made.foreignHosts.servers.set(`${label}:143`, imapServer([], label, [], '* 3 EXISTS\r\n'));
    }
    const result = await login(made);
    expect(result.ok && [result.early?.toString(), result.capabilities]).toEqual(['* 3 EXISTS\r\n', ['IMAP4rev1', 'IDLE']]);
  });

  it('leaves a host that refuses connections, probes it, and ends the session elsewhere once it is back', async () => {
    const made = world();
    const home = shown(await login(made)).replace(/.* on (dove[12]).*/, '$1');
    const other = home === 'dove1' ? 'dove2' : 'dove1';
    const serve = made.foreignHosts.servers.get(`${home}:143`);
    made.connections.pop()?.destroy();
    made.foreignHosts.servers.delete(`${home}:143`);
    const away = await login(made);
    expect(shown(away)).toBe(`alice@isp.example on ${other}.legacy.isp.example`);
    let ended = false;
    if (away.ok)
      away.channel.handle({
        data: () => {},
        close: () => {
          ended = true;
        },
      });
    if (serve !== undefined) made.foreignHosts.servers.set(`${home}:143`, serve);
    for (let i = 0; i < 300 && !ended; i += 1) await made.clock.advance(100);
    expect(ended).toBe(true);
    if (away.ok) away.ended?.();
    expect(shown(await login(made))).toBe(`alice@isp.example on ${home}.legacy.isp.example`);
  });

  it('stays where it is, for now in vain, where only the operator moves accounts', async () => {
    const made = world({ failover: 'operator' });
    const home = shown(await login(made)).replace(/.* on (dove[12]).*/, '$1');
    made.foreignHosts.servers.delete(`${home}:143`);
    expect(shown(await login(made))).toBe('NET_CONNECT_FAILED');
    expect(shown(await login(made))).toBe('FOREIGN_NO_HOST');
  });

  it('ends the session when the account is pinned to another host, or leaves the cluster', async () => {
    const made = world();
    const result = await login(made);
    let ended = false;
    if (result.ok)
      result.channel.handle({
        data: () => {},
        close: () => {
          ended = true;
        },
      });
    made.routes.apply({ type: 'put', record: account(10, 'alice@isp.example', 'west.isp.example') });
    await made.clock.advance(100);
    expect(ended).toBe(true);
  });

  it('is put off where the cluster has no such service', async () => {
    const made = world(undefined, foreignCluster(undefined, []));
    expect(shown(await login(made))).toBe('FOREIGN_NO_SERVICE');
  });

  it('takes the master user’s refusal for no word on the password', async () => {
    const made = world({ login: { kind: 'master-user', name: 'master', password: new Secret('key'), form: 'separator', separator: '*' } });
    expect(shown(await login(made))).toBe('FOREIGN_REFUSED');
    expect(made.logins).toEqual([expect.stringMatching(/^alice@isp.example\*master at /)]);
    expect(shown(await login(made, 'alice', 'wrong'))).toBe('AUTH_FAILED');
  });
});

describe('a foreign host that lies', () => {
  /** Both hosts do as they are told at every piece of a client; without an end where that says so. */
  function lying(greeting: string, answer: (connection: MemoryConnection, said: string) => void, settings?: Partial<ForeignSettings>) {
    const made = world(settings);
    const open: MemoryConnection[] = [];
    for (const label of ['dove1', 'dove2']) {
      made.foreignHosts.servers.set(`${label}:143`, (connection) => {
        open.push(connection);
        if (greeting !== '') connection.write(greeting);
        connection.handle({
          data: (chunk) => answer(connection, chunk.toString()),
          close: () => void open.splice(open.indexOf(connection), 1),
        });
      });
    }
    return { ...made, open };
  }
  const endless = (piece: string) => (connection: MemoryConnection) => {
    for (let sent = 0; sent < 16; sent += 1) connection.write(piece.repeat(Math.ceil(32_768 / piece.length)));
  };

  it.each([
    ['says more and more before it answers', endless('* OK still here\r\n'), 'FOREIGN_PROTOCOL'],
    ['says a line without an end', endless('* OK still here '), 'FOREIGN_PROTOCOL'],
    ['asks one thing after another', (connection: MemoryConnection) => connection.write(`+ ${'x'.repeat(10_000)}\r\n`), 'FOREIGN_PROTOCOL'],
    ['says goodbye', (connection: MemoryConnection) => connection.write('* BYE no\r\n'), 'NET_CLOSED'],
    ['hangs up', (connection: MemoryConnection) => connection.destroy(), 'NET_CLOSED'],
    ['ends without a word', (connection: MemoryConnection) => connection.end(), 'NET_CLOSED'],
    ['puts it off', (connection: MemoryConnection) => connection.write('L NO [UNAVAILABLE] later\r\n'), 'FOREIGN_UNAVAILABLE'],
  ] as const)('and %s is put off, and its connections are closed', async (_what, answer, code) => {
    const made = lying('* OK ready\r\n', answer, { login: { kind: 'passed' } });
    const result = await login(made, 'alice', 'wünderland');
    expect(shown(result)).toBe(code);
    await made.clock.advance(0);
    expect(made.open).toEqual([]);
    expect(made.guard.entries(10)).toEqual([]);
  });

  it.each([
    ['in a refusal', '* OK ready\r\n', 'L BAD what is '],
    ['instead of a greeting', '', '500 '],
  ])('and repeats the password %s brings it into no log', async (_what, greeting, before) => {
    for (const password of ['won"der\\land', 'wünderland']) {
      const made = lying(greeting, (connection, said) => void connection.write(`${before}${said}`));
      const result = await login(made, 'alice', password);
      expect(result.ok || [result.error.kind, result.error.message]).toEqual(['unavailable', expect.stringContaining('***')]);
      const secrets = [password, password.replace(/["\\]/g, '\\$&'), Buffer.from(`\0alice@isp.example\0${password}`).toString('base64')];
      const kept = JSON.stringify([made.lines, ...foreignCluster().members.map((host) => made.foreign.hostStatus(host))]);
      for (const secret of secrets) expect(kept).not.toContain(JSON.stringify(secret).slice(1, -1));
    }
  });

  it('and accepts connections without a word is left until it greets', async () => {
    const made = lying('', () => {}, { early: false });
    const { servers } = made.foreignHosts;
    const home = () =>
      made.foreign.choose({ cluster: foreignCluster(), pinned: undefined, name: account(10, 'alice@isp.example', undefined).name });
    const first = home()?.host.host as string;
    const other = first === 'dove1' ? 'dove2' : 'dove1';
    servers.set(`${other}:143`, imapServer(made.logins, other));
    let result: LoginResult | undefined;
    const client = { address: '192.0.2.1', port: 4711, tls: true };
    const request = { service: 'imap', sessionId: 's1', loginName: 'alice', credentials: passwordOf('wonderland'), client } as const;
    void made.opener.open(request).then((answer) => {
      result = answer;
    });
    for (let i = 0; i < 300 && result === undefined; i += 1) await made.clock.advance(100);
    expect(result?.ok && result.member).toBe(`${other}.legacy.isp.example`);
    for (let i = 0; i < 600; i += 1) {
      await made.clock.advance(100);
      expect(home()?.host.host).toBe(other);
    }
    expect(made.foreignHosts.dialled.filter((address) => address === `${first}:143`).length).toBeGreaterThan(2);
    expect(made.open.length).toBeLessThan(2);
    servers.set(`${first}:143`, (connection) => void connection.write('* OK back\r\n'));
    for (let i = 0; i < 600 && home()?.host.host === other; i += 1) await made.clock.advance(100);
    expect(home()?.host.host).toBe(first);
  });
});

describe('mail for an account of a foreign cluster', () => {
  it('goes to the host that its sessions are on', async () => {
    const made = world();
    const result = await login(made);
    const host = result.ok ? result.member : '';
    const delivered: string[] = [];
    for (const label of ['dove1', 'dove2']) made.foreignHosts.servers.set(`${label}:24`, () => delivered.push(label));
    const choice = made.foreign.choose({
      cluster: foreignCluster(),
      pinned: undefined,
      name: account(10, 'alice@isp.example', undefined).name,
    });
    const delivery = await made.opener.openDelivery(parseClusterName(choice?.host.name ?? ''));
    delivery.connection.destroy();
    expect(delivered.map((label) => `${label}.legacy.isp.example`)).toEqual([host]);
  });

  it('tells in few words of a host that says something long', async () => {
    const made = world();
    const offered: readonly ForeignService[] = [{ protocol: 'lmtp', port: 24, tls: 'starttls' }];
    const cluster = foreignCluster(undefined, offered);
    made.foreignHosts.servers.set('dove1:24', (connection) => void connection.write(`${'x'.repeat(10_000)}\r\n`));
    const host = cluster.members[0] as (typeof cluster.members)[number];
    const error: PlatformError = await made.foreign.openDelivery(cluster, host).catch((thrown) => thrown);
    expect(error.code).toBe('FOREIGN_PROTOCOL');
    expect(error.message.length).toBeLessThan(1_000);
    expect(made.foreign.hostStatus(host).lastError?.length).toBeLessThan(1_000);
  });
});
