/** LDIF to and from the tools that speak it. */
import { LdifReader } from '#protocol/ldap/ldif.ts';
import type { Change, SeenEntry, Step, Values } from './model.ts';

/** A change as a record of its own. */
export function changeRecord(step: Extract<Step, { op: 'add' | 'modify' | 'rename' | 'delete' }>): string {
  const name = `${line('dn', step.dn)}\n`;
  switch (step.op) {
    case 'add':
      return `${name}changetype: add\n${valueLines(step.attributes)}`;
    case 'modify':
      return `${name}changetype: modify\n${step.changes.map(changeLines).join('')}`;
    case 'rename':
      return `${name}changetype: modrdn\n${line('newrdn', step.newRdn)}\ndeleteoldrdn: ${step.keepOld === true ? 0 : 1}\n`;
    case 'delete':
      return `${name}changetype: delete\n`;
  }
}

function line(name: string, value: string): string {
  const isPlain = /^[!-9;=-~](?:[ -~]*[!-~])?$/.test(value);
  return isPlain ? `${name}: ${value}` : `${name}:: ${Buffer.from(value).toString('base64')}`;
}

function valueLines(attributes: Values): string {
  return Object.entries(attributes)
    .flatMap(([name, values]) => values.map((value) => `${line(name, value)}\n`))
    .join('');
}

function changeLines(change: Change): string {
  return `${change.kind}: ${change.attribute}\n${valueLines({ [change.attribute]: change.values })}-\n`;
}

/** The entries that a tool printed. */
export function entriesOf(ldif: string): readonly SeenEntry[] {
  const entries: SeenEntry[] = [];
  const reader = new LdifReader({
    onRecord: (record) => {
      if (record.change !== 'entry') throw new Error(`the tool printed a change: ${record.dn}`);
      const attributes = record.attributes.map((one) => [one.type, one.values.map((value) => value.toString('utf8'))]);
      entries.push({ dn: record.dn, attributes: Object.fromEntries(attributes) });
    },
    onMistake: ({ detail, line: number }) => {
      throw new Error(`the tool printed what is no LDIF, line ${number}: ${detail}\n${ldif}`);
    },
  });
  reader.push(Buffer.from(ldif));
  reader.end();
  return entries;
}
