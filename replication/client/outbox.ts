/**
 * What a writer of all directory servers has begun and not yet seen everywhere, on its own disk: one small file for each change, written and
 * flushed before the master is asked, removed once every server has it.
 *
 *   000000000042.intent   { "uuid": … } or { "dn": … }: the entry to look at, not what to write: what counts is the master's state
 *   ldap-eu.cut           changes for that server were dropped: it is compared as a whole when it answers again
 *   owner                 who opened it last, by chance: an earlier one that lives on begins nothing any more
 *
 * After a crash an intent means: the master may have it or not; bring the others to what it has. Nobody was answered, so either is right.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';

/** The entry that a change is about: by name while it has no UUID yet. */
export type Subject = { readonly uuid: string } | { readonly dn: string };

/** A change that is not everywhere yet. */
export interface Intent {
  readonly number: number;
  readonly subject: Subject;
}

/** See the header of this file. */
export class Outbox {
  readonly #files: Files;
  readonly #directory: string;
  readonly #intents = new Map<number, Subject>();
  readonly #cut = new Set<string>();
  readonly #owner: string;
  #lastNumber = 0;

  private constructor(files: Files, directory: string, owner: string) {
    this.#files = files;
    this.#directory = directory;
    this.#owner = owner;
  }

  /** Opens it, takes it from whoever has it, and reads what an earlier run left. `owner` is unique to this run. */
  static async open(files: Files, directory: string, owner: string): Promise<Outbox> {
    const outbox = new Outbox(files, directory, owner);
    await files.mkdirAll(directory);
    await files.replace(outbox.#ownerPath, `${owner}\n`);
    for (const name of (await files.list(directory)).sort()) await outbox.#take(name);
    return outbox;
  }

  get size(): number {
    return this.#intents.size;
  }

  /** What is not everywhere, in the order in which it was begun. */
  intents(): readonly Intent[] {
    return [...this.#intents].map(([number, subject]) => ({ number, subject }));
  }

  /** Whether changes for that server were dropped. */
  isCut(server: string): boolean {
    return this.#cut.has(server);
  }

  /** Returns once the intent is durable. */
  async begin(subject: Subject): Promise<Intent> {
    await this.#checkOwner();
    this.#lastNumber += 1;
    const number = this.#lastNumber;
    try {
      await this.#files.writeNew(this.#pathOf(number), [Buffer.from(`${JSON.stringify(subject)}\n`)]);
      await this.#files.syncDirectory(this.#directory);
    } catch (error) {
      throw this.#cannotBegin(messageOf(error), error);
    }
    this.#intents.set(number, subject);
    return { number, subject };
  }

  /** It is everywhere, or nowhere for good. A crash that brings the file back costs a look at the entry. */
  async end(number: number): Promise<void> {
    if (!this.#intents.delete(number)) return;
    await this.#files.unlink(this.#pathOf(number)).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }

  /** Changes for that server are dropped from here on; returns once that is durable. */
  async cut(server: string): Promise<void> {
    if (this.#cut.has(server)) return;
    await this.#files.replace(`${this.#directory}/${fileName(server)}.cut`, `${server}\n`);
    this.#cut.add(server);
  }

  /** The server was compared and has everything. */
  async healed(server: string): Promise<void> {
    await this.#files.unlink(`${this.#directory}/${fileName(server)}.cut`).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
    this.#cut.delete(server);
  }

  get #ownerPath(): string {
    return `${this.#directory}/owner`;
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

  async #take(name: string): Promise<void> {
    const path = `${this.#directory}/${name}`;
    if (name.endsWith('.cut')) {
      this.#cut.add((await this.#files.read(path)).toString('utf8').trim());
      return;
    }
    const number = Number(/^(\d{12})\.intent$/.exec(name)?.[1]);
    if (!(number > 0)) return;
    this.#lastNumber = Math.max(this.#lastNumber, number);
    const subject = parseSubject((await this.#files.read(path)).toString('utf8'));
    // Half a file: it was never durable, so the master was never asked.
    if (subject === undefined) await this.#files.unlink(path);
    else this.#intents.set(number, subject);
  }

  #pathOf(number: number): string {
    return `${this.#directory}/${String(number).padStart(12, '0')}.intent`;
  }
}

function fileName(server: string): string {
  return server.replace(/[^A-Za-z0-9._-]/g, '_');
}

function parseSubject(text: string): Subject | undefined {
  if (!text.endsWith('\n')) return undefined;
  try {
    const { uuid, dn } = JSON.parse(text) as Record<string, unknown>;
    if (typeof uuid === 'string') return { uuid };
    return typeof dn === 'string' ? { dn } : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
