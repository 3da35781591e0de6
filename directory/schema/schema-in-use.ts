/**
 * Definitions that came from schema files are remembered with the tree. When one is gone at the next start, nobody could change the entries that use it
 * any more, so a master does not open then; it looks through the entries only in that case.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import type { Tree } from '../server/tree.ts';
import type { Schema } from './schema.ts';

const metaName = 'schemaExtension';
const pageSize = 256;
const namesShown = 10;

/** What an entry uses that the schema does not know: `attribute x`, `object class y`. */
export function unknownIn(schema: Schema, attributes: readonly Attribute[]): string[] {
  const unknown: string[] = [];
  for (const { type, values } of attributes) {
    if (schema.description(type) === undefined) unknown.push(`attribute ${type}`);
    if (type !== 'objectClass') continue;
    for (const value of values) {
      const name = value.toString('utf8');
      if (schema.objectClass(name) === undefined) unknown.push(`object class ${name}`);
    }
  }
  return unknown;
}

/** Refuses with `CONFIG_INVALID` a tree that uses definitions which were there before and are gone. */
export function checkSchemaInUse(tree: Tree): void {
  const { store, schema } = tree;
  const before = JSON.parse(store.meta(metaName) ?? '[]') as string[];
  const isKnown = (name: string): boolean =>
    name.startsWith('attribute ')
      ? schema.attributeType(name.slice('attribute '.length)) !== undefined
      : schema.objectClass(name.slice('object class '.length)) !== undefined;
  const gone = before.filter((name) => !isKnown(name));
  const stillUsed = gone.length === 0 ? [] : usesOf(tree, new Set(gone.map((name) => name.toLowerCase())));
  if (stillUsed.length > 0) {
    throw new PlatformError(
      'CONFIG_INVALID',
      `the schema lacks what entries use: ${stillUsed.join('; ')}. Name the schema file that defines it in schemaFiles again, or remove its use first`,
    );
  }
}

/** Remembers the definitions that are there now. */
export async function rememberSchema({ store, schema }: Tree): Promise<void> {
  const now = JSON.stringify(schema.extension);
  if (now !== (store.meta(metaName) ?? '[]')) await store.write(() => store.setMeta(metaName, now));
}

// Each name with the first entry that uses it.
function usesOf(tree: Tree, names: ReadonlySet<string>): string[] {
  const found = new Map<string, string>();
  for (let page = tree.store.idsAfter(0, pageSize); page.length > 0; page = tree.store.idsAfter(page.at(-1) as number, pageSize)) {
    for (const id of page) {
      const entry = tree.store.byId(id);
      if (entry === undefined) continue;
      for (const name of unknownIn(tree.schema, entry.attributes)) {
        if (names.has(name.toLowerCase()) && !found.has(name)) found.set(name, tree.store.dnOf(entry));
      }
    }
  }
  return [...found].slice(0, namesShown).map(([name, dn]) => `${name} (in ${dn})`);
}
