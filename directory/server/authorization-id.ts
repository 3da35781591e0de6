/**
 * Names of who acts, as SASL and proxied authorization write them (RFC 4513 §5.2.1.8): `dn:…`, `u:…`, or nothing. A user name is an account's
 * name, local@domain; a DN without a prefix is taken too, as people write it.
 */
import { domainOf, localPartOf, tryParseAccountName } from '#common/account-name.ts';
import { rdnKey } from '../schema/mail-schema.ts';
import type { EntryName, Tree } from './tree.ts';

/** The name that an authorization identity stands for, whether or not it exists; `undefined` when it is none. */
export function nameOfAuthorizationId(tree: Tree, text: string): EntryName | undefined {
  if (/^dn:/i.test(text)) return tree.parseName(text.slice(3));
  const user = text.replace(/^u:/i, '');
  const account = tryParseAccountName(user);
  if (account === undefined) return user === text && text.includes('=') ? tree.parseName(text) : undefined;
  for (const attribute of ['cn', 'maildomainalias']) {
    for (const id of tree.store.idsWithKey({ attribute, value: domainOf(account) }, 0, 10)) {
      const found = tree.store.child(id, rdnKey(tree.schema, [{ type: 'uid', value: localPartOf(account) }]));
      if (found !== undefined) return tree.parseName(tree.store.dnOf(found));
    }
  }
  return undefined;
}
