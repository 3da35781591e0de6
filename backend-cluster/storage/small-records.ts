/**
 * Small durable records of the cluster: terms, intents and tombstones. On a shared directory each is a file, written under a name of its
 * own first, so that it appears whole: by link() when the name must be free, by rename() when it may be replaced.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { Random } from '#common/random.ts';
import { storageFailure } from './failures.ts';

/** Octets of one such record. */
export const smallRecordBytesMax = 64 * 1024;

/** Records of one kind, by name. Names are letters, digits, dots, hyphens and underscores. */
export interface SmallRecords {
  /** Creates the record; false when the name is taken. Durable on return. */
  create(name: string, content: string): Promise<boolean>;
  /** Creates or replaces the record. Durable on return. */
  replace(name: string, content: string): Promise<void>;
  /** `undefined` when there is none. */
  read(name: string): Promise<string | undefined>;
  has(name: string): Promise<boolean>;
  /** In the order of names. */
  names(): Promise<string[]>;
  /** Makes durable whatever `names` and `read` have shown: another one may have written it and died before it was. */
  settle(): Promise<void>;
  /** No failure when there is none. Durable on return. */
  remove(name: string): Promise<void>;
}

/** Throws when a record is larger than is allowed. */
export function smallRecordBytes(content: string): Buffer {
  const bytes = Buffer.from(content);
  if (bytes.length > smallRecordBytesMax) {
    throw new PlatformError('BUG_UNEXPECTED', `a record of ${bytes.length} bytes is larger than the ${smallRecordBytesMax} allowed`);
  }
  return bytes;
}

/** The records of one directory. */
export class FileRecords implements SmallRecords {
  readonly #files: Files;
  readonly #random: Random;
  readonly #directory: string;
  readonly #tmp: string;

  /** Both directories must exist. */
  constructor(files: Files, random: Random, directory: string, tmp: string) {
    this.#files = files;
    this.#random = random;
    this.#directory = directory;
    this.#tmp = tmp;
  }

  async create(name: string, content: string): Promise<boolean> {
    const temporary = await this.#write(content);
    let isCreated = true;
    try {
      await this.#files.link(temporary, this.#path(name));
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') {
        await this.#discard(temporary);
        throw storageFailure(error, this.#path(name));
      }
      isCreated = false;
    }
    // Also when it was there: what is read from it must not be lost with the power.
    await this.#sync();
    await this.#discard(temporary);
    return isCreated;
  }

  async replace(name: string, content: string): Promise<void> {
    const temporary = await this.#write(content);
    try {
      await this.#files.rename(temporary, this.#path(name));
    } catch (error) {
      await this.#discard(temporary);
      throw storageFailure(error, this.#path(name));
    }
    await this.#sync();
  }

  async read(name: string): Promise<string | undefined> {
    try {
      return (await this.#files.read(this.#path(name))).toString('utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw storageFailure(error, this.#path(name));
    }
  }

  async has(name: string): Promise<boolean> {
    try {
      return (await this.#files.size(this.#path(name))) !== undefined;
    } catch (error) {
      throw storageFailure(error, this.#path(name));
    }
  }

  async names(): Promise<string[]> {
    try {
      return (await this.#files.list(this.#directory)).filter((name) => !name.startsWith('.')).sort();
    } catch (error) {
      throw storageFailure(error, this.#directory);
    }
  }

  async remove(name: string): Promise<void> {
    try {
      await this.#files.unlink(this.#path(name));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw storageFailure(error, this.#path(name));
    }
    await this.#sync();
  }

  settle(): Promise<void> {
    return this.#sync();
  }

  #path(name: string): string {
    return `${this.#directory}/${name}`;
  }

  async #write(content: string): Promise<string> {
    const bytes = smallRecordBytes(content);
    const temporary = `${this.#tmp}/${this.#random.uuid()}`;
    try {
      await this.#files.writeNew(temporary, [bytes]);
    } catch (error) {
      await this.#discard(temporary);
      throw storageFailure(error, temporary);
    }
    return temporary;
  }

  async #sync(): Promise<void> {
    try {
      await this.#files.syncDirectory(this.#directory);
    } catch (error) {
      throw storageFailure(error, this.#directory);
    }
  }

  /** A temporary file that stays is only a few bytes wasted. */
  async #discard(temporary: string): Promise<void> {
    await this.#files.unlink(temporary).catch(() => {});
  }
}

/** JSON of a stored file, or `STORE_CORRUPT` with its name. */
export function parseStoredJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new PlatformError('STORE_CORRUPT', `${path} is not JSON: ${messageOf(error)}`, { fields: { path }, cause: error });
  }
}
