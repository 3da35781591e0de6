/** `archipelago account export | import`: an account as an archive, and the mailboxes of other programs as accounts. */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { type ArchivedMessage, ArchiveReader, ArchiveWriter, batchBytesMax, batchMessagesMax } from '#protocol/archive/format.ts';
import { MboxDecoder, maildirFlags, maildirFolder } from '#protocol/archive/mbox.ts';
import { TarDecoder } from '#protocol/archive/tar.ts';
import type { AskStream } from '../connect.ts';
import type { VerbResult } from '../output.ts';
import { exitCodes, type Terminal } from '../terminal.ts';

/** What an import takes. */
export const importFormats = ['archive', 'mbox', 'maildir'] as const;
export type ImportFormat = (typeof importFormats)[number];

interface ImportReport {
  readonly mailboxes: number;
  readonly messages: number;
  readonly skipped: number;
  readonly bytes: number;
  readonly renumbered: readonly string[];
  /** Missing in answers of releases that had none. */
  readonly scripts?: number;
  readonly scriptsLeft?: readonly string[];
}

const pathOf = (name: string): string => `/api/v1/accounts/${encodeURIComponent(name)}/archive`;

/** Writes an account to a file, verified on the way, or to standard output. A file that was cut off is removed. */
export async function accountExport(ask: AskStream, name: string, to: string): Promise<VerbResult> {
  const response = await ask(pathOf(name), { method: 'GET' });
  const [tar, reader] = [new TarDecoder(), new ArchiveReader()];
  let messages = -1;
  let bytes = 0;
  const verified = async function* (source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      bytes += chunk.length;
      for (const file of tar.push(chunk)) {
        const part = reader.take(file.name, file.body);
        if (part?.kind === 'end') messages = part.end.messages;
      }
      yield chunk;
    }
    if (messages < 0)
      throw new PlatformError(
        'NET_CLOSED',
        `the archive of ${name} was cut off after ${bytes} bytes; see the log of the account's current host`,
      );
  };
  try {
    // Standard output stays open: others may have more to write to it.
    if (to === '-') await pipeline(response, verified, process.stdout, { end: false });
    else await pipeline(response, verified, createWriteStream(to, { flags: 'wx', mode: 0o600 }));
  } catch (error) {
    if (to !== '-' && (error as NodeJS.ErrnoException).code !== 'EEXIST') await rm(to, { force: true });
    throw error instanceof PlatformError
      ? error
      : new PlatformError('CONFIG_UNREADABLE', `${to} was not written: ${messageOf(error)}`, { cause: error });
  }
  const document = { account: name, file: to, messages, bytes };
  return {
    document,
    names: [to],
    render: () => (to === '-' ? '' : `${name}: ${messages} messages, ${bytes} bytes in ${to}\n`),
    exitCode: exitCodes.ok,
  };
}

/** Brings mail into an account that exists. */
export async function accountImport(
  terminal: Terminal,
  ask: AskStream,
  name: string,
  path: string,
  options: { readonly format: ImportFormat; readonly mailbox?: string },
): Promise<VerbResult> {
  const source =
    options.format === 'archive'
      ? path === '-'
        ? (process.stdin as AsyncIterable<Buffer>)
        : createReadStream(path)
      : options.format === 'mbox'
        ? mboxArchive(path, options.mailbox ?? 'INBOX', terminal.clock.nowMs())
        : maildirArchive(path, options.mailbox ?? 'INBOX', terminal.clock.nowMs());
  const response = await ask(pathOf(name), { method: 'POST', contentType: 'application/x-tar', body: source });
  const report = JSON.parse(await text(response)) as ImportReport;
  const { messages, mailboxes, skipped, bytes, renumbered, scripts = 0, scriptsLeft = [] } = report;
  return {
    document: { account: name, ...report },
    names: [name],
    render: () =>
      `${name}: ${messages} messages stored in ${mailboxes} mailboxes, ${bytes} bytes` +
      `${skipped === 0 ? '' : `; ${skipped} were there already`}\n` +
      (scripts === 0 ? '' : `Sieve scripts: ${scripts}\n`) +
      scriptsLeft.map((why) => `Sieve script left out: ${why}\n`).join('') +
      (renumbered.length === 0 ? '' : `messages of mailboxes that were in use got new UIDs: ${renumbered.join(', ')}\n`),
    exitCode: exitCodes.ok,
  };
}

async function* mboxArchive(path: string, mailbox: string, nowMs: number): AsyncGenerator<Buffer> {
  const mtimeMs = path === '-' ? nowMs : (await stat(path)).mtimeMs;
  const decoder = new MboxDecoder();
  const source: AsyncIterable<Buffer> = path === '-' ? process.stdin : createReadStream(path);
  const messages = async function* (): AsyncGenerator<ArchivedMessage> {
    for await (const chunk of source) for (const one of decoder.push(chunk)) yield { ...one, internalDateMs: one.dateMs ?? mtimeMs };
    for (const one of decoder.end()) yield { ...one, internalDateMs: one.dateMs ?? mtimeMs };
  };
  yield* archiveOf(path, nowMs, [{ name: mailbox, messages: messages() }]);
}

async function* maildirArchive(path: string, inbox: string, nowMs: number): AsyncGenerator<Buffer> {
  const folders = (await readdir(path, { withFileTypes: true })).flatMap((entry) => {
    const folder = entry.isDirectory() ? maildirFolder(entry.name) : undefined;
    return folder === undefined ? [] : [{ name: folder, messages: maildirMessages(join(path, entry.name)) }];
  });
  yield* archiveOf(path, nowMs, [{ name: inbox, messages: maildirMessages(path) }, ...folders]);
}

async function* maildirMessages(directory: string): AsyncGenerator<ArchivedMessage> {
  const found: { file: string; name: string }[] = [];
  for (const part of ['cur', 'new']) {
    const names = await readdir(join(directory, part));
    found.push(...names.filter((name) => !name.startsWith('.')).map((name) => ({ file: join(directory, part, name), name })));
  }
  // Names begin with the time of delivery.
  for (const { file, name } of found.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    yield { raw: await readFile(file), flags: maildirFlags(name), internalDateMs: (await stat(file)).mtimeMs };
  }
}

async function* archiveOf(
  path: string,
  nowMs: number,
  mailboxes: readonly { readonly name: string; readonly messages: AsyncIterable<ArchivedMessage> }[],
): AsyncGenerator<Buffer> {
  const writer = new ArchiveWriter();
  // The same files again are the same archive, of which nothing is stored twice.
  const id = createHash('sha256')
    .update(path === '-' ? String(nowMs) : resolve(path))
    .digest('hex')
    .slice(0, 32);
  const listed = mailboxes.map(({ name }, i) => ({ number: i + 1, name }));
  yield* writer.head({ id, account: '', createdAtMs: nowMs, mailboxes: listed, subscriptions: mailboxes.map(({ name }) => name) });
  for (const [i, { messages }] of mailboxes.entries()) {
    let batch: ArchivedMessage[] = [];
    let bytes = 0;
    for await (const { raw, flags, internalDateMs } of messages) {
      batch.push({ raw, flags, internalDateMs });
      bytes += raw.length;
      if (batch.length < batchMessagesMax && bytes < batchBytesMax) continue;
      yield* writer.messages(i + 1, batch);
      batch = [];
      bytes = 0;
    }
    if (batch.length > 0) yield* writer.messages(i + 1, batch);
  }
  yield* writer.end();
}
