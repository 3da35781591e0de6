/** What a look-up says of entries that are there and not shown as a whole: never that there are none. */
import { expect, it } from 'vitest';
import { parseAccountName, parseAccountUuid, parseDomainName } from '#common/account-name.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { openDirectoryReader } from '#directory/client/lookup.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { scriptedNetwork, success } from './scripted-server.ts';

const url = 'ldap://ldap.isp.example';
const access = { urls: [url], master: url, suffix: 'o=mail', bindDn: 'cn=reader', password: new Secret('secret'), timeoutMs: 1000 };
const alice = parseAccountName('alice@isp.example');
const uuid = '00000010-0000-4000-8000-000000000000';
const hidden = [
  attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
  attribute('mail', alice),
  attribute('hostServer', 'west.isp.example'),
];

/** A reader at a master that finds one entry, by the search with this base. */
function readerOf(base: string, dn: string, attributes: readonly Attribute[]) {
  const { network } = scriptedNetwork({
    389: ({ id, operation }, server) => {
      if (operation.type === 'bindRequest') server.send(id, { type: 'bindResponse', ...success });
      if (operation.type !== 'searchRequest') return;
      if (operation.baseDn === base) server.send(id, { type: 'searchResultEntry', dn, attributes: [...attributes] });
      server.send(id, { type: 'searchResultDone', ...success });
    },
  });
  return openDirectoryReader({
    access,
    withPasswords: false,
    ports: { clock: new FakeClock(), random: systemRandom, network, log: silentLogger },
  });
}

const aliceDn = `uid=alice,cn=isp.example,o=mail`;

it.each([
  ['by its name', aliceDn],
  ['by an address', 'o=mail'],
])('does not say that an account is nobody’s whose entryUUID is hidden, found %s', async (_how, base) => {
  await using reader = readerOf(base, aliceDn, hidden);
  const refusal = { code: 'DIR_ENTRY_UNREADABLE', message: expect.stringContaining('no entryUUID that this identity may read') };
  for (const authoritative of [false, true]) await expect(reader.findAccount(alice, { authoritative })).rejects.toMatchObject(refusal);
  await using whole = readerOf(base, aliceDn, [...hidden, attribute('entryUUID', uuid)]);
  expect(await whole.findAccount(alice)).toMatchObject({ record: { name: alice, uuid: parseAccountUuid(uuid) }, authoritative: true });
});

it('does not say that a domain is not ours whose entryUUID is hidden, and lists without such entries', async () => {
  const isp = parseDomainName('isp.example');
  await using reader = readerOf('o=mail', 'cn=isp.example,o=mail', [attribute('objectClass', 'mailDomain'), attribute('cn', isp)]);
  await expect(reader.findDomain(isp)).rejects.toMatchObject({ code: 'DIR_ENTRY_UNREADABLE' });
  await using lists = readerOf('o=mail', aliceDn, hidden);
  expect(await lists.listAccounts({}, 10)).toEqual([]);
});
