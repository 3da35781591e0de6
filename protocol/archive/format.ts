/**
 * An account as one stream, a tar file; docs/reference/archive.md is its description for people.
 *
 *     archive.json            first: what this is, all mailboxes, and the names of all scripts
 *     script/<n>.sieve        Sieve scripts
 *     mailbox/<n>/<m>.jsonl   one line for each message of the files that follow it
 *     mailbox/<n>/<file>.eml  messages, as they are stored
 *     end.json                last: how many messages and bytes, and a checksum over all; without it the archive was cut off
 */
import { createHash, type Hash } from 'node:crypto';
import { PlatformError } from '#common/errors/platform-error.ts';
import { tarEnd, tarFile } from './tar.ts';

export const archiveFormat = 'archipelago-account';
export const archiveVersion = 1;

/** Messages and bytes that one index stands for: what is in memory at a time. */
export const batchMessagesMax = 256;
export const batchBytesMax = 8 * 1024 * 1024;

/** A mailbox of an archive. What is missing is chosen anew by the import. */
export interface ArchivedMailbox {
  /** Folder in the archive. */
  readonly number: number;
  readonly name: string;
  readonly uidValidity?: number;
  readonly uidNext?: number;
  readonly highestModseq?: number;
  readonly specialUse?: string;
}

/** `archive.json`. */
export interface ArchiveHead {
  readonly format: string;
  readonly version: number;
  /** Of this archive: importing it twice stores nothing twice. */
  readonly id: string;
  readonly account: string;
  readonly createdAtMs: number;
  readonly mailboxes: readonly ArchivedMailbox[];
  readonly subscriptions: readonly string[];
  /** Missing in archives of releases that had none. */
  readonly scripts?: readonly ArchivedScript[];
}

/** A Sieve script; its text is in a file of its own. */
export interface ArchivedScript {
  readonly file: string;
  readonly name: string;
  /** Whether it runs at delivery. */
  readonly isActive: boolean;
  readonly sha256: string;
}

/** A message of an archive. */
export interface ArchivedMessage {
  readonly raw: Buffer;
  readonly flags: readonly string[];
  readonly internalDateMs: number;
  readonly uid?: number;
  readonly modseq?: number;
  /** Hex. */
  readonly emailId?: string;
}

/** One line of an index. */
export interface IndexLine extends Omit<ArchivedMessage, 'raw'> {
  readonly file: string;
  readonly sha256: string;
}

/** `end.json`. */
export interface ArchiveEnd {
  readonly messages: number;
  readonly bytes: number;
  /** Over the checksums of all messages, in hex and in order. */
  readonly sha256: string;
}

/** Writes an archive piece by piece: first `head`, then `messages` for one mailbox after the other, then `end`. */
export class ArchiveWriter {
  readonly #all: Hash = createHash('sha256');
  #messages = 0;
  #bytes = 0;
  #indexes = 0;

  /** `scripts`: texts by name, and the name of the one that is active. */
  head(
    head: Omit<ArchiveHead, 'format' | 'version' | 'scripts'>,
    scripts: { readonly texts: ReadonlyMap<string, string>; readonly active: string | undefined } = { texts: new Map(), active: undefined },
  ): Buffer[] {
    const listed: ArchivedScript[] = [];
    const files: Buffer[] = [];
    for (const [name, text] of scripts.texts) {
      const body = Buffer.from(text);
      const file = `script/${listed.length + 1}.sieve`;
      listed.push({ file, name, isActive: name === scripts.active, sha256: createHash('sha256').update(body).digest('hex') });
      files.push(...tarFile(file, body, head.createdAtMs));
    }
    const whole: ArchiveHead = { format: archiveFormat, version: archiveVersion, ...head, scripts: listed };
    return [...tarFile('archive.json', json(whole), head.createdAtMs), ...files];
  }

  /** At most what the limits above allow. */
  messages(mailbox: number, batch: readonly ArchivedMessage[]): Buffer[] {
    const files: Buffer[] = [];
    let index = '';
    for (const { raw, ...facts } of batch) {
      this.#messages += 1;
      this.#bytes += raw.length;
      const sha256 = createHash('sha256').update(raw).digest('hex');
      this.#all.update(sha256);
      const file = `mailbox/${mailbox}/${facts.uid ?? this.#messages}.eml`;
      index += `${JSON.stringify({ file, ...facts, sha256 } satisfies IndexLine)}\n`;
      files.push(...tarFile(file, raw, facts.internalDateMs));
    }
    this.#indexes += 1;
    return [...tarFile(`mailbox/${mailbox}/${this.#indexes}.jsonl`, Buffer.from(index), batch[0]?.internalDateMs ?? 0), ...files];
  }

  end(): Buffer[] {
    const end: ArchiveEnd = { messages: this.#messages, bytes: this.#bytes, sha256: this.#all.digest('hex') };
    return [...tarFile('end.json', json(end), 0), tarEnd];
  }
}

/** What an archive says, in its order. */
export type ArchivePart =
  | { readonly kind: 'head'; readonly head: ArchiveHead }
  | { readonly kind: 'script'; readonly script: ArchivedScript; readonly text: string }
  | { readonly kind: 'message'; readonly mailbox: number; readonly file: string; readonly message: ArchivedMessage }
  | { readonly kind: 'end'; readonly end: ArchiveEnd };

/** Makes parts of an archive's files, verifying each. Throws `PROTO_SYNTAX` with the file's name. */
export class ArchiveReader {
  readonly #all: Hash = createHash('sha256');
  readonly #index = new Map<string, IndexLine>();
  /** Scripts whose texts have not come yet, by file. */
  readonly #scripts = new Map<string, ArchivedScript>();
  #head: ArchiveHead | undefined;
  #messages = 0;
  #bytes = 0;

  take(name: string, body: Buffer): ArchivePart | undefined {
    if (this.#head === undefined) {
      if (name !== 'archive.json') throw wrong(name, 'the first file must be archive.json');
      this.#head = readHead(name, body);
      for (const script of this.#head.scripts ?? []) this.#scripts.set(script.file, script);
      return { kind: 'head', head: this.#head };
    }
    if (name === 'end.json') return { kind: 'end', end: this.#end(name, body) };
    const script = this.#scripts.get(name);
    if (script !== undefined) return this.#script(name, script, body);
    const match = /^mailbox\/(\d{1,9})\/[^/]+\.(jsonl|eml)$/.exec(name);
    // A later version may add files; what is not known is passed over.
    if (match === null) return undefined;
    if (match[2] === 'jsonl') {
      for (const line of body.toString('utf8').split('\n')) if (line !== '') this.#addLine(name, line);
      return undefined;
    }
    return this.#message(name, Number(match[1]), body);
  }

  #script(name: string, script: ArchivedScript, body: Buffer): ArchivePart {
    this.#scripts.delete(name);
    if (createHash('sha256').update(body).digest('hex') !== script.sha256)
      throw wrong(name, 'its SHA-256 is another: the archive is damaged');
    return { kind: 'script', script, text: body.toString('utf8') };
  }

  #addLine(name: string, text: string): void {
    const line = parsed(name, Buffer.from(text)) as Partial<IndexLine>;
    const { file, flags, internalDateMs, sha256, uid, modseq, emailId } = line;
    const isNumber = (value: unknown): boolean => value === undefined || (Number.isSafeInteger(value) && (value as number) > 0);
    if (typeof file !== 'string' || typeof sha256 !== 'string' || typeof internalDateMs !== 'number' || !Array.isArray(flags)) {
      throw wrong(name, 'a line has no file, sha256, internalDateMs or flags');
    }
    if (!isNumber(uid) || !isNumber(modseq) || (emailId !== undefined && !/^[0-9a-f]{32}$/.test(emailId))) {
      throw wrong(name, `the numbers of ${file} are malformed`);
    }
    if (this.#index.size >= 4 * batchMessagesMax) throw wrong(name, 'too many messages are announced before they follow');
    this.#index.set(file, line as IndexLine);
  }

  #message(name: string, mailbox: number, raw: Buffer): ArchivePart {
    const line = this.#index.get(name);
    if (line === undefined) throw wrong(name, 'no index before it names this file');
    this.#index.delete(name);
    const sha256 = createHash('sha256').update(raw).digest('hex');
    if (sha256 !== line.sha256) throw wrong(name, 'its SHA-256 is not that of the index: the archive is damaged');
    this.#all.update(sha256);
    this.#messages += 1;
    this.#bytes += raw.length;
    const { flags, internalDateMs, uid, modseq, emailId } = line;
    const message = {
      raw,
      flags: flags.map(String),
      internalDateMs,
      ...(uid === undefined ? {} : { uid }),
      ...(modseq === undefined ? {} : { modseq }),
      ...(emailId === undefined ? {} : { emailId }),
    };
    return { kind: 'message', mailbox, file: name, message };
  }

  #end(name: string, body: Buffer): ArchiveEnd {
    const end = parsed(name, body) as Partial<ArchiveEnd>;
    const sha256 = this.#all.digest('hex');
    const [missing] = this.#scripts.values();
    if (missing !== undefined) throw wrong(name, `the text of the script "${missing.name}" is missing`);
    if (end.messages !== this.#messages || end.bytes !== this.#bytes || end.sha256 !== sha256 || this.#index.size > 0) {
      throw wrong(name, `the archive has ${this.#messages} messages of ${this.#bytes} bytes and says ${end.messages} of ${end.bytes}`);
    }
    return end as ArchiveEnd;
  }
}

function readHead(name: string, body: Buffer): ArchiveHead {
  const head = parsed(name, body) as Partial<ArchiveHead>;
  if (head.format !== archiveFormat) throw wrong(name, `the format is ${String(head.format)}, not ${archiveFormat}`);
  if (head.version !== archiveVersion) throw wrong(name, `version ${String(head.version)} is not known to this release`);
  const areMailboxes =
    Array.isArray(head.mailboxes) &&
    head.mailboxes.every((mailbox) => typeof mailbox?.name === 'string' && Number.isSafeInteger(mailbox.number));
  if (!areMailboxes || !Array.isArray(head.subscriptions) || typeof head.id !== 'string' || !/^[\w.-]{1,100}$/.test(head.id)) {
    throw wrong(name, 'id, mailboxes or subscriptions are missing or malformed');
  }
  const areScripts = (Array.isArray(head.scripts) ? head.scripts : []).every(
    (script: Partial<ArchivedScript> | null) =>
      typeof script?.name === 'string' &&
      typeof script.file === 'string' &&
      typeof script.sha256 === 'string' &&
      typeof script.isActive === 'boolean',
  );
  if (!areScripts || (head.scripts !== undefined && !Array.isArray(head.scripts))) throw wrong(name, 'scripts are malformed');
  return head as ArchiveHead;
}

function parsed(name: string, body: Buffer): object {
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    value = undefined;
  }
  if (typeof value !== 'object' || value === null) throw wrong(name, 'it is not a JSON object');
  return value;
}

function json(value: object): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

function wrong(name: string, what: string): PlatformError {
  return new PlatformError('PROTO_SYNTAX', `${name.slice(0, 200)} of the archive: ${what}`);
}
