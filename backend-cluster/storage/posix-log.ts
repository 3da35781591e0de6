/**
 * The account log on a shared directory (local, NFS from 4.1, CephFS). layout.ts draws it.
 *
 *     opener B                         owner A, asleep
 *     mkdir stage/B
 *     for each other stage: unlink its files, rmdir it     ── A's pending link() has lost its source: ENOENT, whenever it wakes
 *     read snapshot and log to the end; beside it write stage/B/c, fsync
 *     link to log/<n>                                      ── what was read was all there is: the account can be read here
 *     fsync log/                                           ── the opening is committed: the account can be changed here
 *
 * What always holds: a slot's name appears once, by link(), with all its bytes on disk before. An opening that was revoked cannot create
 * a slot or a snapshot, not even under a number that was freed in the meantime; this is what makes removing old slots safe. Rejected:
 * removing slots without revoking (a sleeper finds its number free again and acknowledges mail into a hole), and locks (a paused holder
 * does not know that its lock is gone).
 */
import type { AccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { AccountReader, CommitOutcome, OpeningLog } from './account-log.ts';
import type { Finding } from './account-store.ts';
import { isFull } from './failures.ts';
import { type AccountLayout, bodyName, numberName, parseBodyName, parseNumberName, type StoreLayout } from './layout.ts';
import { decodeSlotHeader, slotHeaderBytes } from './slot.ts';

/** Times that one foreign staging directory is emptied before giving up: its owner may be writing at the same moment. */
const revocationTriesMax = 100;

/** Reads an account that may or may not be open somewhere. */
export function posixReader(files: Files, layout: StoreLayout, uuid: AccountUuid): AccountReader {
  const at = layout.account(uuid);
  const numbers = async (directory: string): Promise<number[]> => {
    const found: number[] = [];
    for (const name of await files.list(directory)) {
      const number = parseNumberName(name);
      if (number !== undefined) found.push(number);
    }
    return found.sort((a, b) => a - b);
  };
  return {
    listSnapshots: () => numbers(at.snap),
    readSnapshot: (slot) => files.read(`${at.snap}/${numberName(slot)}`),
    listSlots: () => numbers(at.log),
    settle: () => files.syncDirectory(at.log),
    readSlot: (slot, offset, length) => files.readRange(`${at.log}/${numberName(slot)}`, offset, length),
    async listBodies() {
      const found: number[] = [];
      for (const name of await files.list(at.body)) {
        const body = parseBodyName(name);
        if (body !== undefined) found.push(body);
      }
      return found;
    },
    async readBody(body, offset, length) {
      const kept = `${at.body}/${bodyName(body)}`;
      if (body < 0) return files.readRange(kept, offset, length);
      try {
        return await files.readRange(`${at.log}/${numberName(body)}`, offset, length);
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error;
        // It left the log, and got its second name before that.
        return files.readRange(kept, offset, length);
      }
    },
    findings: () => [],
    nameOf(what) {
      const path =
        'slot' in what
          ? `${at.log}/${numberName(what.slot)}`
          : 'snapshot' in what
            ? `${at.snap}/${numberName(what.snapshot)}`
            : `${at.body}/${bodyName(what.body)}`;
      return path.slice(layout.root.length + 1);
    },
  };
}

/** Begins an opening: makes its staging directory and revokes every other one. Nothing is committed yet. */
export async function beginOpening(files: Files, layout: StoreLayout, uuid: AccountUuid, openId: string): Promise<OpeningLog> {
  const at = layout.account(uuid);
  const stage = `${at.stage}/${openId}`;
  try {
    await files.mkdir(stage);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    // A new account. stage/ comes last: where it is, the others are.
    for (const directory of [at.log, at.snap, at.body, at.stage]) await files.mkdirAll(directory);
    await files.mkdir(stage);
  }
  for (const other of await files.list(at.stage)) {
    if (other !== openId) await revoke(files, `${at.stage}/${other}`);
  }
  return new PosixOpening(files, layout, uuid, at, stage);
}

async function revoke(files: Files, stage: string): Promise<void> {
  for (let tries = 0; tries < revocationTriesMax; tries += 1) {
    try {
      for (const name of await files.list(stage)) {
        await files.unlink(`${stage}/${name}`).catch((error: unknown) => {
          if (errnoOf(error) !== 'ENOENT') throw error;
        });
      }
      await files.rmdir(stage);
      return;
    } catch (error) {
      const errno = errnoOf(error);
      // Gone: its owner closed it, or a third opener was faster; either way it is no source for a link any more.
      if (errno === 'ENOENT') return;
      if (errno !== 'ENOTEMPTY' && errno !== 'EEXIST') throw error;
    }
  }
  throw new PlatformError('STORE_UNAVAILABLE', `${stage} fills up faster than it can be emptied; another member is writing in it`);
}

class PosixOpening implements OpeningLog {
  readonly #files: Files;
  readonly #at: AccountLayout;
  readonly #stage: string;
  readonly #reader: AccountReader;
  #staged = 0;
  #settling: Promise<void> | undefined;
  #discarding: Promise<unknown> = Promise.resolve();
  #prepared: { readonly nonce: string; readonly staged: string; readonly written: Promise<void> } | undefined;

  constructor(files: Files, layout: StoreLayout, uuid: AccountUuid, at: AccountLayout, stage: string) {
    this.#files = files;
    this.#at = at;
    this.#stage = stage;
    this.#reader = posixReader(files, layout, uuid);
  }

  listSnapshots(): Promise<number[]> {
    return this.#reader.listSnapshots();
  }

  readSnapshot(slot: number): Promise<Buffer> {
    return this.#reader.readSnapshot(slot);
  }

  listSlots(): Promise<number[]> {
    return this.#reader.listSlots();
  }

  readSlot(slot: number, offset: number, length: number): Promise<Buffer> {
    return this.#reader.readSlot(slot, offset, length);
  }

  listBodies(): Promise<number[]> {
    return this.#reader.listBodies();
  }

  /** Once is enough: since the revocation nobody else adds a slot, and a commit of this opening is durable before it counts. */
  settle(): Promise<void> {
    this.#settling ??= this.#reader.settle().catch((error: unknown) => {
      this.#settling = undefined;
      throw error;
    });
    return this.#settling;
  }

  readBody(at: number, offset: number, length: number): Promise<Buffer> {
    return this.#reader.readBody(at, offset, length);
  }

  findings(): readonly Finding[] {
    return [];
  }

  nameOf(what: { slot: number } | { snapshot: number } | { body: number }): string {
    return this.#reader.nameOf(what);
  }

  async secure(): Promise<void> {
    let directory = this.#at.directory;
    for (let level = 0; level < 4; level += 1) {
      await this.#files.syncDirectory(directory);
      directory = directory.slice(0, directory.lastIndexOf('/'));
    }
  }

  /** An NFS client lists a directory anew once it has changed it itself. */
  async refresh(): Promise<void> {
    const marker = `fresh-${this.#stage.slice(this.#stage.lastIndexOf('/') + 1)}`;
    for (const directory of [this.#at.snap, this.#at.log]) {
      await this.#files.mkdir(`${directory}/${marker}`);
      await this.#files.rmdir(`${directory}/${marker}`);
    }
  }

  async isHeld(): Promise<boolean> {
    return (await this.#files.size(this.#stage)) !== undefined;
  }

  prepare(nonce: string, parts: readonly Uint8Array[]): void {
    this.#dropPrepared();
    const staged = this.#nextStaged();
    const written = this.#files.writeNew(staged, parts);
    // Whoever commits it hears of its failure.
    written.catch(() => {});
    this.#prepared = { nonce, staged, written };
  }

  async commit(slot: number, nonce: string, parts: readonly Uint8Array[], taken?: () => void): Promise<CommitOutcome> {
    const { staged, written } = this.#stagedFor(nonce, parts);
    const name = `${this.#at.log}/${numberName(slot)}`;
    try {
      await written;
      // A slot before it that got lost while it stays would be damage.
      await this.settle();
    } catch (error) {
      if (isFull(error)) {
        await this.#discard(staged);
        return { kind: 'full', cause: error };
      }
      return errnoOf(error) === 'ENOENT' ? { kind: 'deposed', cause: error } : { kind: 'unknown', cause: error };
    }
    try {
      await this.#files.link(staged, name);
    } catch (error) {
      const errno = errnoOf(error);
      if (isFull(error)) {
        await this.#discard(staged);
        return { kind: 'full', cause: error };
      }
      if (errno === 'ENOENT') return { kind: 'deposed', cause: error };
      if (errno !== 'EEXIST') return { kind: 'unknown', cause: error };
      const owner = await this.#nonceOf(name);
      if (owner instanceof Error) return { kind: 'unknown', cause: owner };
      if (owner !== nonce) return { kind: 'deposed', cause: error };
      // The slot is ours: an earlier attempt of the system's own got through and only its answer was lost.
    }
    taken?.();
    try {
      await this.#files.syncDirectory(this.#at.log);
    } catch (error) {
      return { kind: 'unknown', cause: error };
    }
    // Nobody's answer waits for it.
    this.#discarding = Promise.all([this.#discarding, this.#discard(staged)]);
    return { kind: 'committed' };
  }

  async writeBody(at: number, parts: readonly Uint8Array[]): Promise<void> {
    await this.#files.writeNew(`${this.#at.body}/${bodyName(at)}`, parts);
    await this.#files.syncDirectory(this.#at.body);
  }

  async writeSnapshot(slot: number, parts: readonly Uint8Array[]): Promise<void> {
    const staged = this.#nextStaged();
    try {
      await this.#files.writeNew(staged, parts);
    } catch (error) {
      // That the staged name is taken says nothing of the snapshot: storage that carries a command out twice answers so to the second time.
      await this.#discard(staged);
      throw error;
    }
    try {
      await this.#files.link(staged, `${this.#at.snap}/${numberName(slot)}`);
    } catch (error) {
      await this.#discard(staged);
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
    await this.#files.syncDirectory(this.#at.snap);
    await this.#discard(staged);
  }

  async keepBodiesOf(slot: number): Promise<void> {
    try {
      await this.#files.link(`${this.#at.log}/${numberName(slot)}`, `${this.#at.body}/${bodyName(slot)}`);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
  }

  syncBodies(): Promise<void> {
    return this.#files.syncDirectory(this.#at.body);
  }

  async removeSlots(ascending: readonly number[]): Promise<void> {
    for (const slot of ascending) await this.#remove(`${this.#at.log}/${numberName(slot)}`);
  }

  removeSnapshot(slot: number): Promise<void> {
    return this.#remove(`${this.#at.snap}/${numberName(slot)}`);
  }

  removeBody(at: number): Promise<void> {
    return this.#remove(`${this.#at.body}/${bodyName(at)}`);
  }

  async end(): Promise<void> {
    this.#dropPrepared();
    await this.#discarding;
    await revoke(this.#files, this.#stage);
  }

  /** What is to be linked: as it was prepared, or written now. */
  #stagedFor(nonce: string, parts: readonly Uint8Array[]): { readonly staged: string; readonly written: Promise<void> } {
    const prepared = this.#prepared;
    if (prepared?.nonce === nonce) {
      this.#prepared = undefined;
      return prepared;
    }
    this.#dropPrepared();
    const staged = this.#nextStaged();
    return { staged, written: this.#files.writeNew(staged, parts) };
  }

  /** Nobody wants it, and its name is used once: under no circumstances does it become a slot. */
  #dropPrepared(): void {
    const prepared = this.#prepared;
    if (prepared === undefined) return;
    this.#prepared = undefined;
    const gone = prepared.written.catch(() => {}).then(() => this.#discard(prepared.staged));
    this.#discarding = Promise.all([this.#discarding, gone]);
  }

  #nextStaged(): string {
    this.#staged += 1;
    return `${this.#stage}/${this.#staged}`;
  }

  /** What is left in the staging directory harms nobody: `end` or the next opener removes it. So a failure here is none. */
  async #discard(staged: string): Promise<void> {
    await this.#files.unlink(staged).catch(() => {});
  }

  async #remove(path: string): Promise<void> {
    await this.#files.unlink(path).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }

  async #nonceOf(name: string): Promise<string | Error> {
    try {
      return decodeSlotHeader(await this.#files.readRange(name, 0, slotHeaderBytes)).nonce;
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }
}
