/**
 * The queue's files on this frontend's own disk.
 *
 *   incoming/ID ── written and fsynced ──► renamed to messages/ID, directory fsynced ──► only now the client hears 250
 *   progress/ID: which recipients are finished; written when some are and others are not
 *
 * What always holds: a message that was acknowledged is in `messages/` until each of its recipients was delivered or bounced. A crash
 * between a delivery and its record repeats the delivery, and the delivery id makes the repeat harmless.
 */
import { join } from 'node:path';
import { PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import { decodeEnvelope, type Envelope, encodeEnvelope } from './envelope.ts';

/** Bytes read to find the envelope; a message with more recipients than fit is read whole. */
const envelopeReadBytes = 16 * 1024;
/** Files looked at side by side at start. */
const parallelReads = 16;

/** A message found at start. */
export interface SpooledMessage {
  readonly envelope: Envelope;
  /** Indexes of recipients that are finished. */
  readonly finished: readonly number[];
}

/** See the header of this file. */
export class Spool {
  readonly #files: Files;
  readonly #log: Logger;
  readonly #incoming: string;
  readonly #messages: string;
  readonly #progress: string;
  readonly #damaged: string;

  constructor(directory: string, files: Files, log: Logger) {
    this.#files = files;
    this.#log = log;
    this.#incoming = join(directory, 'incoming');
    this.#messages = join(directory, 'messages');
    this.#progress = join(directory, 'progress');
    this.#damaged = join(directory, 'damaged');
  }

  /**
   * Makes the directories, clears what was never acknowledged, and gives back what was, oldest first.
   *
   * @param isShared another process writes into it too: what is on its way in is left alone
   */
  async open(isShared = false): Promise<SpooledMessage[]> {
    for (const directory of [this.#incoming, this.#messages, this.#progress, this.#damaged]) await this.#files.mkdirAll(directory);
    if (!isShared) for (const name of await this.#files.list(this.#incoming)) await this.#files.unlink(join(this.#incoming, name));
    const names = await this.#files.list(this.#messages);
    const found: SpooledMessage[] = [];
    for (let at = 0; at < names.length; at += parallelReads) {
      const batch = await Promise.all(names.slice(at, at + parallelReads).map((name) => this.load(name)));
      found.push(...batch.filter((message) => message !== undefined));
    }
    const known = new Set(found.map((message) => message.envelope.id));
    for (const name of await this.#files.list(this.#progress)) {
      if (!known.has(name)) await this.#unlinkIfThere(join(this.#progress, name));
    }
    return found.sort((a, b) => a.envelope.acceptedAtMs - b.envelope.acceptedAtMs);
  }

  /** Resolves once the message is durable. */
  async add(envelope: Envelope, raw: Buffer): Promise<void> {
    const staged = join(this.#incoming, envelope.id);
    try {
      await this.#files.writeNew(staged, [encodeEnvelope(envelope), raw]);
      await this.#files.rename(staged, join(this.#messages, envelope.id));
      await this.#files.syncDirectory(this.#messages);
    } catch (thrown) {
      await this.#unlinkIfThere(staged).catch(() => undefined);
      const errno = errnoOf(thrown);
      const code = errno === 'ENOSPC' || errno === 'EDQUOT' ? 'QUEUE_FULL' : 'QUEUE_UNAVAILABLE';
      throw new PlatformError(code, `the queue directory cannot take a message (${errno ?? 'no code'}); look at its disk`, {
        cause: thrown,
      });
    }
  }

  /** The message's text. */
  async read(id: string): Promise<Buffer> {
    const bytes = await this.#files.read(join(this.#messages, id));
    const decoded = decodeEnvelope(bytes);
    if (decoded === undefined) throw new PlatformError('QUEUE_UNAVAILABLE', `queued message ${id} cannot be read back; look at the disk`);
    return bytes.subarray(decoded.textStart);
  }

  /** Records durably which recipients are finished. */
  async saveProgress(id: string, finished: readonly number[]): Promise<void> {
    await this.#files.replace(join(this.#progress, id), JSON.stringify(finished));
  }

  /** Forgets a message. Not fsynced: a message that comes back after a crash is delivered again, which is harmless. */
  async remove(id: string): Promise<void> {
    await this.#unlinkIfThere(join(this.#messages, id));
    await this.#unlinkIfThere(join(this.#progress, id));
  }

  /** A message that was acknowledged; `undefined` when it has gone, or is damaged, which is logged. */
  async load(name: string): Promise<SpooledMessage | undefined> {
    const path = join(this.#messages, name);
    try {
      const size = (await this.#files.size(path)) ?? 0;
      let decoded = decodeEnvelope(await this.#files.readRange(path, 0, envelopeReadBytes));
      if (decoded === undefined && size > envelopeReadBytes) decoded = decodeEnvelope(await this.#files.read(path));
      if (decoded !== undefined && decoded.envelope.id === name && decoded.textStart + decoded.envelope.rawBytes === size) {
        return { envelope: decoded.envelope, finished: await this.#loadProgress(name) };
      }
      await this.#files.rename(path, join(this.#damaged, name));
      this.#log.error(
        { queueId: name, bytes: size },
        'queued message is damaged; it was moved to the folder "damaged", look at it by hand',
      );
      return undefined;
    } catch (thrown) {
      // Done by the process that had the queue before this one.
      if (errnoOf(thrown) === 'ENOENT') return undefined;
      throw thrown;
    }
  }

  async #loadProgress(name: string): Promise<number[]> {
    try {
      const value: unknown = JSON.parse((await this.#files.read(join(this.#progress, name))).toString('utf8'));
      return Array.isArray(value) ? value.filter((entry) => Number.isInteger(entry)) : [];
    } catch (thrown) {
      if (errnoOf(thrown) === 'ENOENT') return [];
      // Without the record finished recipients are tried again, which the delivery id makes harmless.
      this.#log.warn({ queueId: name, err: thrown }, 'progress of a queued message cannot be read; all its recipients are tried again');
      return [];
    }
  }

  async #unlinkIfThere(path: string): Promise<void> {
    try {
      await this.#files.unlink(path);
    } catch (thrown) {
      if (errnoOf(thrown) !== 'ENOENT') throw thrown;
    }
  }
}
