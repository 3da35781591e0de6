/** The verbs of `archipelago directory`, said once: for its usage, for the help of the whole command and for the reference page. */

/** One verb. */
export interface DirectoryCommand {
  readonly name: string;
  readonly args: string;
  /** `data`: on a data directory that no server uses; `url`: on a running server; `either`: on whichever is named. */
  readonly on: 'data' | 'url' | 'either';
  readonly description: string;
  readonly examples: readonly string[];
}

const server = '--url ldaps://ldap-master.isp.example --ca-file ca.pem --bind-dn cn=admin,ou=services,o=mail --password-file pw';

/** All of them, in the order of the help. */
export const directoryCommands: readonly DirectoryCommand[] = [
  {
    name: 'status',
    args: '',
    on: 'url',
    description: 'what the server holds, how far it is, and its counters',
    examples: [`archipelago directory status ${server}`, 'archipelago directory status --url ldap://127.0.0.1:389 --json'],
  },
  {
    name: 'search',
    args: 'BASE FILTER [ATTRIBUTE...]',
    on: 'either',
    description: 'entries at and below BASE, as LDIF; with --json one object a line',
    examples: [
      `archipelago directory search o=mail '(mail=alice@isp.example)' mail hostServer ${server}`,
      "archipelago directory search --data DIR o=mail '(uid=alice)' '*' +",
    ],
  },
  {
    name: 'import',
    args: 'FILE',
    on: 'either',
    description: 'adds the entries of an LDIF file (- is standard input), keeps entryUUID and entryCSN, skips what is there',
    examples: ['archipelago directory import --data DIR tree.ldif', `archipelago directory import tree.ldif ${server}`],
  },
  {
    name: 'export',
    args: '[BASE]',
    on: 'either',
    description: 'writes the whole tree, or what is at and below BASE, as LDIF to standard output',
    examples: ['archipelago directory export --data DIR', `archipelago directory export cn=isp.example,o=mail ${server}`],
  },
  {
    name: 'verify',
    args: '',
    on: 'data',
    description: 'checks file, tree, index, counters and the use of the schema; exit code 4 when something is wrong',
    examples: ['archipelago directory verify --data DIR'],
  },
  {
    name: 'reindex',
    args: '',
    on: 'data',
    description: 'makes index and counters anew from the entries',
    examples: ['archipelago directory reindex --data DIR'],
  },
  {
    name: 'backup',
    args: '',
    on: 'url',
    description: 'has the server copy its database into its backupDirectory; prints the path',
    examples: [`archipelago directory backup ${server}`],
  },
  {
    name: 'restore',
    args: 'FILE',
    on: 'data',
    description: 'puts a backup in place of a database that is not there',
    examples: ['archipelago directory restore --data DIR directory-20261122231500Z-4711.sqlite'],
  },
  {
    name: 'acl show',
    args: '',
    on: 'url',
    description: 'the access rules in force, in their order',
    examples: [`archipelago directory acl show ${server}`],
  },
  {
    name: 'acl explain',
    args: 'WHO DN ATTRIBUTE',
    on: 'url',
    description: 'which access rule decides what WHO (a DN, u:NAME or anonymous) may do with an attribute (or entry, children), and why',
    examples: [`archipelago directory acl explain u:alice@isp.example uid=bob,cn=isp.example,o=mail mail ${server}`],
  },
  {
    name: 'acl test',
    args: 'WHO DN ATTRIBUTE PRIVILEGE',
    on: 'url',
    description: 'whether WHO has that privilege or level; exit code 0 or 6',
    examples: [`archipelago directory acl test anonymous uid=bob,cn=isp.example,o=mail userPassword read ${server}`],
  },
  {
    name: 'acl reload',
    args: '',
    on: 'url',
    description: 'has the server read the access rules of its node file again, as SIGHUP does; mistakes are shown and change nothing',
    examples: [`archipelago directory acl reload ${server}`],
  },
];

/** Options that the verbs share. */
export const directoryOptions: readonly { readonly flags: string; readonly description: string }[] = [
  { flags: '--data <dir>', description: 'data directory of a server that does not run' },
  { flags: '--suffix <dn>', description: 'base of the tree in it; default o=mail' },
  { flags: '--schema-file <file...>', description: 'each of the server’s schemaFiles, for verbs on a data directory' },
  { flags: '--url <url>', description: 'a running server: ldap://, ldaps:// or, with --ca-file, ldap:// with StartTLS' },
  { flags: '--ca-file <file>', description: 'PEM file: CA of its certificate' },
  { flags: '--bind-dn <dn>', description: 'whom to bind as' },
  { flags: '--password-file <file>', description: 'file whose first line is the password' },
  { flags: '--peer <address>', description: 'acl explain and test: as if WHO came from there' },
  { flags: '--ssf <bits>', description: 'acl explain and test: as if WHO came by TLS of that strength; 0 is none, default 256' },
  { flags: '--json', description: 'JSON for programs' },
];

/** The usage text. */
export function directoryUsage(): string {
  const block = (title: string, on: DirectoryCommand['on']): string =>
    `${title}\n${directoryCommands
      .filter((one) => one.on === on)
      .map((one) => `  ${`${one.name} ${one.args}`.trim()}\n      ${one.description}\n`)
      .join('')}`;
  return [
    'usage: archipelago directory COMMAND [OPTIONS]\n',
    block('On a data directory that no server uses (--data DIR):', 'data'),
    block('On a running server (--url URL):', 'url'),
    block('On either:', 'either'),
    `Options:\n${directoryOptions.map(({ flags, description }) => `  ${flags.padEnd(26)}${description}\n`).join('')}`,
  ].join('\n');
}
