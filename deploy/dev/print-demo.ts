/**
 * What the demo prints once it serves: addresses, accounts and five things to paste. Pure text.
 */
import type { FrontendEndpoints, ReadyDocument } from './ready-document.ts';

const columns = ['imap', 'imaps', 'pop3', 'pop3s', 'smtp', 'submission', 'sieve', 'http'] as const;

/** The whole text. */
export function demoText(ready: ReadyDocument, startedInMs: number, dataNote: string): string {
  return [
    `Archipelago serves, ${(startedInMs / 1000).toFixed(1)} s after the start. Ctrl-C ends it; ${dataNote}.`,
    '',
    ...addressTable(ready),
    '',
    ...serverTable(ready),
    '',
    `console    ${ready.console}   password: ${ready.adminPassword}`,
    `directory  bind as ${ready.directory.adminDn}   password: ${ready.directory.adminPassword}`,
    `CA file    ${ready.caFile}`,
    '',
    'accounts',
    ...table(ready.accounts.map((account) => [`  ${account.name}`, `password ${account.password}`, `hosted by ${account.hostServer}`])),
    '',
    'Try this in another terminal:',
    ...thingsToTry(ready).flatMap(({ title, command }, index) => ['', `${index + 1}. ${title}`, ...command.map((line) => `   ${line}`)]),
    '',
  ].join('\n');
}

function addressTable(ready: ReadyDocument): string[] {
  const rows = Object.entries(ready.subsets).flatMap(([subset, { frontends }]) =>
    frontends.map((frontend) => [subset, frontend.name, ...columns.map((column) => portOf(frontend, column))]),
  );
  return table([['subset', 'frontend (127.0.0.1)', ...columns], ...rows]);
}

function portOf(frontend: FrontendEndpoints, column: (typeof columns)[number]): string {
  return frontend[column].slice(frontend[column].lastIndexOf(':') + 1);
}

function serverTable(ready: ReadyDocument): string[] {
  const directories = [ready.directory.master, ...ready.directory.replicas].map(({ name, url, ldapsUrl }, index) => [
    index === 0 ? 'master directory' : 'replica',
    name,
    url,
    ldapsUrl,
  ]);
  const members = Object.values(ready.clusters).flatMap((cluster) =>
    cluster.members.map(({ name, link }) => ['cluster member', name, `link ${link}`, '']),
  );
  return table([...directories, ...members]);
}

function thingsToTry(ready: ReadyDocument): { title: string; command: string[] }[] {
  const [eu, us] = [ready.subsets.eu, ready.subsets.us];
  const [account, other] = [ready.accounts[0], ready.accounts[3]];
  if (eu === undefined || us === undefined || account === undefined || other === undefined) return [];
  const { directory } = ready;
  const domain = account.name.slice(account.name.indexOf('@') + 1);
  const member = Object.values(ready.clusters)[0]?.members[0]?.name ?? '';
  return [
    {
      title: 'Read mail through the us subset; the account lives on a cluster of its own',
      command: [`curl --cacert ${ready.caFile} --user ${account.name}:${account.password} 'imaps://${us.imaps}/INBOX;MAILINDEX=1'`],
    },
    {
      title: 'Create an account over LDAP; without hostServer the directory places it',
      command: [
        `ldapadd -x -H ${directory.master.url} -D '${directory.adminDn}' -w '${directory.adminPassword}' <<END`,
        `dn: uid=erin,cn=${domain},${directory.suffix}`,
        'objectClass: inetOrgPerson',
        'objectClass: mailAccount',
        'cn: Erin Ebb',
        'sn: Ebb',
        'userPassword: erin-secret',
        'END',
      ],
    },
    {
      title: 'Send mail to it through one subset and fetch it through the other',
      command: [
        `printf 'From: ${account.name}\\nTo: erin@${domain}\\nSubject: hello\\n\\nHello Erin.\\n' | curl --crlf --cacert ${ready.caFile} --ssl-reqd smtp://${eu.smtp} --mail-from ${account.name} --mail-rcpt erin@${domain} -T -`,
        `curl --cacert ${ready.caFile} --user erin@${domain}:erin-secret 'imaps://${us.imaps}/INBOX;MAILINDEX=1'`,
      ],
    },
    {
      title: 'Ask why an account is where it is',
      command: [`npx archipelago user why erin@${domain}`, 'npx archipelago status'],
    },
    {
      title: 'Kill a cluster member and read on: its accounts open on the other one within the lease (3 s)',
      command: [
        `npx archipelago demo kill ${member}`,
        `curl --cacert ${ready.caFile} --user ${account.name}:${account.password} 'imaps://${eu.imaps}/INBOX' -X 'STATUS INBOX (MESSAGES)'`,
        'npx archipelago topology',
      ],
    },
  ];
}

/** Columns padded to their widest cell. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widthOf = (column: number): number => Math.max(...rows.map((row) => row[column]?.length ?? 0));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widthOf(column)))
      .join('  ')
      .trimEnd(),
  );
}
