/**
 * `archipelago directory …`: the tools of one Directory Server. Those with `--data` work on a data directory that no server uses; those with
 * `--url` speak LDAP to a running server. What they tell of their progress goes to standard error.
 */

import { isUtf8 } from 'node:buffer';
import { once } from 'node:events';
import { createReadStream, existsSync, rmSync } from 'node:fs';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { systemClock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { createPasswordHasher } from '#common/passwords/password-hasher.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { backupOid } from '#directory/client/backup.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import type { SchemaFile } from '#directory/schema/schema-file.ts';
import { rebuildIndex, renewDatabaseId, verifyDatabase } from '#directory/store/integrity.ts';
import { exportLdif } from '#directory/tools/export.ts';
import { importLdif } from '#directory/tools/import.ts';
import { databaseFile, entryFunctions, openOffline } from '#directory/tools/offline.ts';
import { searchOffline } from '#directory/tools/search.ts';
import { directoryUsage } from '#operate/cli/directory-commands.ts';
import { filterFromText, parseFilter } from '#protocol/ldap/filter.ts';
import { formatLdifEntry } from '#protocol/ldap/ldif.ts';
import { type Attribute, textOf } from '#protocol/ldap/messages.ts';
import { aclCommand } from './directory-acl.ts';
import { exportOnline, importOnline } from './directory-online.ts';
import { startImportThreads } from './import-threads.ts';
import { Misuse } from './misuse.ts';

const usage = directoryUsage();

const mistakesShown = 20;
/** Bytes of a file that are read, and prepared by a thread, at a time. */
const importChunkBytes = 262_144;
const importSteps = {
  names: 'all entries are read; sorting the names',
  uuids: 'sorting the entryUUIDs',
  index: 'making the index',
  addresses: 'looking for addresses that belong to two accounts',
} as const;
/** A copy of a large database takes its time. */
const backupTimeoutMs = 3_600_000;

const options = {
  data: { type: 'string' },
  suffix: { type: 'string', default: 'o=mail' },
  'schema-file': { type: 'string', multiple: true },
  url: { type: 'string' },
  'bind-dn': { type: 'string' },
  'password-file': { type: 'string' },
  'ca-file': { type: 'string' },
  peer: { type: 'string' },
  ssf: { type: 'string' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h' },
} as const satisfies ParseArgsConfig['options'];

type Values = ReturnType<typeof parseArgs<{ options: typeof options; allowPositionals: true }>>['values'];

const commands: Readonly<Record<string, (values: Values, args: readonly string[]) => Promise<number>>> = {
  import: importFile,
  export: exportAll,
  verify,
  reindex,
  restore,
  status,
  search,
  backup,
  acl,
};

/** Nobody reads any more what is written, as behind head; that is no failure of ours. */
class ReaderGone extends Error {}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});
process.exitCode = await main();

async function main(): Promise<number> {
  let parsed: { values: Values; positionals: string[] };
  try {
    parsed = parseArgs({ options, allowPositionals: true });
  } catch (error) {
    return misused(messageOf(error));
  }
  const [name = '', ...args] = parsed.positionals;
  if (parsed.values.help === true) {
    process.stdout.write(usage);
    return 0;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) return misused(name === '' ? 'a command is missing' : `there is no command "${name}"`);
  try {
    return await command(parsed.values, args);
  } catch (error) {
    if (error instanceof Misuse) return misused(error.message);
    if (error instanceof ReaderGone) return 0;
    tell(`archipelago directory ${name}: ${messageOf(error)}`);
    return 1;
  }
}

function misused(why: string): number {
  process.stderr.write(`archipelago directory: ${why}\n\n${usage}`);
  return 2;
}

function tell(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** The data directory; a database must be in it unless it may be new. */
function dataDirectory(values: Values, mayBeNew = false): string {
  if (values.data === undefined) throw new Misuse('--data DIR is missing');
  if (!mayBeNew && !existsSync(join(values.data, databaseFile))) throw new Error(`there is no ${databaseFile} in ${values.data}`);
  return values.data;
}

function schemaFiles(values: Values): Promise<SchemaFile[]> {
  return Promise.all((values['schema-file'] ?? []).map(async (path) => ({ path, text: await readFile(path, 'utf8') })));
}

/** Whether a verb that can do both is to ask a running server. */
function isOnline(values: Values): boolean {
  if ((values.url === undefined) === (values.data === undefined)) throw new Misuse('one of --data DIR and --url URL is needed');
  return values.url !== undefined;
}

function writeJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

function required(args: readonly string[], index: number, what: string): string {
  const value = args[index];
  if (value === undefined) throw new Misuse(`${what} is missing`);
  return value;
}

async function importFile(values: Values, args: readonly string[]): Promise<number> {
  const file = required(args, 0, 'FILE');
  const chunks = file === '-' ? process.stdin : createReadStream(file, { highWaterMark: importChunkBytes });
  let mistakes = 0;
  let toldAt = 0;
  const told = {
    mistake: (line: number, detail: string) => {
      mistakes += 1;
      // Of what shows only when all is there, the line is not known any more.
      if (mistakes <= mistakesShown) tell(line === 0 ? `${file}: ${detail}` : `${file}:${line}: ${detail}`);
      if (mistakes === mistakesShown) tell('further mistakes are counted only');
    },
    progress: ({ added }: { readonly added: number }) => {
      if (added - toldAt < 100_000) return;
      toldAt = added;
      tell(`${added} entries added`);
    },
  };
  const finish = (counts: { readonly added: number; readonly skipped: number; readonly failed: number }): number => {
    if (values.json) writeJson(counts);
    else tell(`${counts.added} entries added, ${counts.skipped} were there already, ${counts.failed} failed`);
    return counts.failed === 0 ? 0 : 1;
  };
  if (isOnline(values)) {
    await using connection = await connect(values);
    return finish(await importOnline(connection, chunks, told));
  }
  const directory = dataDirectory(values, true);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const files = await schemaFiles(values);
  await using threads = startImportThreads(files);
  const context = {
    dataDirectory: directory,
    suffix: values.suffix,
    schemaFiles: files,
    clock: systemClock,
    random: systemRandom,
    files: nodeFiles,
    hasher: createPasswordHasher(systemRandom),
    ...threads,
  };
  return finish(await importLdif(context, chunks, { ...told, step: (step) => tell(importSteps[step]) }));
}

async function exportAll(values: Values, args: readonly string[]): Promise<number> {
  if (isOnline(values)) {
    await using connection = await connect(values);
    const base = args[0] ?? (await suffixOf(connection));
    return await writePieces(exportOnline(connection, base));
  }
  const directory = dataDirectory(values);
  const { tree } = openOffline(
    { dataDirectory: directory, suffix: values.suffix, schemaFiles: await schemaFiles(values) },
    { clock: systemClock, random: systemRandom },
  );
  using _store = tree.store;
  return await writePieces(exportLdif(tree, args[0]));
}

/** Writes much, no faster than it is read. */
async function write(text: string): Promise<void> {
  if (!process.stdout.writable) throw new ReaderGone();
  if (process.stdout.write(text)) return;
  await once(process.stdout, 'drain').catch(() => {
    throw new ReaderGone();
  });
}

async function writePieces(all: Iterable<string> | AsyncIterable<string>): Promise<number> {
  let pieces = 0;
  for await (const piece of all) {
    pieces += 1;
    await write(piece);
    if (pieces % 100_000 === 0) tell(`${pieces} entries written`);
  }
  tell(`${pieces} entries written`);
  return 0;
}

async function verify(values: Values): Promise<number> {
  let problems = 0;
  const shown: string[] = [];
  const path = join(dataDirectory(values), databaseFile);
  const functions = entryFunctions(createMailSchema(await schemaFiles(values)));
  // SQLite makes both to read by and leaves them there. They are not ours to remove once a server may have the file.
  const made = [`${path}-wal`, `${path}-shm`].filter((file) => !existsSync(file));
  const entries = verifyDatabase(path, functions, {
    hasLog: existsSync(`${path}-wal`),
    problem: (text) => {
      problems += 1;
      if (problems > mistakesShown) return;
      if (values.json) shown.push(text);
      else process.stdout.write(`${text}\n`);
    },
    progress: (count) => tell(`${count} entries checked`),
    beforeClose: () => {
      for (const file of made) rmSync(file, { force: true });
    },
  });
  if (values.json) writeJson({ entries, problems, shown });
  else process.stdout.write(`${entries} entries, ${problems} problems\n`);
  return problems === 0 ? 0 : 4;
}

async function reindex(values: Values): Promise<number> {
  const path = join(dataDirectory(values), databaseFile);
  const entries = rebuildIndex(path, entryFunctions(createMailSchema(await schemaFiles(values))), (count) =>
    tell(`${count} entries indexed`),
  );
  if (values.json) writeJson({ entries });
  else process.stdout.write(`${entries} entries indexed\n`);
  return 0;
}

async function restore(values: Values, args: readonly string[]): Promise<number> {
  const directory = dataDirectory(values, true);
  const path = join(directory, databaseFile);
  if (existsSync(path)) throw new Error(`${path} is there already; move it and its -wal file away first`);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await copyFile(required(args, 0, 'FILE'), path);
  renewDatabaseId(path, systemRandom.bytes(8).toString('hex'));
  process.stdout.write(`restored; check it with: archipelago directory verify --data ${directory}\n`);
  return 0;
}

async function connect(values: Values, timeoutMs = 60_000): Promise<LdapConnection> {
  const { url } = values;
  if (url === undefined) throw new Misuse('--url URL is missing');
  const ca = values['ca-file'] === undefined ? undefined : await readFile(values['ca-file'], 'utf8');
  const connection = await LdapConnection.open(systemNetwork, systemClock, { url, ca, timeoutMs });
  const dn = values['bind-dn'];
  if (dn === undefined) return connection;
  if (values['password-file'] === undefined) throw new Misuse('--password-file FILE is missing');
  const password = (await readFile(values['password-file'], 'utf8')).split('\n')[0] ?? '';
  await connection.bind(dn, new Secret(password));
  return connection;
}

async function suffixOf(connection: LdapConnection): Promise<string> {
  const root = await connection.readEntry('', ['namingContexts']);
  return textOf(root?.attributes ?? [], 'namingContexts') ?? '';
}

async function status(values: Values): Promise<number> {
  await using connection = await connect(values);
  const root = (await connection.readEntry('', ['+']))?.attributes ?? [];
  const suffix = textOf(root, 'namingContexts') ?? '';
  const base = await connection.readEntry(suffix, ['contextCSN']);
  const monitor = textOf(root, 'monitorContext');
  const shown = {
    server: `${textOf(root, 'vendorName') ?? 'unknown'} ${textOf(root, 'vendorVersion') ?? ''}`.trim(),
    suffix,
    state: textOf(base?.attributes ?? [], 'contextCSN') ?? 'empty',
    counters: monitor === undefined ? {} : await countersBelow(connection, monitor),
  };
  if (values.json) {
    writeJson(shown);
    return 0;
  }
  process.stdout.write(`server: ${shown.server}\nsuffix: ${shown.suffix}\nstate: ${shown.state}\n`);
  for (const [name, count] of Object.entries(shown.counters)) process.stdout.write(`${name}: ${count}\n`);
  return 0;
}

/** Counters of the monitor by name: `Entries`, `Add`; those of binds as `Binds Failed`, since `Failed` alone says too little. */
async function countersBelow(connection: LdapConnection, baseDn: string): Promise<Record<string, number>> {
  const filter = filterFromText('(|(objectClass=monitorCounterObject)(objectClass=monitorOperation))');
  const counters: Record<string, number> = {};
  const attributes = ['cn', 'monitorCounter', 'monitorOpInitiated'];
  for await (const item of connection.search({ baseDn, scope: 'sub', filter, attributes })) {
    if (item.kind !== 'entry') continue;
    const count = textOf(item.attributes, 'monitorCounter') ?? textOf(item.attributes, 'monitorOpInitiated') ?? '';
    const group = /,cn=binds,/i.test(item.dn) ? 'Binds ' : '';
    counters[`${group}${textOf(item.attributes, 'cn') ?? ''}`] = Number(count);
  }
  return counters;
}

async function search(values: Values, args: readonly string[]): Promise<number> {
  const baseDn = required(args, 0, 'BASE');
  const filter = parseFilter(required(args, 1, 'FILTER'));
  if (filter.outcome === 'malformed') throw new Misuse(`the filter is malformed: ${filter.detail}`);
  const show = async (item: { readonly dn: string; readonly attributes: readonly Attribute[] }): Promise<void> => {
    const text = values.json ? `${JSON.stringify(jsonEntry(item))}\n` : formatLdifEntry(item);
    await write(text);
  };
  if (!isOnline(values)) {
    const { tree } = openOffline(
      { dataDirectory: dataDirectory(values), suffix: values.suffix, schemaFiles: await schemaFiles(values) },
      { clock: systemClock, random: systemRandom },
    );
    using _store = tree.store;
    for await (const entry of searchOffline(tree, baseDn, filter.filter, args.slice(2))) await show(entry);
    return 0;
  }
  await using connection = await connect(values);
  for await (const item of connection.search({ baseDn, scope: 'sub', filter: filter.filter, attributes: args.slice(2) })) {
    if (item.kind === 'entry') await show(item);
  }
  return 0;
}

/** Values that are no text as `{ "base64": … }`. */
function jsonEntry({ dn, attributes }: { readonly dn: string; readonly attributes: readonly Attribute[] }) {
  const value = (octets: Buffer) => (isUtf8(octets) ? octets.toString('utf8') : { base64: octets.toString('base64') });
  return { dn, attributes: Object.fromEntries(attributes.map(({ type, values }) => [type, values.map(value)])) };
}

async function backup(values: Values): Promise<number> {
  await using connection = await connect(values, backupTimeoutMs);
  const { value } = await connection.extended(backupOid);
  const path = value?.toString('utf8') ?? '';
  if (values.json) writeJson({ path });
  else process.stdout.write(`${path}\n`);
  return 0;
}

async function acl(values: Values, args: readonly string[]): Promise<number> {
  await using connection = await connect(values);
  return await aclCommand(connection, args, values, (text) => process.stdout.write(text));
}
