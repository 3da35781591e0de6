/**
 * The frontend's durable mail queue.
 *
 *   accept ─► on disk ─► 250 ─► attempt at once ─► every recipient delivered or bounced ─► forgotten
 *                                  ▲      │ some temporary
 *                                  └──────┴── wait: 5 s doubled to 15 min, or until the cluster answers again; bounced after five days
 *
 * What always holds: an accepted message is on disk until each recipient was delivered or its sender was told (spool.ts); a repeated
 * attempt carries the same delivery id, so nothing is stored twice; a bounce is never bounced; a cluster that is down holds up only
 * its own mail (cluster-lane.ts).
 *
 * One process delivers from the directory at a time. On a restart without a break (subset/succession.ts) the old one stops delivering, keeps
 * taking its last clients' mail, and tells its heir of each message once it is on disk.
 */
import type { Clock, Timer } from '#common/clock.ts';
import { withTimeout } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Random } from '#common/random.ts';
import type { FrontendStatus } from '../client/status.ts';
import type { Delivery, MailRouter } from '../listeners/smtp-contract.ts';
import { type AttemptOutcome, attemptDelivery } from './attempt.ts';
import { giveUpAfterMs, retryDelayMs } from './back-off.ts';
import { bounceMessage, type FailedRecipient } from './bounce.ts';
import { ClusterLane } from './cluster-lane.ts';
import type { Envelope, QueuedRecipient } from './envelope.ts';
import type { RelayTransport } from './relay.ts';
import { Slots } from './slots.ts';
import { Spool } from './spool.ts';

/** What a queue is made of. */
export interface QueueOptions {
  readonly directory: string;
  /** Name of this frontend. */
  readonly hostName: string;
  readonly router: MailRouter;
  openDelivery(cluster: ClusterName): Promise<Delivery>;
  readonly relay: RelayTransport | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly files: Files;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly messagesMax?: number;
  readonly bytesMax?: number;
}

/** A message to be queued. Ids are made by `newId`, so that the text may name its id. */
export interface NewMessage {
  readonly id: string;
  readonly sender: string;
  readonly recipients: readonly QueuedRecipient[];
  readonly sessionId: string;
  /** With CRLF line ends. */
  readonly raw: Buffer;
}

const defaultMessagesMax = 200_000;
const defaultBytesMax = 20 * 1024 ** 3;
const lookupsMax = 32;
/** Time that attempts under way have to end when the queue stops. */
const stopMaxMs = 1000;
/** The same when another process takes the queue over: clients wait for nothing meanwhile. */
const releaseMaxMs = 10_000;

interface Entry {
  readonly envelope: Envelope;
  readonly finished: Set<number>;
  attempts: number;
  isActive: boolean;
  retry: Timer | undefined;
  lastProblem: string | undefined;
  /** Another process had it before, and may have finished it at the very end. */
  readonly wasShared: boolean;
}

/** See the header of this file. */
export class MailQueue implements AsyncDisposable {
  readonly #options: QueueOptions;
  readonly #spool: Spool;
  readonly #entries = new Map<string, Entry>();
  readonly #lanes = new Map<ClusterName, ClusterLane>();
  /** Messages that wait for a cluster that cannot be reached. */
  readonly #waiting = new Map<ClusterName, Set<Entry>>();
  readonly #lookups = new Slots(lookupsMax);
  readonly #active = new Set<Promise<void>>();
  readonly #outcomes: { add(labels?: Record<string, string>, value?: number): void };
  #bytes = 0;
  #delivered = 0;
  #bounced = 0;
  #isStopping = false;
  #isDisposed = false;
  #heir: ((id: string) => void) | undefined;

  private constructor(options: QueueOptions) {
    this.#options = options;
    this.#spool = new Spool(options.directory, options.files, options.log);
    this.#outcomes = options.metrics.counter('archipelago_queue_recipients_total', 'Recipients of queued mail by outcome', ['outcome']);
    const messages = options.metrics.gauge('archipelago_queue_messages', 'Messages in the queue');
    const oldest = options.metrics.gauge('archipelago_queue_oldest_seconds', 'Age of the oldest message in the queue');
    options.metrics.onCollect(() => {
      const status = this.status();
      messages.set({}, status.messages);
      oldest.set({}, status.oldestAgeMs / 1000);
    });
  }

  /**
   * Opens the queue with what it held, and begins to deliver it.
   *
   * @param isShared another process, which has released it, still takes its last clients' mail
   */
  static async open(options: QueueOptions, isShared = false): Promise<MailQueue> {
    const queue = new MailQueue(options);
    for (const { envelope, finished } of await queue.#spool.open(isShared)) queue.#add(envelope, finished, isShared);
    if (queue.#entries.size > 0) options.log.info({ messages: queue.#entries.size }, 'queue taken up again');
    return queue;
  }

  /** A new queue id; sorts by time. */
  newId(): string {
    return `${this.#options.clock.nowMs().toString(36)}-${this.#options.random.bytes(6).toString('hex')}`;
  }

  /** Resolves once the message is durable. Rejects with `QUEUE_FULL` or `QUEUE_UNAVAILABLE`. */
  async accept(message: NewMessage): Promise<void> {
    const { messagesMax = defaultMessagesMax, bytesMax = defaultBytesMax, log } = this.#options;
    if (this.#entries.size >= messagesMax || this.#bytes + message.raw.length > bytesMax) {
      const seen = `${this.#entries.size} messages, ${this.#bytes} bytes`;
      throw new PlatformError('QUEUE_FULL', `the queue holds ${seen}; look at which cluster it waits for with "archipelago status"`);
    }
    await this.#store(message);
    const { id, sender, sessionId, raw } = message;
    log.info({ queueId: id, sessionId, sender, recipients: message.recipients.length, bytes: raw.length }, 'message queued');
  }

  status(): FrontendStatus['queue'] {
    const nowMs = this.#options.clock.nowMs();
    let oldestAgeMs = 0;
    let deferred = 0;
    for (const entry of this.#entries.values()) {
      oldestAgeMs = Math.max(oldestAgeMs, nowMs - entry.envelope.acceptedAtMs);
      if (entry.attempts > 0) deferred += 1;
    }
    return { messages: this.#entries.size, oldestAgeMs, delivered: this.#delivered, deferred, bounced: this.#bounced };
  }

  /** Delivers no more, so that another process can; messages still come in, and `heir` is told of each. Resolves once no attempt is under way. */
  async release(heir: (id: string) => void): Promise<void> {
    this.#heir = heir;
    await this.#stopAttempts(releaseMaxMs, false);
    this.#entries.clear();
    this.#waiting.clear();
    this.#lanes.clear();
    this.#bytes = 0;
  }

  /** Delivers again: the other process could not. */
  async takeBack(): Promise<void> {
    if (this.#heir === undefined || this.#isDisposed) return;
    this.#heir = undefined;
    this.#isStopping = false;
    for (const { envelope, finished } of await this.#spool.open(true)) {
      if (!this.#entries.has(envelope.id)) this.#add(envelope, finished, true);
    }
  }

  /** Takes up a message that the process before this one has put into the directory since. */
  async adopt(id: string): Promise<void> {
    if (this.#entries.has(id)) return;
    const found = await this.#spool.load(id);
    if (found !== undefined && !this.#entries.has(id)) this.#add(found.envelope, found.finished, true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    await this.#stopAttempts(stopMaxMs, true);
  }

  async #stopAttempts(limitMs: number, isAtOnce: boolean): Promise<void> {
    this.#isStopping = true;
    for (const entry of this.#entries.values()) entry.retry?.cancel();
    const closeLanes = (): void => {
      for (const lane of this.#lanes.values()) lane.close();
    };
    if (isAtOnce) closeLanes();
    const ended = Promise.allSettled(this.#active).then(() => undefined);
    await withTimeout(this.#options.clock, limitMs, ended, () => new Error('attempts under way')).catch(() => {
      this.#options.log.warn({ attempts: this.#active.size }, 'queue stopped with attempts under way; they are repeated at the next start');
    });
    closeLanes();
  }

  async #store(message: NewMessage): Promise<void> {
    const { raw, ...rest } = message;
    const envelope: Envelope = { ...rest, acceptedAtMs: this.#options.clock.nowMs(), rawBytes: raw.length };
    // Counted before it is written, so that many at once do not pass the limit together.
    this.#bytes += raw.length;
    try {
      await this.#spool.add(envelope, raw);
    } finally {
      this.#bytes -= raw.length;
    }
    if (this.#heir === undefined) this.#add(envelope, []);
    else this.#heir(envelope.id);
  }

  #add(envelope: Envelope, finished: readonly number[], wasShared = false): void {
    const entry: Entry = {
      envelope,
      finished: new Set(finished),
      attempts: 0,
      isActive: false,
      retry: undefined,
      lastProblem: undefined,
      wasShared,
    };
    this.#entries.set(envelope.id, entry);
    this.#bytes += envelope.rawBytes;
    this.#start(entry);
  }

  /** Begins an attempt now, unless one is under way. */
  #start(entry: Entry): void {
    if (this.#isStopping || entry.isActive || !this.#entries.has(entry.envelope.id)) return;
    entry.isActive = true;
    entry.retry?.cancel();
    for (const waiting of this.#waiting.values()) waiting.delete(entry);
    const attempt = this.#attempt(entry).catch((thrown: unknown) => {
      this.#options.log.error({ queueId: entry.envelope.id, err: thrown }, `attempt failed unexpectedly: ${messageOf(thrown)}`);
      this.#retryLater(entry);
    });
    this.#active.add(attempt);
    void attempt.finally(() => this.#active.delete(attempt));
  }

  async #attempt(entry: Entry): Promise<void> {
    const { envelope } = entry;
    const open = envelope.recipients.map((_, index) => index).filter((index) => !entry.finished.has(index));
    const outcome = await attemptDelivery(envelope, open, {
      router: this.#options.router,
      lane: (cluster) => this.#lane(cluster),
      relay: this.#options.relay,
      lookups: this.#lookups,
      readRaw: () => this.#spool.read(envelope.id),
    });
    if (this.#isStopping && ![...outcome.results.values()].some((result) => result.kind === 'delivered')) return;
    await this.#settle(entry, outcome);
  }

  async #settle(entry: Entry, outcome: AttemptOutcome): Promise<void> {
    const { envelope } = entry;
    const isTooOld = this.#options.clock.nowMs() - envelope.acceptedAtMs >= giveUpAfterMs;
    const failed: (FailedRecipient & { index: number })[] = [];
    let newlyFinished = 0;
    for (const [index, result] of outcome.results) {
      const { address } = envelope.recipients[index] as QueuedRecipient;
      if (result.kind === 'delivered') {
        entry.finished.add(index);
        newlyFinished += 1;
        this.#delivered += 1;
        this.#outcomes.add({ outcome: 'delivered' });
      } else if (result.kind === 'permanent') {
        failed.push({ index, address, status: result.status, text: result.text });
      } else {
        entry.lastProblem = `${result.status} ${result.text}`;
        if (isTooOld) failed.push({ index, address, status: '4.4.7', text: `Given up after five days: ${result.text}` });
        else this.#outcomes.add({ outcome: 'deferred' });
      }
    }
    if (failed.length > 0 && (await this.#bounce(envelope, failed))) {
      for (const { index } of failed) entry.finished.add(index);
      newlyFinished += failed.length;
    }
    if (entry.finished.size >= envelope.recipients.length) {
      await this.#spool.remove(envelope.id);
      this.#forget(entry);
      return;
    }
    if (newlyFinished > 0) await this.#saveProgress(entry);
    if (entry.wasShared && (await this.#spool.load(envelope.id)) === undefined) {
      this.#forget(entry);
      return;
    }
    this.#retryLater(entry, outcome.unreachable);
  }

  #forget(entry: Entry): void {
    this.#entries.delete(entry.envelope.id);
    this.#bytes -= entry.envelope.rawBytes;
    const { envelope, attempts } = entry;
    const ageMs = this.#options.clock.nowMs() - envelope.acceptedAtMs;
    this.#options.log.info(
      { queueId: envelope.id, sessionId: envelope.sessionId, attempts: attempts + 1, durationMs: ageMs },
      'message done',
    );
  }

  async #saveProgress(entry: Entry): Promise<void> {
    try {
      await this.#spool.saveProgress(entry.envelope.id, [...entry.finished]);
    } catch (thrown) {
      this.#options.log.warn({ queueId: entry.envelope.id, err: thrown }, `progress of a message was not saved: ${messageOf(thrown)}`);
    }
  }

  #retryLater(entry: Entry, unreachable: readonly ClusterName[] = []): void {
    entry.isActive = false;
    entry.attempts += 1;
    if (this.#isStopping) return;
    const delayMs = retryDelayMs(entry.attempts, this.#options.random);
    entry.retry = this.#options.clock.after(delayMs, () => this.#start(entry));
    for (const cluster of unreachable) {
      const waiting = this.#waiting.get(cluster) ?? new Set<Entry>();
      this.#waiting.set(cluster, waiting.add(entry));
    }
    const fields = { queueId: entry.envelope.id, attempts: entry.attempts, retryMs: Math.round(delayMs), problem: entry.lastProblem };
    // The first retries are everyday; an operator should hear of a message that stays.
    if (entry.attempts < 5) this.#options.log.debug(fields, 'message deferred');
    else this.#options.log.warn(fields, 'message deferred again');
  }

  /** False when the sender could not be told now: the recipients stay open. */
  async #bounce(envelope: Envelope, failed: readonly (FailedRecipient & { index: number })[]): Promise<boolean> {
    const { clock, hostName, log } = this.#options;
    const fields = { queueId: envelope.id, sessionId: envelope.sessionId, recipients: failed.length, problem: failed[0]?.text };
    if (envelope.sender === '') {
      log.warn(fields, 'a bounce could not be delivered and is dropped');
    } else {
      // The id follows from what failed: a crash before the record is written makes the same bounce again, and it is stored once.
      const id = `${envelope.id}-b${Math.min(...failed.map((entry) => entry.index))}`;
      if (!this.#entries.has(id)) {
        try {
          const originalRaw = await this.#spool.read(envelope.id);
          const { id: originalId, sender, acceptedAtMs } = envelope;
          const raw = bounceMessage({ hostName, id, originalId, sender, failed, originalRaw, acceptedAtMs, nowMs: clock.nowMs() });
          const recipients = [{ address: envelope.sender, uuid: undefined }];
          await this.#store({ id, sender: '', recipients, sessionId: envelope.sessionId, raw });
        } catch (thrown) {
          log.error({ ...fields, err: thrown }, `bounce could not be queued: ${messageOf(thrown)}`);
          return false;
        }
      }
      log.info(fields, 'message bounced');
    }
    this.#bounced += failed.length;
    this.#outcomes.add({ outcome: 'bounced' }, failed.length);
    return true;
  }

  #lane(cluster: ClusterName): ClusterLane {
    const found = this.#lanes.get(cluster);
    if (found !== undefined) return found;
    const { hostName, clock, random, log } = this.#options;
    const lane = new ClusterLane({
      cluster,
      hostName,
      clock,
      random,
      log,
      openDelivery: (name) => this.#options.openDelivery(name),
      onProbe: () => {
        const first = this.#waiting.get(cluster)?.values().next().value;
        if (first !== undefined) this.#start(first);
      },
      onRecovered: () => {
        for (const entry of this.#waiting.get(cluster) ?? []) this.#start(entry);
      },
    });
    this.#lanes.set(cluster, lane);
    return lane;
  }
}
