import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { messageOf } from '#common/errors/platform-error.ts';
import { AccessControl, type Requester } from '#directory/access/access.ts';
import { explain } from '#directory/access/explain.ts';
import { type Privilege, privilegeNames } from '#directory/access/privileges.ts';
import { parseRule } from '#directory/access/rule-syntax.ts';
import { allows, type Target } from '#directory/access/view.ts';
import { checkDirectory } from '#directory/config.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { EntryTarget } from '#directory/server/guard.ts';
import { Tree } from '#directory/server/tree.ts';
import { EntryStore, rootId } from '#directory/store/entry-store.ts';
import { entryFunctions } from '#directory/tools/offline.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';
import { FakeClock } from '#test/fakes/clock.ts';

let store: EntryStore;
let tree: Tree;

beforeAll(async () => {
  store = new EntryStore(':memory:', entryFunctions());
  tree = new Tree({ store, schema: createMailSchema(), suffix: 'o=mail', clock: new FakeClock(), mode: 'master' });
  await store.write(() => {
    const add = (dn: string, ...attributes: Attribute[]): void => {
      const name = tree.parseName(dn);
      const levels = name.keys.length - tree.suffix.keys.length;
      const parentId = levels === 0 ? rootId : (tree.find({ ...name, keys: name.keys.slice(1) })?.id as number);
      const rdn = dn.split(',')[0] as string;
      store.add({ parentId, rdn: levels === 0 ? dn : rdn, rdnNorm: name.keys[0] as string, uuid: uuidOf(dn), csn: `c${dn}`, attributes });
    };
    add('o=mail', attribute('objectClass', 'organization'), attribute('o', 'mail'));
    add('ou=groups,o=mail', attribute('objectClass', 'organizationalUnit'), attribute('ou', 'groups'));
    for (const domain of ['a.example', 'b.example']) {
      add(`cn=${domain},o=mail`, attribute('objectClass', 'mailDomain'), attribute('cn', domain));
      for (const uid of ['ann', 'bob']) {
        add(
          `uid=${uid},cn=${domain},o=mail`,
          attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
          attribute('uid', uid),
          attribute('sn', uid),
          attribute('cn', uid),
          attribute('description', uid === 'ann' ? 'public' : 'private'),
        );
      }
    }
    add(
      'cn=heads,ou=groups,o=mail',
      attribute('objectClass', 'groupOfNames'),
      attribute('cn', 'heads'),
      attribute('member', 'UID=Ann, CN=a.example, o=mail'),
    );
  });
});
afterAll(() => store[Symbol.dispose]());

const uuids = new Map<string, string>();
function uuidOf(dn: string): string {
  const known = uuids.get(dn) ?? `00000000-0000-4000-8000-${String(uuids.size).padStart(12, '0')}`;
  uuids.set(dn, known);
  return known;
}

function entry(dn: string): Target {
  const found = tree.find(tree.parseName(dn));
  if (found === undefined) throw new Error(`no ${dn}`);
  return new EntryTarget(tree, found);
}

const nobody: Requester = { dn: '', rights: 'anonymous', uuid: undefined };
const service = (rights: Requester['rights']): Requester => ({ dn: `cn=${rights},ou=services,o=mail`, rights, uuid: undefined });
const bound = (dn: string): Requester => ({ dn, rights: 'self', uuid: uuidOf(dn) });
const annA = 'uid=ann,cn=a.example,o=mail';
const bobA = 'uid=bob,cn=a.example,o=mail';
const annB = 'uid=ann,cn=b.example,o=mail';
const far = { remoteAddress: '192.0.2.7', tlsSsf: 0 };

function privileges(rules: readonly string[], who: Requester, dn: string, key: string, way = far): string {
  const access = new AccessControl(tree, rules);
  const view = access.viewOf(who, way);
  return privilegeNames.filter((privilege) => allows(view.decide(privilege, key), entry(dn))).join(' ');
}
const read = 'disclose auth compare search read';
const write = `${read} add delete`;

describe('one rule', () => {
  const cases: readonly [rule: string, who: Requester, dn: string, attribute: string, privileges: string, way?: typeof far][] = [
    ['to * by * read', nobody, bobA, 'mail', read],
    ['to * by users read', nobody, bobA, 'mail', ''],
    ['to * by users read', bound(annA), bobA, 'mail', read],
    ['to * by anonymous auth by * none', bound(annA), bobA, 'mail', ''],
    ['to * by self write by * search', bound(annA), annA, 'sn', write],
    ['to * by self write by * search', bound(annA), bobA, 'sn', 'disclose auth compare search'],
    ['to * by self =xw', bound(annA), annA, 'sn', 'auth add delete'],
    ['to * by * =0', bound(annA), annA, 'sn', ''],
    ['to attrs=name by * read', nobody, bobA, 'sn', read],
    ['to attrs=@mailDomain by * read by * none', nobody, bobA, 'maildomainalias', read],
    ['to attrs=@mailDomain by * read by * none', nobody, bobA, 'mail', ''],
    ['to attrs=entry by * disclose', nobody, bobA, 'entry', 'disclose'],
    ['to dn.base="CN=A.example,o=MAIL" by * read', nobody, 'cn=a.example,o=mail', 'cn', read],
    ['to dn.base="cn=a.example,o=mail" by * read', nobody, bobA, 'cn', ''],
    ['to dn.one="cn=a.example,o=mail" by * read', nobody, bobA, 'cn', read],
    ['to dn.one="o=mail" by * read', nobody, bobA, 'cn', ''],
    ['to dn.children="o=mail" by * read', nobody, bobA, 'cn', read],
    ['to dn.children="cn=a.example,o=mail" by * read', nobody, 'cn=a.example,o=mail', 'cn', ''],
    ['to dn.subtree="cn=a.example,o=mail" by * read', nobody, annB, 'cn', ''],
    ['to filter=(description=public) by * read', nobody, annA, 'cn', read],
    ['to filter="(&(description=public)(uid=b*))" by * read', nobody, annA, 'cn', ''],
    ['to filter=(hasSubordinates=TRUE) by * read', nobody, 'o=mail', 'o', read],
    ['to * by dn.base="uid=ann,cn=a.example,o=mail" read', bound(annA), bobA, 'cn', read],
    ['to * by dn.subtree="cn=a.example,o=mail" read', bound(annB), bobA, 'cn', ''],
    ['to * by dn.children="o=mail" read', bound(annB), bobA, 'cn', read],
    ['to * by dn.subtree="" read', nobody, bobA, 'cn', ''],
    ['to * by group="cn=heads,ou=groups,o=mail" read', bound(annA), bobA, 'cn', read],
    ['to * by group/groupOfNames/member.exact="cn=heads,ou=groups,o=mail" read', bound(annB), bobA, 'cn', ''],
    ['to * by group/groupOfUniqueNames/uniqueMember="cn=heads,ou=groups,o=mail" read', bound(annA), bobA, 'cn', ''],
    ['to * by group="cn=none,ou=groups,o=mail" read', bound(annA), bobA, 'cn', ''],
    ['to * by rights=frontend read', service('frontend'), bobA, 'description', read],
    ['to * by rights=service read', service('cluster'), bobA, 'description', read],
    ['to * by rights=service read', bound(annA), bobA, 'description', ''],
    ['to * by peername.ip=192.0.2.0/24 read', nobody, bobA, 'cn', read],
    ['to * by peername.ip=192.0.2.0%255.255.255.0 read', nobody, bobA, 'cn', read, { ...far, remoteAddress: '::ffff:192.0.2.9' }],
    ['to * by peername.ip=198.51.100.0/24 read', nobody, bobA, 'cn', ''],
    ['to * by peername.ipv6=2001:db8::/32 read', nobody, bobA, 'cn', read, { ...far, remoteAddress: '2001:db8::7' }],
    ['to * by ssf=128 users read', bound(annA), bobA, 'cn', ''],
    ['to * by ssf=128 users read', bound(annA), bobA, 'cn', read, { ...far, tlsSsf: 256 }],
    ['to * by ssf=71 users read', bound(annA), bobA, 'cn', read, { remoteAddress: '', tlsSsf: 0 }],
    ['to * by tls_ssf=71 users read', bound(annA), bobA, 'cn', '', { remoteAddress: '', tlsSsf: 0 }],
    ['access to attrs=cn\n  by rights=frontend none\n  by * read stop', bound(annA), bobA, 'cn', read],
  ];
  test.each(cases)('%s', (rule, who, dn, key, expected, way) => {
    expect(privileges([rule, 'to * by * none'], who, dn, key, way)).toBe(expected);
  });

  test('the first that is about the entry decides, "break" goes on, and behind the last clause is nothing', () => {
    const rules = ['to attrs=cn by users break by * none', 'to dn.base="uid=bob,cn=a.example,o=mail" by users compare', 'to * by * read'];
    expect(privileges(rules, bound(annA), bobA, 'cn')).toBe('disclose auth compare');
    expect(privileges(rules, bound(annA), annA, 'cn')).toBe(read);
    expect(privileges(rules, nobody, annA, 'cn')).toBe('');
    expect(privileges(rules, nobody, bobA, 'sn')).toBe('');
  });

  test('a view that nothing depends on is decided before any entry', () => {
    const view = new AccessControl(tree).viewOf(service('frontend'), far);
    expect([view.decide('read', 'entry'), view.decide('search', 'mail'), view.decide('read', 'userpassword')]).toEqual([true, true, false]);
    const cluster = new AccessControl(tree).viewOf(service('cluster'), far);
    expect([cluster.decide('read', 'entry'), cluster.decide('read', 'userpassword')]).toEqual([true, true]);
    expect(typeof cluster.decide('add', 'mail')).toBe('function');
  });

  test('a group’s members are those it has now', async () => {
    const access = new AccessControl(tree, ['to * by group="cn=heads,ou=groups,o=mail" read by * none']);
    const decision = access.viewOf(bound(bobA), far).decide('read', 'cn');
    expect(allows(decision, entry(annA))).toBe(false);
    const group = tree.find(tree.parseName('cn=heads,ou=groups,o=mail'));
    if (group === undefined) throw new Error('no group');
    const { uuid } = group;
    const set = (member: string, csn: string) =>
      store.write(() => {
        const now = store.byUuid(uuid);
        if (now === undefined) throw new Error('no group');
        const attributes = now.attributes.map((one) => (one.type === 'member' ? attribute('member', member) : one));
        store.replace('modify', now, { ...now, uuid, csn, attributes });
      });
    await set(bobA, 'c2');
    expect(allows(decision, entry(annA))).toBe(true);
    await set(annA, 'c3');
    expect(allows(decision, entry(annA))).toBe(false);
  });
});

describe('mistakes', () => {
  const cases: readonly [rule: string, expected: RegExp][] = [
    ['', /column 1: "to" was expected at the end/],
    ['by * read', /column 1: "to" was expected where "by" stands/],
    ['to by * read', /column 4: what the rule is about is missing/],
    ['to * read', /column 6: "read" is none of \*/],
    ['to *', /"by" is missing/],
    ['to * by', /a right is missing/],
    ['to * by *', /a right is missing/],
    ['to * by read', /column \d+: who is missing/],
    ['to * by * reed', /"reed" is none of \*, anonymous/],
    ['to * by * =rq', /"q" is no privilege/],
    ['to dn="o=mail" by * read', /column 4: .*write dn\.base=/],
    ['to dn.base="o=mail by * read', /column 4: a quote is not closed/],
    ['to filter=(cn=a by * read', /parentheses do not match/],
    ['to attrs= by * read', /names no attribute/],
    ['to attrs=cn attrs=sn by * read', /attrs is given twice/],
    ['to * by rights=root read', /rights="root" is none of admin/],
    ['to * by ssf=strong read', /"strong" is no number/],
    [`to * ${'by anonymous none '.repeat(300)}`, /more than 256 clauses/],
    [`to * by * read ${' '.repeat(17_000)}`, /at most 16384/],
    ['to attrs=favouriteDrink by * read', /attribute favouriteDrink is not known/],
    ['to attrs=@nothing by * read', /object class nothing is not known/],
    ['to filter=(favouriteDrink=x) by * read', /attribute favouriteDrink is not known/],
    ['to filter="(cn=a" by * read', /filter .* is malformed/],
    ['to dn.base="no name" by * read', /is not a distinguished name/],
    ['to * by peername.ip=300.1.1.1 read', /no address and no prefix/],
    ['to * by peername.ip=192.0.2.0/33 read', /no address and no prefix/],
    ['to * by group/thing="cn=a,o=mail" read', /object class thing is not known/],
  ];
  test.each(cases)('%s', (rule, expected) => {
    expect(() => new AccessControl(tree, [rule])).toThrow(expected);
  });

  test('all of them are told, and the rules in force stay', () => {
    const access = new AccessControl(tree, ['to attrs=cn by * read']);
    const { generation, rules } = access;
    expect(() => access.replace(['to * by * read', 'to attrs=x by * read', 'to * by'])).toThrow(/rule 2: .*\nrule 3: /);
    expect(access.rules).toBe(rules);
    expect(access.generation).toBe(generation);
    access.replace([]);
    expect(access.generation).toBe(generation + 1);
    expect(access.rules.every((rule) => rule.origin === 'built-in')).toBe(true);
  });

  test('are found by the check of a node file, with their place', () => {
    expect(checkDirectory({ access: ['to * by * read', 'to * by * reed', 7] })).toMatchObject([{ path: ['access', 1] }]);
    expect(checkDirectory({ access: 'none' })).toEqual([]);
  });

  test('any text either is a rule or has a mistake', () => {
    const word = fc.constantFrom(
      'to',
      'by',
      '*',
      'self',
      'read',
      'break',
      'attrs=cn',
      'filter=(cn=a)',
      'dn.sub="o=mail"',
      '"',
      '(',
      '\\',
      '=w',
      'x',
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.array(word, { maxLength: 12 }).map((words) => words.join(' ')),
          fc.string(),
        ),
        (text) => {
          try {
            expect(parseRule(text).clauses.length).toBeGreaterThan(0);
          } catch (error) {
            expect(messageOf(error)).toMatch(/^(?:access rule ".*", column \d+: |an access rule has )/s);
          }
        },
      ),
    );
  });
});

test('compiled views and explanations agree, whatever the rules', () => {
  const what = fc.constantFrom(
    '*',
    'attrs=cn,entry',
    'attrs=sn',
    'filter=(description=public)',
    'dn.sub="cn=a.example,o=mail"',
    'dn.one="o=mail" attrs=cn',
  );
  const who = fc.constantFrom(
    '*',
    'self',
    'users',
    'anonymous',
    'group="cn=heads,ou=groups,o=mail"',
    'rights=frontend',
    'ssf=128',
    'ssf=128 self',
    'dn.sub="cn=b.example,o=mail"',
  );
  const grant = fc.constantFrom('none', 'disclose', 'search', 'read', 'write', '=xw', 'manage', 'break');
  const rule = fc
    .tuple(what, fc.array(fc.tuple(who, grant), { minLength: 1, maxLength: 4 }))
    .map(([about, clauses]) => `to ${about} ${clauses.map(([one, right]) => `by ${one} ${right}`).join(' ')}`);
  const askers = [nobody, service('frontend'), service('admin'), bound(annA), bound(bobA), bound(annB)];
  const dns = ['o=mail', 'cn=a.example,o=mail', annA, bobA, annB];
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 6 }), fc.constantFrom(...askers), fc.constantFrom(0, 256), (rules, asker, tlsSsf) => {
      const access = new AccessControl(tree, rules);
      const way = { remoteAddress: '192.0.2.7', tlsSsf };
      const view = access.viewOf(asker, way);
      for (const dn of dns) {
        for (const key of ['cn', 'sn', 'entry', 'userpassword']) {
          const target = entry(dn);
          const given = privilegeNames.filter((privilege: Privilege) => allows(view.decide(privilege, key), target));
          const explained = explain(access.rules, access.askerOf(asker, way), access.groups, target, key);
          expect(explained.privileges, JSON.stringify([rules, asker.dn, dn, key])).toEqual(given);
          expect(explained.steps.filter((step) => step.decides).length).toBeLessThan(2);
        }
      }
    }),
    { numRuns: 200 },
  );
});
