/**
 * Entries that a replica refuses (a schema that lacks an attribute, a right that is missing): set aside so that they do not hold up all
 * others, durable, tried again every so often and with each new change of theirs.
 *
 *   refused ──► held (on disk before the change counts as done) ──► taken, or gone at the master ──► released
 *
 * At `heldMax` entries nothing more is set aside: the replica as a whole is wrong then, and waits.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { RefusedEntry } from '#replication/client/status.ts';

/** Entries of one replica that are set aside at most. */
export const heldMax = 1000;

/** See the header of this file. */
export class Quarantine {
  readonly #files: Pick<Files, 'read' | 'replace'>;
  readonly #path: string;
  readonly #held = new Map<string, RefusedEntry>();
  #pending: Promise<void> | undefined;
  #writing: Promise<unknown> = Promise.resolve();

  constructor(files: Pick<Files, 'read' | 'replace'>, directory: string, replica: string) {
    this.#files = files;
    this.#path = `${directory}/${replica.replace(/[^A-Za-z0-9._-]/g, '_')}.refused.json`;
  }

  get size(): number {
    return this.#held.size;
  }

  has(uuid: string): boolean {
    return this.#held.has(uuid);
  }

  /** What is held, longest first. */
  list(limit: number): readonly RefusedEntry[] {
    return [...this.#held.values()].slice(0, limit);
  }

  /** Reads what an earlier run held. A file that cannot be read as such is an error: what it held would be missing unnoticed. */
  async load(): Promise<void> {
    let text: string;
    try {
      text = (await this.#files.read(this.#path)).toString('utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw new PlatformError('CONFIG_UNREADABLE', `cannot read ${this.#path}: ${messageOf(error)}`, { cause: error });
    }
    for (const entry of parseHeld(text, this.#path)) this.#held.set(entry.uuid, entry);
  }

  /** Sets an entry aside; resolves once that is durable, with false when there is no room. */
  async hold(entry: RefusedEntry): Promise<boolean> {
    const before = this.#held.get(entry.uuid);
    if (before === undefined && this.#held.size >= heldMax) return false;
    this.#held.set(entry.uuid, { ...entry, sinceMs: before?.sinceMs ?? entry.sinceMs });
    if (before?.reason !== entry.reason || before.dn !== entry.dn) await this.#save();
    return true;
  }

  /** Forgets an entry that was taken. */
  async release(uuid: string): Promise<void> {
    if (this.#held.delete(uuid)) await this.#save();
  }

  // One write at a time; whoever comes meanwhile shares the next.
  #save(): Promise<void> {
    if (this.#pending === undefined) {
      const pending = this.#writing.then(() => {
        this.#pending = undefined;
        return this.#files.replace(this.#path, `${JSON.stringify([...this.#held.values()])}\n`);
      });
      this.#pending = pending;
      // The failure is told to those who wait for this write.
      this.#writing = pending.catch(() => undefined);
    }
    return this.#pending;
  }
}

function parseHeld(text: string, path: string): readonly RefusedEntry[] {
  try {
    const value: unknown = JSON.parse(text);
    if (Array.isArray(value) && value.every(isRefused)) return value;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new PlatformError('CONFIG_UNREADABLE', `${path} is no list of refused entries; remove it and repair the replica`);
}

function isRefused(value: unknown): value is RefusedEntry {
  if (typeof value !== 'object' || value === null) return false;
  const { uuid, dn, reason, sinceMs } = value as Record<string, unknown>;
  return typeof uuid === 'string' && typeof dn === 'string' && typeof reason === 'string' && typeof sinceMs === 'number';
}
