/** Our bulk import as a process: `own-import.ts DATA LDIF`, into a database that is not there yet. */
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { systemRandom } from '#common/random.ts';
import { createMailSchema, indexKeys, tallies } from '#directory/schema/mail-schema.ts';
import { Tree } from '#directory/server/tree.ts';
import { EntryStore } from '#directory/store/entry-store.ts';
import { EntryImporter, type ImportRecord } from '#directory/tools/import-entries.ts';
import { LdifReader } from '#protocol/ldap/ldif.ts';
import { suffix } from './accounts.ts';

const batchMax = 5000;
const [dataDirectory = '', ldif = ''] = process.argv.slice(2);
await nodeFiles.mkdirAll(dataDirectory);
const schema = createMailSchema();
using store = new EntryStore(join(dataDirectory, 'directory.sqlite'), {
  keysOf: (attributes) => indexKeys(schema, attributes),
  talliesOf: (attributes) => tallies(schema, attributes),
});
const tree = new Tree({ store, schema, suffix, clock: systemClock, mode: 'master' });
const importer = new EntryImporter(tree, { clock: systemClock, random: systemRandom });
let batch: ImportRecord[] = [];
const write = async (): Promise<void> => {
  const mistakes = await importer.add(batch);
  if (mistakes.length > 0) throw new Error(JSON.stringify(mistakes[0]));
  batch = [];
};
const reader = new LdifReader({
  onRecord: (record) => {
    if (record.change === 'entry') batch.push(record);
  },
  onMistake: ({ line, detail }) => {
    throw new Error(`line ${line}: ${detail}`);
  },
});
for await (const chunk of createReadStream(ldif, { highWaterMark: 1 << 20 })) {
  reader.push(chunk as Buffer);
  if (batch.length >= batchMax) await write();
}
reader.end();
await write();
await importer.finish();
