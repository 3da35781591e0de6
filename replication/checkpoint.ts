/**
 * How far a replica is, durably: the provider's cookie as of which the replica holds everything. It is written only after the replica has
 * acknowledged all that came before; a crash in between repeats changes, which is harmless, and never skips one.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';

/** One replica's checkpoint. */
export interface Checkpoint {
  /** Master it belongs to; another master's cookie means nothing. */
  readonly master: string;
  readonly cookie: Buffer;
  /** Changes applied since the replica was first loaded. */
  readonly changes: number;
  /** What of the master the replica was given (`Scope.key`). */
  readonly scope: string;
}

/** Of the first master, of one that is not ours, and of a checkpoint that does not say. */
const firstTerm = 1;

/** Keeps one replica's checkpoint in a file. */
export class CheckpointFile {
  readonly #files: Pick<Files, 'read' | 'replace' | 'unlink'>;
  readonly #path: string;
  readonly #term: number;

  /**
   * `term`: of the master that is followed. A replica may have been the master since it followed this one before, with writes of its own that
   * no cookie of then knows about: what is kept counts for one mastership only.
   */
  constructor(files: Pick<Files, 'read' | 'replace' | 'unlink'>, directory: string, replica: string, term = firstTerm) {
    this.#files = files;
    this.#term = term;
    this.#path = `${directory}/${replica.replace(/[^A-Za-z0-9._-]/g, '_')}.checkpoint.json`;
  }

  /** The checkpoint; `undefined` when there is none, or one that cannot be read as such, which means a full comparison. */
  async load(master: string): Promise<Checkpoint | undefined> {
    let text: string;
    try {
      text = (await this.#files.read(this.#path)).toString('utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw new PlatformError('CONFIG_UNREADABLE', `cannot read the checkpoint ${this.#path}: ${messageOf(error)}`, { cause: error });
    }
    try {
      const value: unknown = JSON.parse(text);
      if (typeof value !== 'object' || value === null) return undefined;
      const { master: of, term = firstTerm, cookie, changes, scope = '' } = value as Record<string, unknown>;
      if (of !== master || term !== this.#term || typeof cookie !== 'string' || typeof changes !== 'number' || typeof scope !== 'string')
        return undefined;
      return { master, cookie: Buffer.from(cookie, 'base64'), changes, scope };
    } catch (error) {
      if (error instanceof SyntaxError) return undefined;
      throw error;
    }
  }

  /** Returns once it is durable. */
  async save(checkpoint: Checkpoint): Promise<void> {
    const value = { ...checkpoint, term: this.#term, cookie: checkpoint.cookie.toString('base64') };
    await this.#files.replace(this.#path, `${JSON.stringify(value)}\n`);
  }

  /** Forgets it: the next start compares everything. */
  async remove(): Promise<void> {
    await removeFile(this.#files, this.#path);
  }
}

/** Removes a file; one that is not there is removed. */
export async function removeFile(files: Pick<Files, 'unlink'>, path: string): Promise<void> {
  try {
    await files.unlink(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

const csnPattern = /^\d{14}\.\d{6}Z#[0-9a-f]{6}#[0-9a-f]{2,3}#[0-9a-f]{6}$/i;

/**
 * The highest CSN in an OpenLDAP-form cookie (`rid=000,csn=…;…`); `undefined` for cookies of another form. What is no CSN does not count: it
 * would be later than any change that somebody waits for.
 */
export function csnOfCookie(cookie: Buffer | undefined): string | undefined {
  const match = /(?:^|,)csn=([^,]+)/.exec(cookie?.toString('latin1') ?? '');
  return match?.[1]
    ?.split(';')
    .filter((csn) => csnPattern.test(csn))
    .sort()
    .at(-1);
}

/** A checkpoint is made when nothing was acknowledged for so long, or after the longer time: its flushes would hold up the next change. */
const quietMs = 50;
const latestMs = 1000;

/** Resolves when it is time for the next one; `changes` counts what was acknowledged. */
export async function checkpointIsDue(clock: Clock, changes: () => number, signal: AbortSignal): Promise<void> {
  const startedMs = clock.monotonicMs();
  let before: number;
  do {
    before = changes();
    await sleep(clock, quietMs, signal);
  } while (changes() !== before && clock.monotonicMs() - startedMs < latestMs && !signal.aborted);
}

/** A CSN for a master whose cookies hold none: the time of that state, by our clock. */
export function csnOfTime(nowMs: number): string {
  const iso = new Date(nowMs).toISOString();
  return `${iso.slice(0, 19).replace(/[-:T]/g, '')}.${iso.slice(20, 23)}000Z#000000#000#000000`;
}
