/** The accounts that both servers hold: the same for every run, in the order of their numbers. */

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';

/** Base of the tree on both servers. */
export const suffix = 'o=mail';
export const domain = 'isp.example';
export const clusters = ['east.isp.example', 'west.isp.example'] as const;
/** Identity that may do everything, on both servers. */
export const adminDn = 'cn=admin,ou=services,o=mail';
export const adminPassword = 'bench-password';

/** One attribute with its values as text. */
export type Fields = readonly (readonly [type: string, ...values: string[]])[];

export function uidOf(number: number): string {
  return `user${String(number).padStart(8, '0')}`;
}

export function mailOf(number: number): string {
  return `${uidOf(number)}@${domain}`;
}

export function accountDn(uid: string): string {
  return `uid=${uid},cn=${domain},${suffix}`;
}

/** Six attributes, as an account without a password has them. */
export function accountFields(uid: string, number: number): Fields {
  return [
    ['objectClass', 'inetOrgPerson', 'mailAccount'],
    ['uid', uid],
    ['cn', `User ${number}`],
    ['sn', `Number ${number}`],
    ['mail', `${uid}@${domain}`],
    ['hostServer', clusters[number % clusters.length] as string],
  ];
}

/** What stands above the accounts. */
export const frame: readonly { readonly dn: string; readonly fields: Fields }[] = [
  {
    dn: suffix,
    fields: [
      ['objectClass', 'top', 'organization'],
      ['o', 'mail'],
    ],
  },
  ...['ou=services', 'ou=topology', 'ou=clusters,ou=topology'].map((rdn) => ({
    dn: `${rdn},${suffix}`,
    fields: [
      ['objectClass', 'top', 'organizationalUnit'],
      ['ou', (rdn.split(',')[0] as string).slice(3)],
    ] as Fields,
  })),
  ...clusters.map((name) => ({
    dn: `cn=${name},ou=clusters,ou=topology,${suffix}`,
    fields: [
      ['objectClass', 'mailCluster'],
      ['cn', name],
      ['clusterMember', `back1.${name} 127.0.0.1:4711`],
    ] as Fields,
  })),
  {
    dn: `cn=${domain},${suffix}`,
    fields: [
      ['objectClass', 'mailDomain'],
      ['cn', domain],
    ],
  },
];

/** Writes frame and accounts as LDIF, with entryUUID and entryCSN as an export has them. */
export async function writeLdif(path: string, count: number): Promise<void> {
  const out = createWriteStream(path);
  let text = '';
  let number = 0;
  const record = (dn: string, fields: Fields): void => {
    const hex = createHash('md5').update(dn).digest('hex');
    const uuid = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
    const csn = `20261101000000.000000Z#${number.toString(16).padStart(6, '0')}#000#000000`;
    number += 1;
    text += `dn: ${dn}\n`;
    for (const [type, ...values] of fields) for (const value of values) text += `${type}: ${value}\n`;
    text += `entryUUID: ${uuid}\nentryCSN: ${csn}\n`;
    for (const which of ['create', 'modify']) text += `${which}Timestamp: 20261101000000Z\n`;
    text += `creatorsName: ${adminDn}\nmodifiersName: ${adminDn}\n`;
    const structural = fields[0]?.find((name) =>
      ['organization', 'organizationalUnit', 'mailCluster', 'mailDomain', 'inetOrgPerson'].includes(name),
    );
    text += `structuralObjectClass: ${structural}\n\n`;
  };
  for (const { dn, fields } of frame) record(dn, fields);
  for (let i = 0; i < count; i += 1) {
    record(accountDn(uidOf(i)), accountFields(uidOf(i), i));
    if (text.length > 1_000_000) {
      if (!out.write(text)) await once(out, 'drain');
      text = '';
    }
  }
  out.end(text);
  await once(out, 'finish');
}
