import { describe, expect, it } from 'vitest';
import { recordFromEntry } from '#directory/client/records-from-entry.ts';
import { attribute } from '#protocol/ldap/messages.ts';

const uuid = '0b7c1f9e-0000-4000-8000-00000000000a';
const common = [attribute('entryUUID', uuid), attribute('entryCSN', '20260101000000.000000Z#000000#000#000000')];

function account(dn: string, ...more: ReturnType<typeof attribute>[]) {
  return recordFromEntry({ dn, attributes: [attribute('objectClass', 'inetOrgPerson', 'MAILACCOUNT'), ...common, ...more] });
}

describe('records from entries', () => {
  it('takes an account’s name from its DN and its addresses from mail and mailAlternateAddress', () => {
    const made = account(
      'UID=Alice,CN=ISP.Example,o=mail',
      attribute('hostServer', 'west.isp.example'),
      attribute('mail', 'alice@isp.example', 'sales@isp.example'),
      attribute('mailAlternateAddress', 'a.l@isp.example', 'not an address'),
      attribute('mailQuota', '1000'),
      attribute('userPassword', '{SSHA}x'),
      attribute('accountStatus', 'Locked'),
    );
    expect(made).toMatchObject({
      outcome: 'record',
      record: {
        kind: 'account',
        uuid,
        name: 'alice@isp.example',
        hostServer: 'west.isp.example',
        hostServerProblem: undefined,
        addresses: ['sales@isp.example', 'a.l@isp.example'],
        quotaBytes: 1000,
        status: 'locked',
      },
    });
    if (made.outcome === 'record' && made.record.kind === 'account') {
      expect(made.record.passwords.reveal()).toEqual(['{SSHA}x']);
      expect(JSON.stringify(made)).not.toContain('SSHA');
    }
  });

  it.each([
    [[], 'missing'],
    [[attribute('hostServer', 'a.example', 'b.example')], '2 values'],
    [[attribute('hostServer', 'not a name!')], 'no cluster name'],
  ])('says what is wrong with a hostServer', (attributes, problem) => {
    const made = account('uid=a,cn=isp.example,o=mail', ...attributes);
    expect(made).toMatchObject({
      outcome: 'record',
      record: { hostServer: undefined, hostServerProblem: expect.stringContaining(problem) },
    });
  });

  it('takes an unknown status for a temporary one, and a missing one for active', () => {
    expect(account('uid=a,cn=isp.example,o=mail', attribute('accountStatus', 'weird'))).toMatchObject({
      record: { status: 'maintenance' },
    });
    expect(account('uid=a,cn=isp.example,o=mail')).toMatchObject({ record: { status: 'active' } });
  });

  it('reads domains with aliases and clusters with members', () => {
    const domain = recordFromEntry({
      dn: 'cn=isp.example,o=mail',
      attributes: [attribute('objectClass', 'mailDomain'), ...common, attribute('mailDomainAlias', 'Alias.Example', 'isp.example')],
    });
    expect(domain).toMatchObject({ record: { kind: 'domain', name: 'isp.example', aliases: ['alias.example'] } });
    const cluster = recordFromEntry({
      dn: 'cn=west.isp.example,ou=clusters,ou=topology,o=mail',
      attributes: [
        attribute('objectClass', 'mailCluster'),
        ...common,
        attribute('clusterMember', 'back1.west.isp.example 127.0.0.1:4711', 'back2.west.isp.example [::1]:4712', 'nonsense'),
        attribute('clusterWeight', '50'),
      ],
    });
    expect(cluster).toMatchObject({
      record: {
        kind: 'cluster',
        weight: 50,
        members: [
          { name: 'back1.west.isp.example', host: '127.0.0.1', port: 4711 },
          { name: 'back2.west.isp.example', host: '::1', port: 4712 },
        ],
      },
    });
  });

  it('tells entries of other classes from ours that cannot be used', () => {
    expect(recordFromEntry({ dn: 'ou=x,o=mail', attributes: [attribute('objectClass', 'organizationalUnit')] })).toEqual({
      outcome: 'other',
    });
    expect(account('cn=a,o=mail')).toMatchObject({ outcome: 'unusable' });
    expect(recordFromEntry({ dn: 'uid=a,cn=isp.example,o=mail', attributes: [attribute('objectClass', 'mailAccount')] })).toMatchObject({
      outcome: 'unusable',
      detail: expect.stringContaining('entryUUID'),
    });
  });
});
