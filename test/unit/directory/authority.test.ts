/** Who may write a server, as its place among the others changes. */
import { expect, onTestFinished, test } from 'vitest';
import { type AuthorityAnswer, type AuthorityRequest, askAuthority, makeFence } from '#directory/client/authority.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { BerWriter, berTags } from '#protocol/ldap/ber.ts';
import { relax } from '#protocol/ldap/controls.ts';
import { attribute, extendedOids, textsOf } from '#protocol/ldap/messages.ts';
import { accountDn, accountEntry, addFrame, startTestDirectory, type TestDirectory } from './test-directory.ts';

async function start(options: Parameters<typeof startTestDirectory>[0] = {}): Promise<TestDirectory> {
  const started = await startTestDirectory({ placement: 'none', ...options });
  onTestFinished(() => started[Symbol.asyncDispose]());
  await using admin = await started.connect('admin');
  await addFrame(admin);
  await admin.add(accountDn('alice'), accountEntry('alice'));
  return started;
}

async function ask(server: TestDirectory, request: AuthorityRequest): Promise<AuthorityAnswer> {
  await using connection = await server.connect('admin');
  return await askAuthority(connection, request);
}

const writes = (replicator: LdapConnection, term: number, lease: number): Promise<unknown> =>
  replicator.modify(
    accountDn('alice'),
    [{ kind: 'replace', attribute: attribute('description', `by ${term}.${lease}`) }],
    [relax, makeFence(term, lease)],
  );

const elsewhere = 'ldap://127.0.0.1:1';

test('a replica that has become the master takes no write of the replication that fed it', async () => {
  const server = await start();
  await ask(server, { op: 'follow', term: 2, master: elsewhere });
  await ask(server, { op: 'keep', set: { lease: '7 one', beat: '1' } });
  await using replicator = await server.connect('replicator');
  await writes(replicator, 2, 7);
  await ask(server, { op: 'promote', term: 3 });
  // Sent before the promotion, or by a service that was stopped for longer.
  await expect(writes(replicator, 2, 7)).rejects.toThrow('this server is the master of term 3; replication of term 2 writes it no more');
});

test('a lease that is not the present one writes nothing, also where its number is the higher one since an older copy was put back', async () => {
  const server = await start();
  await ask(server, { op: 'follow', term: 2, master: elsewhere });
  await ask(server, { op: 'keep', set: { lease: '7 one', beat: '1' } });
  await using replicator = await server.connect('replicator');
  await writes(replicator, 2, 7);
  // As the copy has it, and as the other service goes on from there.
  await ask(server, { op: 'keep', set: { lease: '4 one', beat: '9' } });
  await ask(server, { op: 'keep', set: { lease: '5 two', beat: '1' }, expect: { lease: '4 one' } });
  await writes(replicator, 2, 5);
  await expect(writes(replicator, 2, 7)).rejects.toThrow('another replication service writes this replica: lease 5, not 7');
  await expect(writes(replicator, 2, 4)).rejects.toThrow('another replication service writes this replica: lease 5, not 4');
  await expect(writes(replicator, 1, 5)).rejects.toThrow('the write comes from term 1');
});

test('a new password is not kept by a server that hands over while it is hashed', async () => {
  const server = await start({ scramIterations: 1_000_000 });
  await using admin = await server.connect('admin');
  const passwords = async (): Promise<string[]> =>
    textsOf((await admin.readEntry(accountDn('alice'), ['userPassword']))?.attributes ?? [], 'userPassword');
  await using user = await server.connect('admin');
  const writer = new BerWriter();
  // RFC 3062 §2.
  const opened = writer.open(berTags.sequence);
  writer.text(accountDn('alice'), 0x80);
  writer.text('new-password', 0x82);
  writer.close(opened);
  const changing = user.extended(extendedOids.passwordModify, writer.take()).catch((error: unknown) => error);
  const frozen = await askAuthority(admin, { op: 'freeze', seconds: 60 });
  const before = await passwords();
  await askAuthority(admin, { op: 'follow', term: 2, master: elsewhere, handsOver: frozen.contextCsn });
  const outcome = await changing;
  // Answered before the freeze, or refused: never kept after it.
  expect(await passwords()).toEqual(before);
  if (before.length === 0) expect(outcome).toMatchObject({ message: expect.stringContaining('refers to') });
});
