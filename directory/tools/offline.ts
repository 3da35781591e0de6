/**
 * A data directory without a server on it, for the tools: opened as the server would, closed by whoever opened it. A server that runs on it
 * keeps the file locked, so opening fails instead of two writing.
 */
import { join } from 'node:path';
import type { Clock } from '#common/clock.ts';
import type { Random } from '#common/random.ts';
import { entryTimes } from '../schema/entry-times.ts';
import { createMailSchema, indexKeys, pieceTexts, tallies } from '../schema/mail-schema.ts';
import type { SchemaFile } from '../schema/schema-file.ts';
import { checkSchemaInUse, unknownIn } from '../schema/schema-in-use.ts';
import { Tree } from '../server/tree.ts';
import type { WriteContext } from '../server/write-rules.ts';
import type { EntryFunctions } from '../store/entry-functions.ts';
import { defaultCacheBytes, EntryStore } from '../store/entry-store.ts';

/** Name of the database file in a data directory. */
export const databaseFile = 'directory.sqlite';

/** What index and counters are made of. */
export function entryFunctions(schema = createMailSchema()): EntryFunctions {
  return {
    keysOf: (attributes) => indexKeys(schema, attributes),
    talliesOf: (attributes) => tallies(schema, attributes),
    timesOf: entryTimes(schema),
    piecesOf: (attributes, wanted) => pieceTexts(schema, attributes, wanted),
    isDefined: (attribute) => schema.attributeType(attribute) !== undefined,
    unknownIn: (attributes) => unknownIn(schema, attributes),
  };
}

/** Opens one; `dispose` the store when done. */
export function openOffline(
  options: { readonly dataDirectory: string; readonly suffix: string; readonly schemaFiles?: readonly SchemaFile[] },
  ports: { readonly clock: Clock; readonly random: Random },
  path = join(options.dataDirectory, databaseFile),
  cacheBytes = defaultCacheBytes,
): WriteContext {
  const schema = createMailSchema(options.schemaFiles);
  const store = new EntryStore(path, entryFunctions(schema), cacheBytes);
  const tree = new Tree({ store, schema, suffix: options.suffix, clock: ports.clock, mode: 'master' });
  try {
    checkSchemaInUse(tree);
  } catch (error) {
    store[Symbol.dispose]();
    throw error;
  }
  return { tree, clock: ports.clock, random: ports.random, placement: 'none', masterUrl: undefined };
}
