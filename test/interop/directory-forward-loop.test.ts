/** Replicas that forward their writers, while which server is the master changes or is not settled. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { type AuthorityRequest, askAuthority } from '#directory/client/authority.ts';
import { attribute, extendedOids } from '#protocol/ldap/messages.ts';
import {
  accountDn,
  accountEntry,
  addFrame,
  identityDn,
  servicePassword,
  startTestDirectory,
  type TestDirectory,
} from '../unit/directory/test-directory.ts';
import { freePort } from './slapd-server.ts';

/** Servers that forward when they are replicas; the first one is the master. */
async function startForwarding(count: number): Promise<TestDirectory[]> {
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-loop-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const password = { file: join(folder, 'secret') };
  await writeFile(password.file, servicePassword);
  const forwarder = 'cn=forwarder,ou=services,o=mail';
  const rights = ['admin', 'replicator', 'provisioner'] as const;
  const identities = [
    ...rights.map((one) => ({ dn: identityDn(one), rights: one, password })),
    { dn: forwarder, rights: 'frontend', password, actsForOthers: true } as const,
  ];
  const ports = await Promise.all(Array.from({ length: count }, () => freePort()));
  const started: TestDirectory[] = [];
  for (const [i, port] of ports.entries()) {
    const one = await startTestDirectory({
      ...(i === 0 ? { mode: 'master' } : { mode: 'replica', master: `ldap://127.0.0.1:${ports[0]}` }),
      listeners: [{ address: '127.0.0.1', port, tls: 'none' }],
      identities,
      placement: 'none',
      writes: 'forward',
      forwardAs: { bindDn: forwarder, bindPassword: password, timeoutMs: 10_000, waitMs: 0 },
    });
    onTestFinished(() => one[Symbol.asyncDispose]());
    started.push(one);
  }
  return started;
}

async function tell(server: TestDirectory, request: AuthorityRequest): Promise<void> {
  await using connection = await server.connect('admin');
  await askAuthority(connection, request);
}

const writesAt = ({ running }: TestDirectory): number => {
  const { add = 0, extended = 0 } = running.status().operations;
  return add + extended;
};

test('two replicas that take each other for the master answer at once that nobody is, and send a write on no more than twice', async () => {
  const [a, b] = (await startForwarding(2)) as [TestDirectory, TestDirectory];
  // As far as a promotion of b comes that is broken off after the old master has handed over.
  await tell(a, { op: 'follow', term: 2, master: b.url });
  for (const at of [a, b]) {
    await using client = await at.connect('provisioner');
    const before = writesAt(a) + writesAt(b);
    const nobody = { code: 'DIR_BUSY', message: expect.stringContaining('no server takes writes now') };
    await expect(client.add(accountDn('alice'), accountEntry('alice'))).rejects.toMatchObject(nobody);
    await expect(client.extended(extendedOids.passwordModify)).rejects.toMatchObject(nobody);
    expect(writesAt(a) + writesAt(b) - before).toBeLessThanOrEqual(2 * 3);
  }
});

test('a write that comes to the old master is sent to the new one after all', async () => {
  const [a, c] = (await startForwarding(2)) as [TestDirectory, TestDirectory];
  const [next] = (await startForwarding(1)) as [TestDirectory];
  for (const one of [a, next]) {
    await using admin = await one.connect('admin');
    await addFrame(admin);
    await admin.add(accountDn('alice'), accountEntry('alice'));
  }
  await using client = await c.connect('provisioner');
  const describes = (text: string): Promise<unknown> =>
    client.modify(accountDn('alice'), [{ kind: 'replace', attribute: attribute('description', text) }]);
  await describes('by the first');
  await tell(next, { op: 'promote', term: 2 });
  await tell(a, { op: 'follow', term: 2, master: next.url });
  // Within the second for which c takes a for the master without asking.
  await describes('by the second');
  await using reader = await next.connect('admin');
  const entry = await reader.readEntry(accountDn('alice'), ['description']);
  expect(entry?.attributes.map(({ values }) => String(values))).toEqual(['by the second']);
});
