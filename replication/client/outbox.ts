/**
 * What a writer of all directory servers has begun and not yet seen everywhere, on its own disk: one small file for each change, written and
 * flushed before the master is asked, removed once every server has it.
 *
 *   000000000042.intent   { "uuid": … } or { "dn": … }: the entry to look at, not what to write: what counts is the master's state
 *   ldap-eu.cut           changes for that server were dropped: it is compared as a whole when it answers again
 *   owner                 who opened it last, by chance: an earlier one that lives on begins nothing any more
 *
 * After a crash an intent means: the master may have it or not; bring the others to what it has. Nobody was answered, so either is right.
 *
 * An intent gets its name once all of it is on the disk. So one that does not read as it was written is damage, never half a beginning: which
 * entry it was about is not known any more, and every server is compared as a whole.
 */
import { crc32 } from 'node:zlib';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';

/** The entry that a change is about: by name while it has no UUID yet. */
export type Subject = { readonly uuid: string } | { readonly dn: string };

/** A change that is not everywhere yet. */
export interface Intent {
  readonly number: number;
  readonly subject: Subject;
}

const draftEnd = '.new';
const cutEnd = '.cut';

/** See the header of this file. */
export class Outbox {
  readonly #files: Files;
  readonly #directory: string;
  readonly #intents = new Map<number, Subject>();
  /** Names of the files that say so. */
  readonly #cut = new Set<string>();
  readonly #owner: string;
  #lastNumber = 0;
  #damaged = 0;
  /** What is under way to the files about cuts, one at a time. */
  #cutting: Promise<unknown> = Promise.resolve();

  private constructor(files: Files, directory: string, owner: string) {
    this.#files = files;
    this.#directory = directory;
    this.#owner = owner;
  }

  /**
   * Opens it, takes it from whoever has it, and reads what an earlier run left. `owner` is unique to this run; `servers` are those that changes
   * are for. Rejects as the files do.
   */
  static async open(files: Files, directory: string, owner: string, servers: readonly string[]): Promise<Outbox> {
    const outbox = new Outbox(files, directory, owner);
    await files.mkdirAll(directory);
    await files.replace(outbox.#ownerPath, `${owner}\n`);
    const damaged: string[] = [];
    for (const name of (await files.list(directory)).sort()) await outbox.#take(name, damaged);
    outbox.#damaged = damaged.length;
    if (damaged.length > 0) for (const server of servers) await outbox.#writeCut(cutName(server));
    for (const path of damaged) await outbox.#remove(path);
    return outbox;
  }

  get size(): number {
    return this.#intents.size;
  }

  /** Intents that could not be read when it was opened. */
  get damaged(): number {
    return this.#damaged;
  }

  /** What is not everywhere, in the order in which it was begun. */
  intents(): readonly Intent[] {
    return [...this.#intents].map(([number, subject]) => ({ number, subject }));
  }

  /** Whether changes for that server were dropped. */
  isCut(server: string): boolean {
    return this.#cut.has(cutName(server));
  }

  /** Returns once the intent is durable. */
  async begin(subject: Subject): Promise<Intent> {
    await this.#checkOwner();
    this.#lastNumber += 1;
    const number = this.#lastNumber;
    const path = this.#pathOf(number);
    const draft = `${path}${draftEnd}`;
    let isNamed = false;
    try {
      await this.#files.writeNew(draft, [Buffer.from(formatSubject(subject))]);
      // Never over a file of somebody else who had this number first.
      await this.#files.link(draft, path);
      isNamed = true;
      await this.#files.syncDirectory(this.#directory);
    } catch (error) {
      // Where the disk is full, what was begun must not fill it further. What cannot be removed is looked at by the next start.
      for (const made of isNamed ? [path, draft] : [draft]) await this.#remove(made).catch(() => {});
      throw this.#cannotBegin(messageOf(error), error);
    }
    await this.#remove(draft).catch(() => {});
    this.#intents.set(number, subject);
    return { number, subject };
  }

  /** It is everywhere, or nowhere for good. A crash that brings the file back costs a look at the entry. */
  async end(number: number): Promise<void> {
    if (this.#intents.delete(number)) await this.#remove(this.#pathOf(number));
  }

  /** Changes for that server are to be dropped: calls `drop` once that is durable, rejects with `DIR_BUSY` where it cannot be. */
  cut(server: string, drop: () => void): Promise<void> {
    const name = cutName(server);
    return this.#inTurn(async () => {
      try {
        if (!this.#cut.has(name)) await this.#writeCut(name);
      } catch (error) {
        throw this.#cannotBegin(messageOf(error), error);
      }
      drop();
    });
  }

  /** The server was compared and has everything, unless `isStill` says no. Where that cannot be written the next start compares it once more. */
  healed(server: string, isStill: () => boolean): Promise<void> {
    const name = cutName(server);
    return this.#inTurn(async () => {
      if (!isStill()) return;
      this.#cut.delete(name);
      await this.#remove(`${this.#directory}/${name}`);
    });
  }

  get #ownerPath(): string {
    return `${this.#directory}/owner`;
  }

  async #writeCut(name: string): Promise<void> {
    await this.#files.replace(`${this.#directory}/${name}`, 'compare this server as a whole\n');
    this.#cut.add(name);
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#cutting.then(work);
    // The failure is told to the one whose turn it was.
    this.#cutting = turn.catch(() => undefined);
    return turn;
  }

  async #remove(path: string): Promise<void> {
    await this.#files.unlink(path).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }

  // Two that share it would take each other's intents for their own, and end what the other one has just begun.
  async #checkOwner(): Promise<void> {
    let owner: string;
    try {
      owner = (await this.#files.read(this.#ownerPath)).toString('utf8').trim();
    } catch (error) {
      throw this.#cannotBegin(`${this.#ownerPath} cannot be read: ${messageOf(error)}`, error);
    }
    if (owner !== this.#owner)
      throw this.#cannotBegin('another service or another run of this one has opened it since; each needs one of its own');
  }

  #cannotBegin(why: string, cause?: unknown): PlatformError {
    return new PlatformError('DIR_BUSY', `the outbox ${this.#directory} cannot be written, so nothing was changed: ${why}`, { cause });
  }

  async #take(name: string, damaged: string[]): Promise<void> {
    const path = `${this.#directory}/${name}`;
    if (name.endsWith(cutEnd)) this.#cut.add(name);
    // The master was never asked.
    if (name.endsWith(draftEnd)) await this.#remove(path).catch(() => {});
    const number = Number(/^(\d{12})\.intent$/.exec(name)?.[1]);
    if (!(number > 0)) return;
    this.#lastNumber = Math.max(this.#lastNumber, number);
    const subject = await this.#read(path);
    if (subject === undefined) damaged.push(path);
    else this.#intents.set(number, subject);
  }

  async #read(path: string): Promise<Subject | undefined> {
    try {
      return parseSubject((await this.#files.read(path)).toString('utf8'));
    } catch (error) {
      // A sector of the disk is gone.
      if (errnoOf(error) === 'EIO') return undefined;
      throw error;
    }
  }

  #pathOf(number: number): string {
    return `${this.#directory}/${String(number).padStart(12, '0')}.intent`;
  }
}

function cutName(server: string): string {
  return `${server.replace(/[^A-Za-z0-9._-]/g, '_')}${cutEnd}`;
}

function formatSubject(subject: Subject): string {
  return `${JSON.stringify({ ...subject, crc: crcOf(subject) })}\n`;
}

function crcOf(subject: Subject): string {
  return crc32(JSON.stringify(subject)).toString(16).padStart(8, '0');
}

/** `undefined` when it is not what was written. One of an earlier version has no checksum. */
function parseSubject(text: string): Subject | undefined {
  const { crc, ...rest } = parseObject(text) ?? {};
  const subject = 'uuid' in rest ? { uuid: rest.uuid } : { dn: rest.dn };
  const [value] = Object.values(subject);
  if (typeof value !== 'string' || Object.keys(rest).length !== 1) return undefined;
  return crc === undefined || crc === crcOf(subject as Subject) ? (subject as Subject) : undefined;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  if (!text.endsWith('}\n')) return undefined;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
