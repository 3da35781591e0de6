/**
 * Writing all directory servers at once (Guide: Directory Integration): the writer itself carries each of its changes from the master to every
 * other server, and answers once as many have it as the quorum says.
 *
 *   begin: intent on our disk ──► master ──► refused, or no answer: every other server gets what the master turns out to have
 *                                   └──────► done: every other server brings the entry to the master's state, each in its own queue
 *                                              └──► quorum reached: answered      all have it: the intent goes
 *
 * The master orders the writes of all writers, and decides what is refused; the others get its entries with UUID, CSN and stamps. A server
 * that was away gets what it missed when it is back; when more than `outboxChangesMax` changes wait, those for the server with the longest
 * queue are dropped and it is compared as a whole instead. What was answered with a quorum of n is on n servers.
 *
 * Where the outbox cannot be written (a full disk), nothing is begun and every write is put off (`DIR_BUSY`); what was begun goes on.
 */
import { sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import type { Ports } from '#common/lifecycle.ts';
import { requireMaster } from '#directory/client/authority.ts';
import type { DirectoryCopies } from '#directory/client/directory.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import type { ServerAccess } from '../server-access.ts';
import { stateFile } from '../store/shadow.ts';
import { CopyTarget } from './copy-target.ts';
import { type Intent, Outbox, type Subject } from './outbox.ts';
import type { CopyStatus } from './status.ts';

/** What writing all at once needs. */
export interface AllAtOnceOptions {
  readonly suffix: string;
  /** The servers besides the master. */
  readonly servers: readonly { readonly name: string; readonly access: ServerAccess }[];
  /** How many servers, the master counted, have a change when it is answered. */
  readonly quorum: number;
  readonly outboxDirectory: string;
  readonly outboxChangesMax: number;
  readonly answerWithinMs: number;
  readonly master: () => Promise<LdapConnection>;
  /** Where the master is; a promotion makes it one of the others. */
  readonly masterUrl: () => string;
  readonly ports: Ports;
}

interface Waiting {
  readonly servers: Set<string>;
  copies: number;
  /** One of the others that is the master by now. */
  toMaster?: string;
  readonly wake: () => void;
}

/** What an operator mends while the service runs. Anything else is wrong with the configuration, and said at the start. */
const passing = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO', 'EMFILE', 'ENFILE', 'ENOMEM']);
const openAgainMs = 5000;

/** See the header of this file. */
export class AllAtOnce implements DirectoryCopies {
  readonly #options: AllAtOnceOptions;
  /** Missing while it cannot be opened; then there are no targets either. */
  #outbox: Outbox | undefined;
  #targets: readonly CopyTarget[] = [];
  /** Why nothing can be begun now, as far as is known. */
  #trouble: string | undefined;
  /** Intents that the master has, with the servers that lack it still. */
  readonly #open = new Map<number, Waiting>();
  readonly #stop = new AbortController();
  #recovering: Promise<void> = Promise.resolve();
  /** Shared by those who come while it lasts: many files go. */
  #makingRoom: Promise<void> | undefined;

  private constructor(options: AllAtOnceOptions) {
    this.#options = options;
    const gauge = options.ports.metrics.gauge(
      'archipelago_directory_outbox_changes',
      'Changes that a directory server has not got from this writer yet.',
      ['replica'],
    );
    options.ports.metrics.onCollect(() => {
      for (const target of this.#targets) gauge.set({ replica: target.name }, target.backlog);
    });
  }

  /** Opens the outbox and goes on with what it holds; where its disk has no room, later. Rejects where it can never be opened as it is. */
  static async open(options: AllAtOnceOptions): Promise<AllAtOnce> {
    const all = new AllAtOnce(options);
    const isOpen = await all.#openOutbox();
    all.#recovering = isOpen ? all.#recover() : all.#openLater();
    return all;
  }

  async begin(subject: Subject): Promise<Intent> {
    const outbox = this.#outbox;
    if (outbox === undefined) throw new PlatformError('DIR_BUSY', `nothing was changed: ${this.#trouble}`);
    try {
      if (outbox.size >= this.#options.outboxChangesMax) {
        this.#makingRoom ??= this.#makeRoom(outbox).finally(() => {
          this.#makingRoom = undefined;
        });
        await this.#makingRoom;
      }
      const intent = await outbox.begin(subject);
      this.#trouble = undefined;
      return intent;
    } catch (error) {
      this.#trouble = messageOf(error);
      throw error;
    }
  }

  async done(intent: Intent, uuid: string): Promise<void> {
    const { quorum, answerWithinMs, ports } = this.#options;
    const reached = Promise.withResolvers<void>();
    const waiting: Waiting = { servers: new Set(), copies: 1, wake: () => reached.resolve() };
    this.#copy(intent.number, uuid, waiting);
    if (waiting.copies >= quorum) return;
    const timer = ports.clock.after(answerWithinMs, () => reached.resolve());
    const onStop = (): void => reached.resolve();
    this.#stop.signal.addEventListener('abort', onStop, { once: true });
    try {
      while (waiting.copies < quorum) {
        await reached.promise;
        if (waiting.copies >= quorum) return;
        const lacking =
          waiting.toMaster === undefined
            ? this.#targets.flatMap((target) => (waiting.servers.has(target.name) ? [target.whatOf(uuid)] : [])).join('; ')
            : `${waiting.toMaster} is the master itself by now: name the old master in its place in allAtOnce.servers`;
        throw new PlatformError(
          'DIR_QUORUM',
          `the master has the change, but only ${waiting.copies} of the ${quorum} servers wanted have it after ${answerWithinMs} ms; ` +
            lacking,
          {
            fields: {
              copies: waiting.copies,
              quorum,
              hint: 'do not repeat it; `archipelago replica status` shows when the others have it',
            },
          },
        );
      }
    } finally {
      timer.cancel();
      this.#stop.signal.removeEventListener('abort', onStop);
    }
  }

  async unknown(intent: Intent): Promise<void> {
    await this.#look(intent).catch((error: unknown) => {
      // It stays in the outbox; the next start looks again.
      this.#options.ports.log.warn({ component: 'all-at-once' }, `what became of a change is not known yet: ${messageOf(error)}`);
      this.#options.ports.clock.after(5000, () => void (this.#stop.signal.aborted || this.unknown(intent)));
    });
  }

  status(): readonly CopyStatus[] {
    const trouble = this.#trouble;
    if (this.#outbox !== undefined) {
      return this.#targets.map((target) => {
        const status = target.status();
        // An outbox that cannot be written concerns every server, also one that is away.
        return trouble === undefined ? status : { ...status, lastError: [trouble, status.lastError].filter(Boolean).join('; ') };
      });
    }
    const none = { state: 'away', backlogChanges: 0, isCut: false, refused: [] } as const;
    return this.#options.servers.map(({ name, access }) => ({ name, url: access.url, ...none, lastError: trouble }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#targets.map((target) => target[Symbol.asyncDispose]()));
    await this.#recovering;
  }

  /** False where its disk has trouble that passes. */
  async #openOutbox(): Promise<boolean> {
    const { outboxDirectory, servers, ports } = this.#options;
    const log = ports.log.child({ component: 'all-at-once' });
    try {
      const names = servers.map(({ name }) => name);
      const outbox = await Outbox.open(ports.files, outboxDirectory, ports.random.bytes(8).toString('hex'), names);
      if (outbox.damaged > 0)
        log.error({ count: outbox.damaged }, 'changes under way were damaged on the disk: every server is compared as a whole');
      if (this.#stop.signal.aborted) return false;
      this.#outbox = outbox;
      this.#trouble = undefined;
      this.#targets = servers.map((server) => this.#targetOf(server, outbox));
      return true;
    } catch (error) {
      if (!passing.has(errnoOf(error) ?? '')) throw error;
      this.#trouble = `the outbox ${outboxDirectory} cannot be opened: ${messageOf(error)}`;
      log.error({ retryMs: openAgainMs }, this.#trouble);
      return false;
    }
  }

  async #openLater(): Promise<void> {
    const { clock, log } = this.#options.ports;
    const { signal } = this.#stop;
    for (;;) {
      await sleep(clock, openAgainMs, signal);
      if (signal.aborted) return;
      const isOpen = await this.#openOutbox().catch((error: unknown) => {
        this.#trouble = messageOf(error);
        log.error({ component: 'all-at-once' }, this.#trouble);
        return false;
      });
      if (isOpen) return this.#recover();
    }
  }

  #targetOf({ name, access }: AllAtOnceOptions['servers'][number], outbox: Outbox): CopyTarget {
    const { suffix, master, outboxDirectory, ports } = this.#options;
    return new CopyTarget({
      name,
      access,
      suffix,
      master,
      isCut: () => outbox.isCut(name),
      onHealed: async (isStill) => {
        try {
          await outbox.healed(name, isStill);
        } catch (error) {
          ports.log.error({ component: 'all-at-once', replica: name }, `it is compared once more by the next start: ${messageOf(error)}`);
        }
      },
      onDone: (number) => this.#copied(number, name),
      refreshDeletesMaxPercent: 100,
      suspectsFile: stateFile(outboxDirectory, name, 'compare'),
      ports,
    });
  }

  async #recover(): Promise<void> {
    for (const intent of this.#outbox?.intents() ?? []) {
      if (this.#stop.signal.aborted) return;
      await this.unknown(intent);
    }
  }

  // The master may have it or not: the others get what it has.
  async #look(intent: Intent): Promise<void> {
    const { subject } = intent;
    let uuid = 'uuid' in subject ? subject.uuid : undefined;
    if ('dn' in subject) {
      const master = await this.#options.master();
      const entry = await master.readEntry(subject.dn, ['entryUUID']);
      await requireMaster(master);
      uuid = entry === undefined ? undefined : textOf(entry.attributes, 'entryUUID')?.toLowerCase();
    }
    if (uuid === undefined) await this.#outbox?.end(intent.number);
    else this.#copy(intent.number, uuid, { servers: new Set(), copies: 1, wake: () => {} });
  }

  #copy(number: number, uuid: string, waiting: Waiting): void {
    // A server that is to be compared as a whole gets it in that comparison, or after it.
    for (const target of this.#targets) waiting.servers.add(target.name);
    this.#open.set(number, waiting);
    for (const target of this.#targets) target.push(number, uuid);
    if (this.#targets.length === 0) void this.#finish(number);
  }

  #copied(number: number, server: string): void {
    const waiting = this.#open.get(number);
    if (waiting?.servers.delete(server) !== true) return;
    // It was counted already.
    if (this.#options.servers.some(({ name, access }) => name === server && access.url === this.#options.masterUrl()))
      waiting.toMaster = server;
    else waiting.copies += 1;
    if (waiting.copies >= this.#options.quorum) waiting.wake();
    if (waiting.servers.size === 0) void this.#finish(number);
  }

  async #finish(number: number): Promise<void> {
    this.#open.delete(number);
    try {
      await this.#outbox?.end(number);
    } catch (error) {
      this.#options.ports.log.error({ component: 'all-at-once' }, `an intent cannot be removed from the outbox: ${messageOf(error)}`);
    }
  }

  async #makeRoom(outbox: Outbox): Promise<void> {
    const longest = [...this.#targets].sort((a, b) => b.backlog - a.backlog)[0];
    if (longest === undefined || longest.backlog * 2 < outbox.size) {
      throw new PlatformError('DIR_BUSY', `${outbox.size} changes are under way to the directory servers already`);
    }
    const dropped: number[] = [];
    await outbox.cut(longest.name, () => dropped.push(...longest.drop()));
    this.#options.ports.log.error(
      { component: 'all-at-once', replica: longest.name, count: dropped.length },
      'the outbox is full: changes for this server are dropped, it is compared as a whole',
    );
    for (const number of dropped) {
      const waiting = this.#open.get(number);
      waiting?.servers.delete(longest.name);
      if (waiting?.servers.size === 0) await this.#finish(number);
    }
  }
}
