/**
 * The first start of a database: it gets an id of its own, and on a master the frame of the tree. A replica stays empty until replication
 * fills it.
 */

import { formatDn } from '#protocol/ldap/dn.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { unlimited } from '../access/view.ts';
import { addEntry } from './add.ts';
import type { WriteContext } from './write-rules.ts';

/** Seeds an empty database; does nothing to one that was seeded. */
export async function seedTree(context: WriteContext): Promise<void> {
  const { tree } = context;
  if (tree.store.meta('databaseId') !== undefined) return;
  const suffix = tree.suffix.text;
  const [naming] = tree.suffix.dn[0] ?? [];
  await tree.store.write(() => {
    tree.store.setMeta('databaseId', context.random.bytes(8).toString('hex'));
    if (tree.mode === 'replica') return;
    const who = { dn: '', rights: 'admin', uuid: undefined } as const;
    const add = (dn: string, structural: string, type: string, value: string): void => {
      // An import may have brought it already.
      if (tree.find(tree.parseName(dn)) !== undefined) return;
      addEntry(
        context,
        { type: 'addRequest', dn, attributes: [attribute('objectClass', 'top', structural), attribute(type, value)] },
        { who, view: unlimited, controls: [] },
      );
    };
    if (naming !== undefined) add(formatDn(tree.suffix.dn), suffixClass(naming.type), naming.type, naming.value);
    add(`ou=services,${suffix}`, 'organizationalUnit', 'ou', 'services');
    add(`ou=topology,${suffix}`, 'organizationalUnit', 'ou', 'topology');
    add(`ou=clusters,ou=topology,${suffix}`, 'organizationalUnit', 'ou', 'clusters');
    // From here on the journal knows every change, deletes included.
    tree.store.setMeta('floorCsn', tree.contextCsn);
  });
}

function suffixClass(type: string): string {
  const classes: Record<string, string> = {
    c: 'country',
    o: 'organization',
    ou: 'organizationalUnit',
    dc: 'domain',
    l: 'locality',
    st: 'locality',
  };
  return classes[type.toLowerCase()] ?? 'organizationalRole';
}
