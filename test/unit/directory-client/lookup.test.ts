/** What a look-up says of entries that are there and not shown as a whole: never that there are none. */
import { expect, it } from 'vitest';
import { parseAccountName, parseAccountUuid, parseDomainName } from '#common/account-name.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { openDirectoryReader } from '#directory/client/lookup.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import { type Attribute, attribute, textsOf } from '#protocol/ldap/messages.ts';
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

interface Found {
  readonly base: string;
  readonly dn: string;
  readonly attributes: readonly Attribute[];
}

/** A reader at a master that finds an entry, by the search with this base. */
function readerOf(base: string, dn: string, attributes: readonly Attribute[]) {
  return readerOfAll([{ base, dn, attributes }]).reader;
}

/** A reader at a master that finds these, each by the search for accounts with its base; and what is told. */
function readerOfAll(all: readonly Found[]) {
  const { network } = scriptedNetwork({
    389: ({ id, operation }, server) => {
      if (operation.type === 'bindRequest') server.send(id, { type: 'bindResponse', ...success });
      if (operation.type !== 'searchRequest') return;
      for (const { base, dn, attributes } of all)
        if (operation.baseDn === base && hasClassOf(operation.filter, attributes))
          server.send(id, { type: 'searchResultEntry', dn, attributes: [...attributes] });
      server.send(id, { type: 'searchResultDone', ...success });
    },
  });
  const told: string[] = [];
  const log: Logger = { ...silentLogger, warn: (_fields: Record<string, unknown>, message: string) => void told.push(message) };
  const ports = { clock: new FakeClock(), random: systemRandom, network, log };
  return { reader: openDirectoryReader({ access, withPasswords: false, ports }), told };
}

/** As the filter wants it: both kinds of entries may be at the same place. */
function hasClassOf(filter: Filter, attributes: readonly Attribute[]): boolean {
  if (filter.kind === 'and') return filter.filters.some((part) => hasClassOf(part, attributes));
  return filter.kind === 'equal' && textsOf(attributes, filter.attribute).includes(filter.value.toString());
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

const bobDn = 'uid=bob,cn=isp.example,o=mail';
const carolDn = 'uid=carol,cn=isp.example,o=mail';
const entryUuid = (number: number): Attribute => attribute('entryUUID', `0000001${number}-0000-4000-8000-000000000000`);

it('takes the account whose name it is, whoever else has the address, hidden or not', async () => {
  const named = { base: aliceDn, dn: aliceDn, attributes: [...hidden, entryUuid(0)] };
  const others = [
    { base: 'o=mail', dn: bobDn, attributes: hidden },
    { base: 'o=mail', dn: carolDn, attributes: [...hidden, entryUuid(2)] },
  ];
  for (const more of [others, others.slice(0, 1), others.slice(1)]) {
    const { reader, told } = readerOfAll([named, ...more]);
    await using _ = reader;
    expect(await reader.findAccount(alice)).toMatchObject({ record: { name: alice, uuid: parseAccountUuid(uuid) }, authoritative: true });
    expect(told).toEqual([]);
  }
});

it('takes nobody for the owner of an address that several accounts have, and says who they are, while the server is in use all the same', async () => {
  const found = [
    { base: 'o=mail', dn: bobDn, attributes: [...hidden, entryUuid(1)] },
    { base: 'o=mail', dn: carolDn, attributes: [...hidden, entryUuid(2)] },
  ];
  const { reader, told } = readerOfAll(found);
  await using _ = reader;
  const message = `2 accounts have the address ${alice}: ${bobDn}; ${carolDn}. Take it from all but one`;
  for (const authoritative of [false, true]) {
    await expect(reader.findAccount(alice, { authoritative })).rejects.toMatchObject({ code: 'DIR_ADDRESS_AMBIGUOUS', message });
  }
  expect(told).toEqual([message, message]);
  expect((await reader.servers())[0]).toMatchObject({ reachable: true, lastError: undefined });
  // One that is hidden may be its owner as well.
  const { reader: partly } = readerOfAll([{ base: 'o=mail', dn: bobDn, attributes: hidden }, ...found.slice(1)]);
  await using __ = partly;
  await expect(partly.findAccount(alice)).rejects.toMatchObject({ code: 'DIR_ENTRY_UNREADABLE' });
});
