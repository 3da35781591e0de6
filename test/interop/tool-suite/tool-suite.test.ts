/**
 * Client programs and libraries that are not ours, each asking our server and a stock slapd the same things: client x case x server. The
 * answers must be equal, order and values that servers make up aside; where they are not, the table says why.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attribute } from '#protocol/ldap/messages.ts';
import { admin, casesFor, roomOf, seedOf } from './cases.ts';
import { ldapvi } from './client-ldapvi.ts';
import { ldapjsClient, ldaptsClient } from './client-node.ts';
import { openldapTools, openldapToolsOverLdapi } from './client-openldap.ts';
import { ldap3, php, pythonLdap, runScript } from './client-scripts.ts';
import { type Answer, type Client, comparable, type Task } from './model.ts';
import { connectAdmin, type ServerPair, startServers } from './servers.ts';

const clients: readonly Client[] = [openldapTools, openldapToolsOverLdapi, ldap3, pythonLdap, php, ldaptsClient, ldapjsClient, ldapvi];

let servers: ServerPair;
beforeAll(async () => {
  servers = await startServers();
});
afterAll(async () => {
  await servers?.[Symbol.asyncDispose]();
});

describe.each(clients.map((client, number) => [client.name, client, number] as const))('%s', (_name, client, number) => {
  const room = roomOf(number);
  const cases = casesFor(room).map((one) => ({
    ...one,
    task: { who: one.who ?? admin, step: one.step, controls: one.controls ?? [] } as Task,
  }));
  const able = new Set<string>();
  const usable = cases.filter(({ name, task, after = [] }) => {
    const isAble = client.cannot(task) === undefined && after.every((before) => able.has(before));
    if (isAble) able.add(name);
    return isAble;
  });
  const answers = new Map<string, readonly [ours: Answer, slapd: Answer]>();

  beforeAll(async () => {
    for (const server of [servers.ours, servers.slapd]) {
      await using connection = await connectAdmin(server);
      for (const [dn, attributes] of seedOf(room)) {
        await connection.add(
          dn,
          Object.entries(attributes).map(([type, values]) => attribute(type, ...values)),
        );
      }
    }
    const tasks = usable.map(({ task }) => task);
    const ours = await client.run(servers.ours, tasks);
    const slapd = await client.run(servers.slapd, tasks);
    usable.forEach(({ name }, i) => {
      answers.set(name, [ours[i] as Answer, slapd[i] as Answer]);
    });
  });

  test.each(usable.map((one) => [one.name, one] as const))('%s', (name, { code = 0, compare, differs }) => {
    const [ours, slapd] = answers.get(name) as readonly [Answer, Answer];
    const form = { ordered: compare === 'ordered', countOnly: compare === 'count' };
    // A client that refuses by itself, as one that knows the schema, does so for both.
    if (code !== 'any' && slapd.code !== -1) expect(slapd.code, slapd.text).toBe(code);
    if (differs !== undefined && 'ours' in differs) {
      expect(ours.code, `${differs.why}: ${ours.text}`).toBe(differs.ours);
      return;
    }
    const left = Object.fromEntries((differs?.in ?? []).map((part) => [part, undefined]));
    expect({ ...comparable(ours, form), ...left }, `ours: ${ours.text}\nslapd: ${slapd.text}`).toEqual({
      ...comparable(slapd, form),
      ...left,
    });
  });
});

describe('what tools learn of the server', () => {
  test('ldap3 reads the root DSE and schema of both, and checks names by them', async () => {
    const [ours, slapd] = await both('client_ldap3.py', { schema: true });
    for (const seen of [ours.schema, slapd.schema] as Ldap3Schema[]) {
      expect(seen).toMatchObject({ namingContexts: ['o=mail'], versions: [3], found: true });
      expect(seen.refused).toEqual(['LDAPAttributeError', 'LDAPAttributeError', 'LDAPObjectClassError']);
      expect(seen.attributes).toEqual(expect.arrayContaining(['hostserver', 'mailalternateaddress', 'uid', 'entryuuid']));
      expect(seen.classes).toEqual(expect.arrayContaining(['mailaccount', 'maildomain', 'mailcluster', 'inetorgperson']));
    }
  });

  test("python-ldap's strict parser reads every definition of ours, and what slapd defines too is defined alike", async () => {
    const [ours, slapd] = (await both('client_python_ldap.py', { schema: true })).map((one) => one.schema as PythonSchema);
    expect(ours?.errors).toEqual([]);
    const shared = Object.entries(ours?.definitions ?? {}).filter(([name]) => slapd?.definitions[name] !== undefined);
    expect(shared.length).toBeGreaterThan(80);
    const different = shared.filter(
      ([name, definition]) =>
        !(name in definedOtherwise) && JSON.stringify(definition) !== JSON.stringify(onceEach(slapd?.definitions[name])),
    );
    expect(
      different.map(
        ([name, definition]) => `${name}\n ours:  ${JSON.stringify(definition)}\n slapd: ${JSON.stringify(slapd?.definitions[name])}`,
      ),
    ).toEqual([]);
  });

  test("python-ldap's RFC 4533 class sees the same content and the same changes by its cookie", async () => {
    const room = roomOf(3);
    const [ours, slapd] = (await both('client_python_ldap.py', { followBase: room.domain })).map((one) => one.followed as string[][]);
    const domain = room.domain.toLowerCase();
    const before = [...[0, 1, 2].map((i) => `uid=account${i},${domain}`), domain];
    const seen = (lists: string[][] | undefined) => lists?.map((list) => list.map((dn) => dn.toLowerCase()).sort());
    expect(seen(slapd)).toEqual(
      [before, [`cn=followed,${domain}`, ...before].sort(), [`cn=renamed,${domain}`, ...before].sort(), before].map((list) =>
        [...list].sort(),
      ),
    );
    expect(seen(ours)).toEqual(seen(slapd));
  });
});

const isOfBygoneServices = 'ours leaves out telex, teletex, search guides and the preferred delivery';
/** Definitions that are not slapd's, and why. */
const definedOtherwise: Readonly<Record<string, string>> = {
  userCertificate: 'ours compares certificates as octets',
  x500UniqueIdentifier: 'ours compares bit strings as octets',
  audio: 'ours has the syntax for any value of binary attributes',
  labeledURI: 'ours adds a rule for substrings',
  subschema: 'ours has neither structure rules nor name forms',
  subentry: 'ours has no subtree specification',
  locality: isOfBygoneServices,
  organization: isOfBygoneServices,
  organizationalUnit: isOfBygoneServices,
  organizationalPerson: isOfBygoneServices,
  organizationalRole: isOfBygoneServices,
  domain: isOfBygoneServices,
  inetOrgPerson: 'ours leaves out PKCS #12 and S/MIME values',
};

interface Ldap3Schema {
  readonly refused: readonly string[];
  readonly attributes: readonly string[];
  readonly classes: readonly string[];
}

interface PythonSchema {
  readonly definitions: Readonly<Record<string, unknown>>;
  readonly errors: readonly string[];
}

async function both(script: 'client_ldap3.py' | 'client_python_ldap.py', more: Parameters<typeof runScript>[4]) {
  return [
    await runScript('/usr/bin/python3', script, servers.ours, [], more),
    await runScript('/usr/bin/python3', script, servers.slapd, [], more),
  ] as const;
}

/** A definition whose lists name everything once: slapd has an attribute twice in one of its classes. */
function onceEach(definition: unknown): unknown {
  return Array.isArray(definition) ? definition.map((part) => (Array.isArray(part) ? [...new Set(part)] : part)) : definition;
}
