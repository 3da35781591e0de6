import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { resultName } from '#protocol/ldap/result-codes.ts';
import { accountDn, accountEntry, addFrame, startTestDirectory, type TestDirectory } from './test-directory.ts';

const legacy = 'cn=legacy.isp.example,ou=topology,o=mail';
let directory: TestDirectory;
let admin: LdapConnection;

const entry = (members: readonly string[], services: readonly string[], classes = ['mailCluster', 'foreignCluster']) => [
  attribute('objectClass', ...classes),
  attribute('clusterMember', ...members),
  ...(services.length === 0 ? [] : [attribute('foreignService', ...services)]),
];

beforeAll(async () => {
  directory = await startTestDirectory();
  admin = await directory.connect();
  await addFrame(admin);
  await admin.add(
    legacy,
    entry(['dove1.legacy.isp.example 192.0.2.1', 'dove2.legacy.isp.example dove2.example weight=0'], ['imap 143 starttls']),
  );
});
afterAll(async () => {
  await admin[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

async function outcome(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'success';
  } catch (thrown) {
    const code = resultCodeOf(thrown);
    return `${code === undefined ? 'no code' : resultName(code)}: ${(thrown as Error).message}`;
  }
}

const host = (uid: string, value: string) =>
  outcome(admin.modify(accountDn(uid), [{ kind: 'replace', attribute: attribute('hostServer', value) }]));

describe('a foreign cluster', () => {
  test.each([
    [['back1.north.isp.example 192.0.2.1'], ['imap 143 none'], /names no host of the foreign cluster/],
    [['dove1.bad.isp.example 192.0.2.1 weight=101'], ['imap 143 none'], /names no host of the foreign cluster/],
    [['dove1.bad.isp.example 192.0.2.1'], ['gopher 70 none'], /foreignService "gopher 70 none" is malformed/],
    [['dove1.bad.isp.example 192.0.2.1'], ['imap 0 none'], /is malformed/],
    [['dove1.bad.isp.example 192.0.2.1'], ['imap 143 maybe'], /is malformed/],
    [['dove1.bad.isp.example 192.0.2.1'], [], /foreignService/],
  ])('with members %j and services %j is refused', async (members, services, text) => {
    expect(await outcome(admin.add('cn=bad.isp.example,ou=topology,o=mail', entry(members, services)))).toMatch(text);
  });

  test('gets no account by itself', async () => {
    for (let i = 0; i < 6; i += 1) await admin.add(accountDn(`new${i}`), accountEntry(`new${i}`));
    const hosts = await Promise.all(
      Array.from({ length: 6 }, async (_, i) =>
        (await admin.readEntry(accountDn(`new${i}`), ['hostServer']))?.attributes[0]?.values[0]?.toString(),
      ),
    );
    expect(new Set(hosts)).toEqual(new Set(['east.isp.example', 'west.isp.example']));
  });

  test('hosts an account by its name or by a host’s, between which it moves without the relax control', async () => {
    await admin.add(accountDn('dora'), [...accountEntry('dora'), attribute('hostServer', 'legacy.isp.example')]);
    expect(await host('dora', 'dove2.legacy.isp.example')).toBe('success');
    expect(await host('dora', 'Dove1.legacy.isp.example')).toBe('success');
    expect(await host('dora', 'legacy.isp.example')).toBe('success');
    expect(await host('dora', 'dove3.legacy.isp.example')).toMatch(/^constraintViolation: .*names no cluster of the topology/);
    expect(await host('dora', 'west.isp.example')).toMatch(
      /^unwillingToPerform: .*would become west\.isp\.example: this attribute does not move/,
    );
  });
});
