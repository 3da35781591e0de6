/**
 * `archipelago directory import`: LDIF into a data directory that no server uses.
 *
 * Into a directory without accounts entries are loaded into a copy beside it, which takes its place when it is whole:
 *
 *   chunks ──► block ─┬─► prepare (thread) ─┬─► place, in order ──► BulkLoad ──► addresses ──► rename
 *              block ─┴─► prepare (thread) ─┘
 *
 * Until then nothing is changed: an import that is broken off leaves the directory as it was. Memory holds some blocks, the containers and the
 * domains, whatever the number of accounts. All checks of an Add are made: of one entry in prepare-entry.ts, of its place in place-entry.ts, and
 * that nobody else has its addresses at the end, when all can be looked for. Followers of the old content get a full refresh.
 *
 * Into a directory that serves accounts already entries go one by one (import-by-adds.ts).
 */
import { join } from 'node:path';
import { printable } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { Files } from '#common/files/files.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import type { Random } from '#common/random.ts';
import { LdifCutter } from '#protocol/ldap/ldif-block.ts';
import { ownerOf } from '../provisioning/mail-rules.ts';
import { Refusal } from '../schema/refusal.ts';
import type { SchemaFile } from '../schema/schema-file.ts';
import { rememberSchema } from '../schema/schema-in-use.ts';
import { seedTree } from '../server/seed.ts';
import type { Tree } from '../server/tree.ts';
import type { WriteContext } from '../server/write-rules.ts';
import { BulkLoad, claimedAddresses, type DroppedRow, type LoadStep } from '../store/bulk-load.ts';
import type { StoredEntry } from '../store/entry-store.ts';
import { type ImportCounts, type ImportHandlers, importByAdds } from './import-by-adds.ts';
import { databaseFile, entryFunctions, openOffline } from './offline.ts';
import { EntryPlacer } from './place-entry.ts';
import type { PrepareBlock } from './prepare-block.ts';
import { type PreparedBatch, readBatch } from './prepared-batch.ts';

/** A directory with more entries than this, or with any account, is added to and not made anew. */
const entriesCopiedMax = 10_000;
/** Addresses looked up between two looks at the event loop, and entries removed by one commit. */
const claimsPage = 1000;

/** Memory for what the look for addresses reads: each is looked for once, and in no order. */
const settleCacheBytes = 32 * 1_048_576;

/** What an import works with. */
export interface ImportContext {
  readonly dataDirectory: string;
  readonly suffix: string;
  readonly schemaFiles?: readonly SchemaFile[];
  readonly clock: Clock;
  readonly random: Random;
  readonly files: Files;
  readonly hasher: PasswordHasher;
  readonly prepare: PrepareBlock;
  /** Blocks that `prepare` works on at a time. */
  readonly blocksAtOnce: number;
}

/** Told while it runs, beside the entries. */
export interface ImportSteps extends ImportHandlers {
  step(step: LoadStep | 'addresses'): void;
}

/** Reads to the end of `chunks`. */
export async function importLdif(context: ImportContext, chunks: AsyncIterable<Buffer>, handlers: ImportSteps): Promise<ImportCounts> {
  const present = openOffline(context, context);
  using store = present.tree.store;
  if (store.tally('accounts') > 0 || store.tally('entries') > entriesCopiedMax) {
    await rememberSchema(present.tree);
    return await importByAdds(present, context.hasher, chunks, handlers);
  }
  const path = join(context.dataDirectory, databaseFile);
  const made = `${path}.import`;
  const scratch = `${made}-scratch`;
  const clean = async (): Promise<void> => {
    for (const name of [made, `${made}-wal`, `${made}-journal`, scratch]) await context.files.removeTree(name);
  };
  await clean();
  try {
    const counts = await fill(context, present, { made, scratch }, chunks, handlers);
    // The old file stays locked until the new one has its name, and leaves no log that would be taken for the new one's.
    store.leaveLog();
    await context.files.rename(made, path);
    await context.files.syncDirectory(context.dataDirectory);
    return counts;
  } finally {
    await clean();
  }
}

async function fill(
  context: ImportContext,
  present: WriteContext,
  paths: { readonly made: string; readonly scratch: string },
  chunks: AsyncIterable<Buffer>,
  handlers: ImportSteps,
): Promise<ImportCounts> {
  const counts: ImportCounts = { added: 0, skipped: 0, failed: 0 };
  const fail = (line: number, detail: string): void => {
    counts.failed += 1;
    handlers.mistake(line, detail);
  };
  const dropped = ({ dn, why }: DroppedRow): void => {
    counts.added -= 1;
    if (why === 'name') counts.skipped += 1;
    else
      fail(0, `${printable(dn)}: ${why === 'uuid' ? 'its entryUUID belongs to an entry before it' : 'the entry above it was not taken'}`);
  };
  const functions = entryFunctions(present.tree.schema);
  const batches = prepared(context, chunks);
  const first = await firstEntries(batches);
  // A file without the base of the tree goes below the frame that a new directory has.
  if (!startsAtSuffix(present.tree, first.at(-1))) await seedTree(present);
  await present.tree.store.backupTo(paths.made);
  {
    using load = new BulkLoad(paths.made, paths.scratch, functions);
    const placer = new EntryPlacer({ schema: present.tree.schema, suffix: context.suffix, load, dropped });
    for (const id of present.tree.store.idsAfter(0, entriesCopiedMax)) placer.remember(present.tree.store.byId(id) as StoredEntry);
    let line = 0;
    for await (const batch of inTurn(first, batches)) {
      for (const mistake of batch.mistakes) fail(line + mistake.line, mistake.detail);
      for (const entry of readBatch(batch)) {
        try {
          if (placer.place(entry) === 'added') counts.added += 1;
          else counts.skipped += 1;
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          fail(line + entry.line, `${entry.rdn},${entry.parentDn}: ${error.message}`);
        }
      }
      line += batch.lines;
      handlers.progress(counts);
    }
    present.tree.csns.observe(placer.highestCsn);
    load.finish({}, { dropped, step: (step) => handlers.step(step) });
  }
  await settle(context, paths, present.tree.csns.next(), counts, handlers);
  return counts;
}

// With a store on the new file: addresses that two accounts have, what a directory begins with, and the state as of now.
async function settle(
  context: ImportContext,
  paths: { readonly made: string; readonly scratch: string },
  csn: string,
  counts: ImportCounts,
  handlers: ImportSteps,
): Promise<void> {
  const whole = openOffline(context, context, paths.made, settleCacheBytes);
  const { tree } = whole;
  using store = tree.store;
  handlers.step('addresses');
  for (const page of claimedAddresses(paths.scratch, claimsPage)) {
    const removed = await store.write(() => {
      const told: string[] = [];
      for (const { address, id } of page) {
        const entry = store.byId(id);
        const owner = entry === undefined ? undefined : ownerOf(tree, address, id);
        if (entry === undefined || owner === undefined) continue;
        // The later one goes, unless something stands below it.
        const [kept, loser] = owner.id < id || store.hasChildren(owner.id) ? [owner, entry] : [entry, owner];
        told.push(`${store.dnOf(loser)}: the address ${printable(address)} belongs to ${store.dnOf(kept)} already`);
        store.remove(loser, csn);
      }
      return told;
    });
    for (const detail of removed) {
      counts.added -= 1;
      counts.failed += 1;
      handlers.mistake(0, detail);
    }
  }
  await store.write(() => {
    store.setMeta('contextCsn', csn);
    // Cookies of the content before name changes that are not in this one.
    if (store.meta('databaseId') === undefined) return;
    store.setMeta('databaseId', context.random.bytes(8).toString('hex'));
    store.setMeta('floorCsn', csn);
  });
  tree.csns.observe(csn);
  await seedTree(whole);
  await rememberSchema(tree);
}

// Up to the first batch that holds an entry.
async function firstEntries(batches: AsyncGenerator<PreparedBatch, void>): Promise<PreparedBatch[]> {
  const first: PreparedBatch[] = [];
  for (let next = await batches.next(); next.done !== true; next = await batches.next()) {
    first.push(next.value);
    if (next.value.numbers.length > 0) break;
  }
  return first;
}

async function* inTurn(first: readonly PreparedBatch[], rest: AsyncGenerator<PreparedBatch, void>): AsyncGenerator<PreparedBatch> {
  yield* first;
  yield* rest;
}

function startsAtSuffix(tree: Tree, batch: PreparedBatch | undefined): boolean {
  for (const entry of batch === undefined ? [] : readBatch(batch)) {
    const dn = entry.parentDn === '' ? entry.rdn : `${entry.rdn},${entry.parentDn}`;
    return tree.keyOf(tree.parseName(dn)) === tree.keyOf(tree.suffix);
  }
  return false;
}

// Some blocks are prepared ahead; they come out in the order of the file.
async function* prepared(context: ImportContext, chunks: AsyncIterable<Buffer>): AsyncGenerator<PreparedBatch, void> {
  const running: Promise<PreparedBatch>[] = [];
  const start = (block: Buffer): void => {
    const batch = context.prepare(block);
    batch.catch(() => {});
    running.push(batch);
  };
  const cutter = new LdifCutter();
  for await (const chunk of chunks) {
    const block = cutter.push(chunk);
    if (block !== undefined) start(block);
    if (running.length > context.blocksAtOnce) yield await (running.shift() as Promise<PreparedBatch>);
  }
  const rest = cutter.end();
  if (rest.length > 0) start(rest);
  for (const batch of running) yield await batch;
}
